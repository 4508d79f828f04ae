"""`detect-recall`: measure how many annotated objects region proposals cover, and how well.

detect-recall --root ILSVRC/ --split val --method R-CNN=superpixel-scale:1 --method doubled=superpixel-scale:2
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.annotation import AnnotationError
from ..data.categories import CategoryError, read_categories
from ..data.coco import CocoError
from ..data.dataset import Dataset, Sample
from ..data.ilsvrc import LayoutError
from ..data.images import ImageError, read_image
from ..data.layouts import open_dataset
from ..proposals.files import ProposalFileError, read_proposals
from ..proposals.proposals import Proposals
from ..proposals.recall import RecallError, measure, recall_figures
from ..runtime.atomic_write import atomic_write
from ..runtime.interruption import end_on_signals
from .error_messages import message_of
from .help import INPUT, OUTPUT, RUN, Command
from .outputs import check_file, check_folder
from .progress import with_progress

# The settings that --method accepts, with their defaults.
SETTINGS: dict[str, Any] = {"mode": "fast", "superpixel-scale": 2.0, "min-side": 20.0, "connectivity": 4, "seed": 0}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class Matching(str, Enum):
    """The names in `recall.MATCHINGS`."""

    one_to_one = "one-to-one"
    best = "best"


@app.command(
    cls=Command,
    epilog="""\
# Measure selective search with its defaults
detect-recall --root my-data/
# Compare two settings and a file, as tables and as a page
detect-recall --root my-data/ --method R-CNN=superpixel-scale:1 \\
    --method doubled=superpixel-scale:2 --proposals theirs.npz \\
    --html recall.html

Exit code 0: all pictures were read; 3: some could not be read, their
objects count as not found; 2: wrong usage""",
)
def detect_recall(
    root: Annotated[
        Path,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="DATASET",
            help="Annotated data set: a folder in the ILSVRC DET, VOC, COCO, YOLO, Roboflow, CVAT, labelme or Label "
            "Studio layout, or an annotation file (.json of COCO and Label Studio, .yaml of YOLO, .xml of CVAT).",
        ),
    ],
    split: Annotated[
        str | None, typer.Option(rich_help_panel=INPUT, metavar="NAME", help="Split of the data set; val by default.")
    ] = None,
    proposals: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="[NAME=]FILE",
            help="Measure the boxes in a file of detect-propose, under this name. May be given several times.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=RUN,
            metavar="NAME=SETTINGS",
            help="Run selective search with the settings KEY:VALUE,KEY:VALUE and measure its boxes, under this name. "
            "Keys and defaults: "
            + ", ".join(f"{key}:{value:g}" if key != "mode" else f"{key}:{value}" for key, value in SETTINGS.items())
            + ". May be given several times. Without --method and --proposals, it runs once with the defaults.",
        ),
    ] = None,
    matching: Annotated[
        Matching,
        typer.Option(
            rich_help_panel=RUN,
            help="one-to-one: each proposal covers at most one object (Hosang et al.); best: any number (R-CNN).",
        ),
    ] = Matching.one_to_one,
    classes: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="FILE",
            help="Your own class list, one name per line. By default, the 200 DET classes in the ILSVRC layout, and "
            "the classes of the data set in other layouts.",
        ),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", rich_help_panel=OUTPUT, metavar="FILE", help="Write all measures to this file."),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(rich_help_panel=OUTPUT, metavar="FOLDER", help="Write the curves to this folder, as PNG."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT, metavar="FILE", help="Write a self-contained page with tables and curves."
        ),
    ] = None,
) -> None:
    """Measure how well region proposals cover annotated objects, and compare several sets of proposals.

    The measures are recall at IoU 0.5 to 0.9, average recall (AR) and mean average best overlap (MABO), by number of
    proposals and by size of the object.
    """
    files = [_parse_file(text) for text in proposals or []]
    inputs = (root, classes, *(file for _, file in files))
    check_file(json_file, "--json", inputs)
    check_file(html, "--html", inputs)
    check_folder(plots, "--plots")
    try:
        dataset = open_dataset(root, split, read_categories(classes) if classes else None, ("val",))
    except (AnnotationError, CategoryError, CocoError, LayoutError) as error:
        raise typer.BadParameter(message_of(error)) from error
    searches = [_parse_search(text) for text in method or ([] if files else ["selective search="])]
    names = [name for name, _ in (*files, *searches)]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise typer.BadParameter(f"two methods are named {repeated.pop()!r}; give each its own name, NAME=...")

    unreadable: dict[Path | str, str] = {}
    methods = []
    try:
        for name, file in files:
            methods.append(_measure_file(name, file, dataset, matching.value))
        for name, settings in searches:
            methods.append(_measure_search(name, settings, dataset, matching.value, unreadable))
    except (AnnotationError, ProposalFileError, RecallError) as error:
        raise typer.BadParameter(message_of(error)) from error
    report = {
        "dataset": dataset.name,
        "matching": matching.value,
        "images": len(dataset),
        "objects": sum(part["objects"] for part in methods[0]["sizes"].values()),
        "methods": methods,
    }
    _print_tables(report)
    for figures in methods:
        if figures["images_missing"]:
            console.print(
                f"[yellow]warning:[/yellow] {escape(figures['name'])}: no proposals for {figures['images_missing']} of "
                f"{len(dataset)} pictures; their objects count as not found"
            )
    _write(report, json_file, plots, html)
    if unreadable:
        for path, reason in unreadable.items():
            console.print(f"[yellow]warning:[/yellow] {escape(str(path))}: {escape(reason)}")
        raise typer.Exit(3)


def _parse_file(text: str) -> tuple[str, Path]:
    """Parses [NAME=]FILE. Without a name, the method is named after the file."""
    name, equals, file = text.partition("=")
    if not equals or os.path.exists(text):  # the name of a file may contain "="
        return Path(text).stem, Path(text)
    return name, Path(file)


def _parse_search(text: str) -> tuple[str, dict[str, Any]]:
    """Parses NAME=[KEY:VALUE,...] into the name and the arguments of `selective_search`."""
    name, equals, given = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"expected NAME=KEY:VALUE,KEY:VALUE; got {text!r}", param_hint="--method")
    settings = dict(SETTINGS)
    for pair in given.split(",") if given else []:
        key, _, value = (part.strip() for part in pair.partition(":"))
        if key not in SETTINGS:
            raise typer.BadParameter(
                f"{text}: unknown setting {key!r}; expected NAME=KEY:VALUE,KEY:VALUE with keys {', '.join(SETTINGS)}",
                param_hint="--method",
            )
        try:
            settings[key] = type(SETTINGS[key])(value)
        except ValueError as error:
            raise typer.BadParameter(f"{text}: {key} must be a number, got {value!r}", param_hint="--method") from error
    return name, {key.replace("-", "_"): value for key, value in settings.items()}


def _measure_file(name: str, path: Path, dataset: Dataset, matching: str) -> dict[str, Any]:
    with read_proposals(path) as file:
        coverage = measure(_with_progress(dataset, name), lambda sample: file.find(sample.path))
        if coverage.missing == len(dataset):
            raise ProposalFileError(
                f"{path}: contains none of the {len(dataset)} pictures of {dataset.name}; the file names "
                f"{file.names[:2]}, the data set contains {dataset[0].path}; make the file from the same pictures"
            )
        return {**recall_figures(name, coverage, dataset.categories, matching), "settings": file.settings}


def _measure_search(
    name: str, settings: dict[str, Any], dataset: Dataset, matching: str, unreadable: dict[Path | str, str]
) -> dict[str, Any]:
    from ..proposals.selective_search import selective_search

    def search(sample: Sample) -> Proposals | None:
        try:
            return selective_search(read_image(sample.path), **settings)
        except ImageError as error:
            unreadable[error.path] = error.reason
            return None

    try:  # on a tiny image, to reject settings out of range before the work begins
        selective_search(np.zeros((8, 8, 3), np.uint8), **settings)
    except ValueError as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--method") from error
    coverage = measure(_with_progress(dataset, name), search)
    figures = recall_figures(name, coverage, dataset.categories, matching)
    return {**figures, "settings": {"method": "selective search", **settings}}


def _with_progress(dataset: Dataset, name: str) -> Iterator[Sample]:
    """The samples of the data set, with their progress."""
    return with_progress(console, name, dataset)


def _print_tables(report: dict[str, Any]) -> None:
    out = Console(emoji=False)
    methods = report["methods"]
    title = f"{report['objects']:,} objects in {report['images']:,} images of {report['dataset']}, {report['matching']}"
    table = Table("percent", title=escape(title))
    for heading in ("boxes", *(f"R@{iou}" for iou in methods[0]["recall"]), "AR", "MABO"):
        table.add_column(heading, justify="right")
    for method in methods:
        values = (*method["recall"].values(), method["AR"], method["MABO"])
        table.add_row(escape(method["name"]), f"{method['boxes_per_image']:,.0f}", *map(_percent, values))
    out.print(table)
    _print_series(
        out,
        "Recall at IoU 0.5 of the first proposals",
        methods,
        lambda method: {f"{step['first'] or 'all'}": step["recall"]["0.5"] for step in method["by_count"]},
    )
    _print_series(
        out,
        "AR by size of the object (COCO's limits: 32², 96² pixels)",
        methods,
        lambda method: {f"{size} ({part['objects']:,})": part["AR"] for size, part in method["sizes"].items()},
    )


def _print_series(
    out: Console, title: str, methods: list[dict[str, Any]], series: Callable[[dict[str, Any]], dict[str, float | None]]
) -> None:
    table = Table("percent", title=title)
    for heading in series(methods[0]):
        table.add_column(heading, justify="right")
    for method in methods:
        table.add_row(escape(method["name"]), *map(_percent, series(method).values()))
    out.print(table)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _write(report: dict[str, Any], json_file: Path | None, plots: Path | None, html: Path | None) -> None:
    from ..proposals.recall_plots import recall_page, recall_plots

    if json_file:
        _write_text(json_file, json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    if plots:
        for name, figure in recall_plots(report["methods"]).items():
            with _writing(plots / f"{name}.png") as partial:
                figure.savefig(partial, format="png")
    if html:
        _write_text(html, recall_page(report))
    for written in filter(None, (json_file, plots, html)):
        console.print(f"written: {escape(str(written))}")


def _write_text(file: Path, text: str) -> None:
    with _writing(file) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def _writing(file: Path) -> Iterator[Path]:
    """Like `atomic_write`, but reports a file that cannot be written as wrong usage."""
    try:
        with atomic_write(file) as partial:
            yield partial
    except OSError as error:
        raise typer.BadParameter(f"cannot write {file}: {error.strerror}") from error


def main() -> None:
    """Runs the command `detect-recall`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
