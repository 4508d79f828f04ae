"""`detect-propose`: propose regions that may contain an object, and write them to a file.

detect-propose photos/ --out proposals.npz
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape

from .. import __version__
from ..data.images import MAX_PIXELS, ImageError, read_image
from ..data.listing import ListingError, find_images
from ..runtime.interruption import end_on_signals, say_when_interrupted
from ..runtime.prefetch import prefetch
from .error_messages import message_of
from .help import INPUT, MODEL, OUTPUT, Command
from .options import Device, MaxPixels, ModelName, Recursive, Seed
from .outputs import check_file
from .progress import StageProgress

if TYPE_CHECKING:
    from ..detection.engines.multibox import MultiBoxEngine
    from ..detection.model_files import RegionSettings
    from ..proposals.proposals import Proposals

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class Mode(str, Enum):
    """The names in `strategies.STRATEGY_SETS`, repeated here so that `--help` needs no slow import."""

    fast = "fast"
    quality = "quality"
    single = "single"


class Connectivity(str, Enum):
    """The number of neighbours of a pixel."""

    four = "4"
    eight = "8"


class Method(str, Enum):
    """The method that proposes the boxes."""

    selective_search = "selective-search"
    multibox = "multibox"
    both = "both"


def _read(paths: list[Path], max_pixels: int) -> Iterator[np.ndarray | ImageError]:
    """Yields each image, or the error if it cannot be read."""
    for path in paths:
        try:
            yield read_image(path, max_pixels)
        except ImageError as error:
            yield error


@app.command(
    cls=Command,
    epilog="""\
# Propose regions by selective search
detect-propose photos/ --recursive --out proposals.npz
# The regions that detect proposes, with MultiBox
detect-propose photos/ --method both --out both.npz
# Let detect use these regions
detect photos/ --proposals-file both.npz
# Measure how many annotated objects the regions cover
detect-propose test-data/ --out test.npz
detect-recall --root test-data/ --proposals test.npz

Exit code 0: all pictures were read; 3: some could not be read, the file
lists the reasons; 2: wrong usage""",
)
def detect_propose(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders, patterns ('*.jpg') or ILSVRC image lists (.txt).",
            rich_help_panel=INPUT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File to write (.npz); docs/recall.md describes the format.", rich_help_panel=OUTPUT
        ),
    ],
    recursive: Recursive = False,
    method: Annotated[
        Method,
        typer.Option(
            help="Method: selective search, the 200 boxes of the MultiBox network of --model, or both, as in detect.",
            rich_help_panel=MODEL,
        ),
    ] = Method.selective_search,
    model: ModelName = "default",
    device: Device = "auto",
    mode: Annotated[
        Mode,
        typer.Option(
            help="Number of pooled groupings: 8 (fast, as in R-CNN), 80 (quality) or 1 (single).", rich_help_panel=MODEL
        ),
    ] = Mode.fast,
    superpixel_scale: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Size of the superpixels: 1 as in R-CNN; 2 as in GoogLeNet, with half the boxes. Default: 2; with "
            "--method both, the value of --model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    min_side: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Minimum side of a region, in pixels of the picture resized to width 500. Default: 20; with --method "
            "both, the value of --model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    connectivity: Annotated[
        Connectivity | None,
        typer.Option(
            help="Neighbours of a pixel. 8: a tenth fewer boxes with slightly higher recall. Default: 4; with "
            "--method both, the value of --model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    seed: Seed = 0,
    max_pixels: MaxPixels = MAX_PIXELS,
) -> None:
    """Propose regions that may contain an object, by selective search, MultiBox or both, and write them to one file.

    detect-recall measures the recall of this file. detect --proposals-file uses it in place of its own proposals.
    """
    if superpixel_scale is not None and not 0 < superpixel_scale < float("inf"):
        raise typer.BadParameter(f"expected a number above 0, got {superpixel_scale}", param_hint="--superpixel-scale")
    try:
        paths = find_images([str(path) for path in inputs], recursive)
    except (ListingError, OSError) as error:
        raise typer.BadParameter(message_of(error), param_hint="INPUT") from error
    check_file(out, "--out", paths)

    say_when_interrupted(lambda: f"{out} is written when all pictures are done; start again")
    from ..proposals.combine import combine
    from ..proposals.files import ProposalFileError, ProposalWriter, names_below_common_folder
    from ..proposals.selective_search import selective_search

    defaults = {name: parameter.default for name, parameter in inspect.signature(selective_search).parameters.items()}
    multibox = None
    if method is not Method.selective_search:
        multibox, regions = _load_multibox(model, device)
        if method is Method.both:
            defaults.update(vars(regions))
    search: dict[str, Any] = {
        "mode": mode.value,
        "superpixel_scale": defaults["superpixel_scale"] if superpixel_scale is None else superpixel_scale,
        "min_side": defaults["min_side"] if min_side is None else min_side,
        "connectivity": defaults["connectivity"] if connectivity is None else int(connectivity.value),
        "seed": seed,
    }
    try:  # on a tiny image, to reject settings out of range before the work begins
        selective_search(np.zeros((8, 8, 3), np.uint8), **search)
    except ValueError as error:
        raise typer.BadParameter(message_of(error)) from error

    def propose(picture: np.ndarray) -> Proposals:
        if multibox is not None and method is Method.multibox:
            return multibox(picture)
        selective = selective_search(picture, **search)
        return selective if multibox is None else combine(selective, multibox(picture))

    settings = {
        "method": method.value.replace("-", " "),
        **({} if multibox is None else {"model": Path(model).name}),
        **search,
        "program": f"inception-rcnn {__version__}",
    }
    boxes = failed = 0
    try:
        with ProposalWriter(out, settings) as writer, StageProgress(console, "images") as progress:
            progress.report("proposing", 0, len(paths), {})
            pictures = prefetch(_read(paths, max_pixels), 2)
            names = names_below_common_folder(paths)
            for done, (path, name, picture) in enumerate(zip(paths, names, pictures, strict=True), 1):
                if isinstance(picture, ImageError):
                    failed += 1
                    writer.fail(name, picture.reason)
                    progress.warn(f"{path} is left out: {picture.reason}")
                else:
                    proposals = propose(picture)
                    height, width = picture.shape[:2]
                    writer.add(name, width, height, proposals)
                    boxes += len(proposals)
                progress.report("proposing", done, len(paths), {})
    except OSError as error:  # the file cannot be written; errors of reading an image are ImageErrors
        raise typer.BadParameter(f"cannot write {out}: {error.strerror or error}", param_hint="--out") from error
    except ProposalFileError as error:
        raise typer.BadParameter(message_of(error)) from error
    read = len(paths) - failed
    console.print(
        f"{boxes:,} boxes of {read} pictures, {boxes / max(read, 1):,.0f} each; written: {escape(str(out))}",
        soft_wrap=True,
    )
    if failed:
        console.print(
            f'[yellow]{failed} of {len(paths)} pictures could not be read[/yellow]: see "failures" in its index.json'
        )
        raise typer.Exit(3)


def _load_multibox(model: str, device: str) -> tuple[MultiBoxEngine, RegionSettings]:
    from ..detection.engines.engine import EngineError
    from ..detection.engines.multibox import MultiBoxEngine
    from ..detection.model_files import load_model
    from ..detection.networks.weights import ModelError

    try:
        loaded = load_model(model)
        if loaded.multibox is None:
            raise typer.BadParameter(
                f"{model} has no MultiBox network; add it with detect-train-multibox", param_hint="--model"
            )
        return MultiBoxEngine(loaded.multibox, device=device), loaded.regions
    except (ModelError, EngineError) as error:
        raise typer.BadParameter(message_of(error)) from error


def main() -> None:
    """Runs the command `detect-propose`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
