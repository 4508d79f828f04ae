"""`detect-classify`: say what whole pictures show, and measure classifiers."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.augment import CROP_COUNTS
from ..data.classifications import ClassificationsWriter
from ..data.image_labels import labels_of_folders, read_labels
from ..data.images import MAX_PIXELS
from ..data.listing import ListingError, find_images_and_urls
from ..runtime.interruption import end_on_signals, say_when_interrupted
from .error_messages import message_of, print_failures
from .help import INPUT, MODEL, OUTPUT, RUN, Command
from .options import Device, EngineName, MaxPixels, Recursive
from .outputs import check_folder
from .progress import StageProgress, working
from .result_files import notice_of_changed

if TYPE_CHECKING:
    from ..data.categories import Category
    from ..detection.classification_run import Cell
    from ..detection.evaluation.top_errors import ErrorRate, Table3Row
    from ..detection.run_state import RunState

# Largest number of pictures whose predictions are printed one by one.
_FEW = 20
# The predictions that the top-5 error needs.
_TOP5 = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class Crops(str, Enum):
    """The number of crops of each picture."""

    one = "1"
    ten = "10"
    many = "144"


EXAMPLES = """\
# Say what each picture in a folder and its sub-folders shows
detect-classify photos/ --recursive --out classified/
# Measure the public network, and print the paper's Table 3 beside it
detect-classify val/ --model bvlc_googlenet.caffemodel --labels val.txt \\
    --table3 --out measured/

Exit code 0: all pictures were read; 3: some could not be read, the last
lines say which; 2: wrong usage; 1: the run stopped, --resume continues it"""


@app.command(cls=Command, epilog=EXAMPLES)
def detect_classify(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders, patterns ('*.jpg') or URLs of these (s3://...), or ILSVRC image lists (.txt).",
            rich_help_panel=INPUT,
        ),
    ],
    recursive: Recursive = False,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the name of a picture and its WNID in each line: measures top-1 and top-5 error. Without "
            "it, the names of the pictures' folders are the labels, if all of them are classes.",
            show_default=False,
            rich_help_panel=INPUT,
        ),
    ] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder for classes.json and classes.csv.", rich_help_panel=OUTPUT)
    ] = Path("classified"),
    top: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of classes written for each picture.", rich_help_panel=OUTPUT),
    ] = 5,
    table3: Annotated[
        bool,
        typer.Option(
            "--table3",
            help="Measure 1, 10 and 144 crops with 1, 2, ... all networks, and print the paper's Table 3 beside it. "
            "Each crop runs once. The files hold the classes by all networks and 144 crops.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    model: Annotated[
        list[str],
        typer.Option(
            metavar="FILE|FOLDER|NAME",
            help="A .caffemodel file; 'torchvision'; a classifier of detect-train-classifier, or the folder with its "
            "ensemble; a detector's model folder, or the name of a shipped model. Repeat the option to average several "
            "models. A detector's networks classify without their background output.",
            rich_help_panel=MODEL,
        ),
    ] = ["default"],  # noqa: B006  # typer copies it
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Class list of the .caffemodel, a line for each output, such as synset_words.txt. By default "
            "ImageNet's 1,000 classes.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    crops: Annotated[
        Crops | None,
        typer.Option(
            help="Crops of each picture whose probabilities are averaged: 1, the centre (the default); 10, corners and "
            "centre, mirrored too; or 144, the paper's.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    device: Device = "auto",
    engine: Annotated[
        EngineName, typer.Option(help="Engine that runs the networks.", rich_help_panel=RUN)
    ] = EngineName.auto,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue the run in --out, with the same options; start it if there is none.",
            rich_help_panel=RUN,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the run in --out by a new run, which deletes the files of the old run.",
            rich_help_panel=RUN,
        ),
    ] = False,
) -> None:
    """Say what whole pictures show: classes with probabilities.

    Writes OUT/classes.json and OUT/classes.csv. The result of each picture is stored in OUT/run.sqlite as soon as it is
    known. --resume continues a run that was interrupted. With labels, it measures the top-1 and top-5 error.
    """
    if resume and overwrite:
        raise typer.BadParameter("expected either --resume or --overwrite", param_hint="--resume")
    try:
        paths = find_images_and_urls(inputs, recursive)
    except (ListingError, OSError) as error:
        raise typer.BadParameter(message_of(error), param_hint="INPUT") from error
    check_folder(out, "--out")
    if table3 and crops is not None:
        raise typer.BadParameter("--table3 runs 1, 10 and 144 crops: leave out --crops", param_hint="--crops")
    if classes is not None and not any(name.endswith(".caffemodel") for name in model):
        raise typer.BadParameter("it names the classes of a .caffemodel: add --model", param_hint="--classes")

    # The run is compared with the run in --out before networks are loaded, which takes seconds.
    with working(console, "loading the program"):
        from ..detection.classification import Classifier, find_picture_model
        from ..detection.classification_run import Cell, rank, rankings, table3_cells
        from ..detection.engines.choice import EngineError, choose
        from ..detection.run_state import RunState, RunStateError

        try:
            models = [find_picture_model(name, classes) for name in model]
            known = models[0].classes
            truth = _labels(labels, paths, inputs, known)
            if table3 and truth is None:
                raise typer.BadParameter(
                    "it needs --labels, or folders that are named after classes", param_hint="--table3"
                )
            chosen = choose(engine.value, device)
            networks = sum(one.networks for one in models)
            counts = CROP_COUNTS if table3 else (int((crops or Crops.one).value),)
            cells = table3_cells(networks) if table3 else [Cell(networks, counts[0])]
            kept = min(max(top, _TOP5), len(known))
            # run.sqlite stores these names and values, and --resume compares them.
            settings: dict[str, object] = {
                "the version of inception-rcnn": version("inception-rcnn"),
                "the command": "detect-classify",
                "the models' digests": ", ".join(one.digest[:12] for one in models),
                "the networks": networks,
                "their engine": chosen.description,
                "--crops": ", ".join(map(str, counts)),
                "--top": top,
                "--max-pixels": max_pixels,
            }
            state = RunState(
                out / "run.sqlite",
                settings,
                paths,
                existing="overwrite" if overwrite else "resume" if resume else "refuse",
                # Results hold the places of classes in the list, because class ids may be any numbers.
                categories=tuple(replace(one, id=place) for place, one in enumerate(known)),
            )
        except (EngineError, RunStateError, OSError, ValueError) as error:
            raise typer.BadParameter(message_of(error)) from error
    context.with_resource(state)

    def kept_results() -> str:
        return (
            f"the results of {state.done} of {len(paths)} pictures are kept in {state.file}; continue with the same "
            "command and --resume"
        )

    say_when_interrupted(kept_results)
    left = state.left()
    if left:
        try:
            with working(console, "loading the networks"):
                classifier = Classifier(models, device=device, engine=engine.value)
        except (EngineError, OSError, ValueError) as error:
            raise typer.BadParameter(message_of(error)) from error
        console.print(
            f"{len(paths)} pictures, {networks} network(s), {max(counts)} crop(s) on {classifier.description} "
            f"({classifier.reason})",
            soft_wrap=True,
        )
    if state.finished:
        console.print(
            f"the run in {escape(str(out))} is complete: {len(paths)} pictures with these settings; --overwrite starts "
            "it again",
            soft_wrap=True,
        )
    elif state.done:
        console.print(f"{state.done} of {len(paths)} pictures are already done")
    try:
        for _ in rankings(state, len(cells), kept):  # damage is found before the work begins
            pass
        if left:
            found = classifier.classify_files([paths[picture] for picture in left], counts, max_pixels)
            with StageProgress(console, "images") as progress, closing(found):
                progress.report("classifying", state.done, len(paths), {})
                for picture, one in zip(left, found, strict=True):
                    if one.error is not None:
                        progress.warn(f"{one.path} is left out: {one.error.reason}")
                    state.add(rank(picture, one, cells, counts, kept))
                    progress.report("classifying", state.done, len(paths), {})
        files = [out / "classes.json", out / "classes.csv"]
        if changed := state.delete_replaced(but=files):
            console.print(notice_of_changed(changed), markup=False, highlight=False, soft_wrap=True)
        failed = _write_classes(paths, state, known, cells, kept, top, truth, table3, out)
        for file in files:
            state.wrote(file)
        state.finish()
    except (OSError, sqlite3.Error, EngineError, RunStateError) as error:
        console.print(f"[red]stopped:[/red] {escape(message_of(error))}\n{escape(kept_results())}", soft_wrap=True)
        raise typer.Exit(1) from error
    console.print(f"written: {escape(str(files[0]))}, {escape(str(files[1]))}")
    print_failures(console, failed, len(paths), files[0])
    if failed:
        raise typer.Exit(3)


def _labels(
    file: Path | None, paths: Sequence[Path | str], inputs: Sequence[str], classes: "Sequence[Category]"
) -> list[int | None] | None:
    """The right class of each picture, from a file or from the names of folders; None if the classes are not known."""
    if file is not None:
        labels = read_labels(file, paths, classes)
        if missing := sum(label is None for label in labels):
            console.print(
                f"[yellow]warning:[/yellow] {missing} of {len(paths)} pictures have no label and do not count"
            )
        return labels
    labels, unknown = labels_of_folders(paths, inputs, classes)
    if not unknown:
        console.print("labels: the names of the pictures' folders")
        return labels
    if any(label is not None for label in labels):
        console.print(
            f"[yellow]warning:[/yellow] the errors are not measured: {len(unknown)} folders do not have the name of a "
            f"class, for example {escape(repr(min(unknown)))}"
        )
    return None


def _write_classes(
    paths: Sequence[Path | str],
    state: "RunState",
    classes: "Sequence[Category]",
    cells: "Sequence[Cell]",
    kept: int,
    top: int,
    truth: list[int | None] | None,
    show_table3: bool,
    out: Path,
) -> list[tuple[Path | str, str]]:
    """Write the results in `state` to classes.json and classes.csv, and print tables.

    Returns:
        The pictures that could not be read, with the reasons.
    """
    from ..detection.classification_run import rankings

    read: list[tuple[str, np.ndarray, np.ndarray]] = []  # names and predictions of the first pictures
    best: Counter[int] = Counter()
    failed: list[tuple[Path | str, str]] = []
    right, ranked = [], []
    with ClassificationsWriter(out, classes) as writer:
        for one in rankings(state, len(cells), kept):
            name = str(paths[one.picture])
            if one.positions is None or one.probabilities is None:
                failed.append((paths[one.picture], one.failure or "not read"))
                writer.fail(name, failed[-1][1])
                continue
            positions, probabilities = one.positions[-1, :top], one.probabilities[-1, :top]
            writer.add(name, positions.tolist(), probabilities.tolist())
            best[int(positions[0])] += 1
            if len(read) <= _FEW:
                read.append((name, positions, probabilities))
            label = truth[one.picture] if truth is not None else None
            if label is not None:
                right.append(label)
                ranked.append(one.positions)
        if len(read) <= _FEW:
            _print_predictions(read, classes)
        else:
            _print_counts(best, classes)
        if right:
            writer.measure(_measure(np.array(right), np.stack(ranked), cells, show_table3))
        elif truth is not None:
            console.print("[yellow]warning:[/yellow] no picture with a label could be read: nothing is measured")
    return failed


def _print_predictions(pictures: Sequence[tuple[str, np.ndarray, np.ndarray]], classes: "Sequence[Category]") -> None:
    """Print the classes of each picture, the most probable first."""
    table = Table("picture", "class", "probability")
    for name, positions, probabilities in pictures:
        names = "\n".join(escape(classes[position].name) for position in positions)
        table.add_row(escape(name), names, "\n".join(f"{one:.3f}" for one in probabilities), end_section=True)
    if pictures:
        console.print(table)


def _print_counts(best: Counter[int], classes: "Sequence[Category]") -> None:
    """Print how many pictures each class is the most probable class of."""
    console.print(f"{len(best)} classes in {best.total()} pictures")
    table = Table("most probable class", "pictures")
    for position, count in best.most_common():
        table.add_row(escape(classes[position].name), str(count))
    console.print(table)


def _measure(labels: np.ndarray, ranked: np.ndarray, cells: "Sequence[Cell]", show_table3: bool) -> dict[str, Any]:
    """Print the errors of the last classification, and Table 3; return them as in classes.json.

    Args:
        labels: int64 [N], the right classes.
        ranked: int64 [N, M, K], the classes of each of `cells`, the most probable first.
    """
    from ..detection.evaluation.top_errors import error_rate, is_wrong, table3

    top1, top5 = (error_rate(is_wrong(labels, ranked[:, -1], first)) for first in (1, _TOP5))
    networks, crops = cells[-1]
    console.print(
        f"{networks} network(s), {crops} crop(s), {top1.images} pictures: top-1 error {_percent(top1)}, top-5 error "
        f"{_percent(top5)}"
    )
    figures: dict[str, Any] = {"measured": {"images": top1.images, **_errors(top1, top5)}}
    if show_table3:
        rows = table3(cells, labels, ranked)
        _print_table3(rows, top1.images)
        figures["table3"] = [
            {
                "networks": row.networks,
                "crops": row.crops,
                "cost": row.cost,
                **_errors(row.top1, row.top5),
                "change": row.change,
                "change_interval": row.change_interval,
                "paper_top5_error": row.paper and row.paper[0],
                "paper_change": row.paper and row.paper[1],
            }
            for row in rows
        ]
    return figures


def _print_table3(rows: "Sequence[Table3Row]", images: int) -> None:
    """Print Table 3 of the paper with our figures. The intervals are 95 % intervals."""
    table = Table(
        "networks",
        "crops",
        "cost",
        "top-5 error",
        "change to base",
        "paper's top-5 error",
        "change to base",
        title=f"Table 3 on {images} pictures, and the paper's on 50,000",
    )
    for row in rows:
        ours, change, paper, paper_change = "", "", "", ""
        if row.top5 is not None and row.change is not None and row.change_interval is not None:
            low, high = row.change_interval
            ours, change = _percent(row.top5), f"{row.change:+.2%} ({low:+.2%} to {high:+.2%})"
        if row.paper is not None:
            paper, paper_change = f"{row.paper[0]:.2%}", f"{row.paper[1]:+.2%}"
        if row.cost == 1:
            change = paper_change = "base"
        table.add_row(str(row.networks), str(row.crops), str(row.cost), ours, change, paper, paper_change)
    console.print(table)


def _percent(rate: "ErrorRate") -> str:
    low, high = rate.interval()
    return f"{rate.error:.2%} ({low:.2%} to {high:.2%})"


def _errors(top1: "ErrorRate | None", top5: "ErrorRate | None") -> dict[str, Any]:
    return {
        f"{name}_{kind}": value
        for name, rate in (("top1", top1), ("top5", top5))
        if rate is not None
        for kind, value in (("error", rate.error), ("interval", rate.interval()))
    }


def main() -> None:
    """The command `detect-classify`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
