"""`detect-propose`: write the regions of photographs that may hold an object, for later use.

detect-propose photos/ --out proposals.npz
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from .. import __version__
from ..data.images import MAX_PIXELS, ImageError, read_image
from ..data.listing import ListingError, find_images
from ..runtime.prefetch import prefetch

if TYPE_CHECKING:
    from ..detection.engines.multibox import MultiBoxEngine
    from ..proposals.proposals import Proposals

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True)


class Mode(str, Enum):
    """The names of `strategies.STRATEGY_SETS`, known before the slow imports."""

    fast = "fast"
    quality = "quality"
    single = "single"


class Method(str, Enum):
    """Where the boxes come from."""

    selective_search = "selective-search"
    multibox = "multibox"
    both = "both"


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.2f} images/s")


def _read(paths: list[Path], max_pixels: int) -> Iterator[np.ndarray | ImageError]:
    for path in paths:
        try:
            yield read_image(path, max_pixels)
        except ImageError as error:
            yield error


@app.command(
    epilog="Example: [bold]detect-propose photos/ --recursive --out proposals.npz[/bold]   "
    "(exit code 0: all pictures read; 3: some could not be, the file says why; 2: wrong usage)"
)
def detect_propose(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT...", help="Pictures, folders, patterns ('*.jpg') or ILSVRC image lists (.txt)."),
    ],
    out: Annotated[Path, typer.Option(help="File to write (.npz); docs/recall.md describes it.")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into sub-folders too.")] = False,
    method: Annotated[
        Method,
        typer.Option(help="Selective search, the 200 boxes of --model's MultiBox network, or both, as detect does."),
    ] = Method.selective_search,
    model: Annotated[
        str, typer.Option(help="Model folder, or the name of a shipped model, whose MultiBox network to use.")
    ] = "default",
    device: Annotated[str, typer.Option(help="For MultiBox: auto, cpu, cuda or cuda:N.")] = "auto",
    mode: Annotated[
        Mode, typer.Option(help="How many groupings are pooled: 8 (fast, R-CNN's), 80 (quality) or 1 (single).")
    ] = Mode.fast,
    superpixel_scale: Annotated[
        float, typer.Option(help="Size of the superpixels: 1 is R-CNN's; 2 GoogLeNet's, half the boxes.")
    ] = 2.0,
    min_side: Annotated[
        float, typer.Option(min=0, help="Least side of a region, in pixels of the picture brought to width 500.")
    ] = 20,
    connectivity: Annotated[
        int, typer.Option(help="Neighbours of a pixel, 4 or 8; 8 gives a tenth fewer boxes that cover a little more.")
    ] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the ranking of the boxes.")] = 0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse pictures with more pixels than this.")] = MAX_PIXELS,
) -> None:
    """Propose regions that may hold an object, by selective search, MultiBox or both, and write them to one file.

    detect-recall measures such files against annotations, and detect takes them in place of its own search.
    """
    if not 0 < superpixel_scale < float("inf"):
        raise typer.BadParameter(f"expected a number above 0, got {superpixel_scale}", param_hint="--superpixel-scale")
    if connectivity not in (4, 8):
        raise typer.BadParameter(f"expected 4 or 8, got {connectivity}", param_hint="--connectivity")
    try:
        paths = find_images([str(path) for path in inputs], recursive)
    except (ListingError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="INPUT") from error

    from ..proposals.combine import combine
    from ..proposals.files import ProposalWriter, names_below_common_folder
    from ..proposals.selective_search import selective_search

    multibox = None if method is Method.selective_search else _load_multibox(model, device)

    def propose(picture: np.ndarray) -> Proposals:
        if multibox is not None and method is Method.multibox:
            return multibox(picture)
        searched = selective_search(
            picture,
            mode=mode.value,
            superpixel_scale=superpixel_scale,
            min_side=min_side,
            connectivity=connectivity,
            seed=seed,
        )
        return searched if multibox is None else combine(searched, multibox(picture))

    settings = {
        "method": method.value.replace("-", " "),
        **({} if multibox is None else {"model": Path(model).name}),
        "mode": mode.value,
        "superpixel_scale": superpixel_scale,
        "min_side": min_side,
        "connectivity": connectivity,
        "seed": seed,
        "program": f"inception-rcnn {__version__}",
    }
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TimeRemainingColumn(),
    )
    boxes = failed = 0
    try:
        with ProposalWriter(out, settings) as writer, Progress(*columns, console=console) as progress:
            task = progress.add_task("proposing", total=len(paths))
            pictures = prefetch(_read(paths, max_pixels), 2)
            for path, name, picture in zip(paths, names_below_common_folder(paths), pictures, strict=True):
                if isinstance(picture, ImageError):
                    failed += 1
                    writer.fail(name, picture.reason)
                    progress.console.print(
                        f"[yellow]warning:[/yellow] {escape(str(path))}: {escape(picture.reason)}; left out"
                    )
                else:
                    proposals = propose(picture)
                    height, width = picture.shape[:2]
                    writer.add(name, width, height, proposals)
                    boxes += len(proposals)
                progress.advance(task)
    except OSError as error:  # of writing: what cannot be read is an ImageError
        raise typer.BadParameter(f"cannot write {out}: {error.strerror}", param_hint="--out") from error
    read = len(paths) - failed
    console.print(f"{boxes:,} boxes of {read} pictures, {boxes / max(read, 1):,.0f} each; written: {escape(str(out))}")
    if failed:
        console.print(f'[yellow]{failed} of {len(paths)} pictures could not be read[/yellow]: see "failures" in it')
        raise typer.Exit(3)


def _load_multibox(model: str, device: str) -> MultiBoxEngine:
    from ..detection.engines.engine import EngineError
    from ..detection.engines.multibox import MultiBoxEngine
    from ..detection.model_files import load_model
    from ..detection.networks.weights import ModelError

    try:
        network = load_model(model).multibox
        if network is None:
            raise typer.BadParameter(
                f"{model} has no MultiBox network: give it one with detect-train-multibox", param_hint="--model"
            )
        return MultiBoxEngine(network, device=device)
    except (ModelError, EngineError) as error:
        raise typer.BadParameter(str(error)) from error


def main() -> None:
    """The command `detect-propose`."""
    app()


if __name__ == "__main__":
    main()
