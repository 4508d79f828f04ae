"""`detect`: find objects in photographs and write them as data and as pictures.

detect photos/ --out found/
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..data.images import MAX_PIXELS
from ..data.listing import ListingError, find_images

# What is drawn and counted on the terminal unless --score-threshold says otherwise; the JSON file goes lower.
SHOWN_SCORE = 0.5
KEPT_SCORE = 0.01

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True)


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:.2f} images/s")


def demo_images() -> list[Path]:
    """The photographs of everyday things that are installed with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [
        folder / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
    ]


@app.command(
    epilog="Example: [bold]detect photos/ --recursive --out found/[/bold]   "
    "(exit code 0: all pictures read; 3: some could not be, found/detections.json says why; 2: wrong usage)"
)
def detect(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="INPUT...", help="Pictures, folders, patterns ('*.jpg') or ILSVRC image lists (.txt)."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for detections.json and pictures/.")] = Path("detections"),
    demo: Annotated[
        bool, typer.Option("--demo", help="Detect in the photographs that come with scikit-image.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into sub-folders too.")] = False,
    model: Annotated[str, typer.Option(help="Model folder, or the name of a shipped model.")] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help=f"Least score that is written and drawn. By default {KEPT_SCORE} is written and {SHOWN_SCORE} drawn.",
        ),
    ] = None,
    max_detections: Annotated[int, typer.Option(min=1, help="Best detections kept of a picture.")] = 100,
    proposals_file: Annotated[
        Path | None, typer.Option(help="Use the boxes of this file, made by detect-propose, as regions.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the ranking of proposals.")] = 0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse pictures with more pixels than this.")] = MAX_PIXELS,
    pictures: Annotated[bool, typer.Option(help="Write pictures with the detections drawn in.")] = True,
) -> None:
    """Find objects in photographs: boxes with class names and scores.

    Writes OUT/detections.json, a COCO dataset with scores, and OUT/pictures/ with the detections drawn in.
    """
    if demo == bool(inputs):
        raise typer.BadParameter("name pictures, folders or lists to detect in, or use --demo", param_hint="INPUT")
    try:
        paths = demo_images() if demo else find_images([str(path) for path in inputs or []], recursive)
    except (ListingError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="INPUT") from error

    with console.status("loading the model ..."):
        from ..data.coco import DetectionsWriter
        from ..detection.detector import Detector
        from ..detection.drawing import draw_detections
        from ..detection.engine import EngineError
        from ..detection.model_files import ModelError
        from ..proposals.files import ProposalFileError, read_proposals

        try:
            proposals = read_proposals(proposals_file) if proposals_file else None
            detector = Detector.load(
                model,
                device=device,
                score_threshold=KEPT_SCORE if score_threshold is None else score_threshold,
                max_detections=max_detections,
                seed=seed,
            )
        except (ModelError, EngineError, ProposalFileError) as error:
            raise typer.BadParameter(str(error)) from error
    shown_score = SHOWN_SCORE if score_threshold is None else score_threshold
    names = {category.id: category.name for category in detector.categories}
    drawings = _distinct_names(paths)
    found: Counter[str] = Counter()
    failed = 0
    console.print(f"{len(paths)} pictures, {len(detector.engines)} network(s) on {detector.engines[0].description}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TimeRemainingColumn(),
    )
    with (
        DetectionsWriter(out / "detections.json", detector.categories) as writer,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("detecting", total=len(paths))
        for result in detector.detect_files(paths, max_pixels, proposals):
            progress.advance(task)
            if result.image is None or result.detections is None:
                failed += 1
                reason = result.error.reason if result.error else "not read"
                writer.fail(str(result.path), reason)
                progress.console.print(
                    f"[yellow]warning:[/yellow] {escape(str(result.path))}: {escape(reason)}; left out"
                )
                continue
            height, width = result.image.shape[:2]
            kept = result.detections
            writer.add(str(result.path), width, height, kept.boxes, kept.scores, kept.labels)
            shown = kept.above(shown_score)
            found.update(names[int(label)] for label in shown.labels)
            if pictures:
                texts = [names[int(label)] for label in shown.labels]
                drawn = draw_detections(result.image, shown.boxes, texts, shown.scores)
                _write_jpeg(out / "pictures" / f"{drawings[result.path]}.jpg", drawn)
    _print_summary(found, shown_score, len(paths) - failed, out)
    if failed:
        console.print(
            f'[yellow]{failed} of {len(paths)} pictures could not be read[/yellow]: see "failures" in detections.json'
        )
        raise typer.Exit(3)


def _distinct_names(paths: list[Path]) -> dict[Path, str]:
    """A name for each picture's drawing: its own without suffix, numbered where two pictures share it."""
    taken: set[str] = set()
    names = {}
    for path in paths:
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names[path] = name
    return names


def _write_jpeg(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    Image.fromarray(pixels).save(partial, format="JPEG", quality=90)
    partial.replace(file)


def _print_summary(found: Counter[str], score: float, read: int, out: Path) -> None:
    table = Table("class", "objects", title=f"{sum(found.values())} objects with score >= {score} in {read} pictures")
    for name, count in found.most_common():
        table.add_row(name, str(count))
    if found:
        console.print(table)
    else:
        console.print(f"no objects with score >= {score} in {read} pictures")
    console.print(f"written: {escape(str(out / 'detections.json'))}")


def main() -> None:
    """The command `detect`."""
    app()


if __name__ == "__main__":
    main()
