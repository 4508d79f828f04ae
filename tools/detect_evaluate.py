"""`detect-evaluate`: measures detections by the rules of ILSVRC, PASCAL VOC or COCO, and says what to improve.

detect-evaluate predictions.txt --root ILSVRC/ --split val --html report.html
"""

import math
import os
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..runtime.interruption import end_on_signals
from .error_messages import message_of
from .help import INPUT, OUTPUT, RUN, Command
from .outputs import check_file, check_folder
from .progress import working

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(emoji=False)
messages = Console(stderr=True, emoji=False)


# Resampled sets of pictures for the intervals on the page, unless --bootstrap says otherwise.
USUAL_RESAMPLES = 1000


class Protocol(str, Enum):
    """The rules of a benchmark."""

    ilsvrc = "ilsvrc"
    voc07 = "voc07"
    voc12 = "voc12"
    coco = "coco"


class Mean(str, Enum):
    """The names of `result.MEANS`, repeated so that `--help` needs no slow imports."""

    present = "present"
    official = "official"


@app.command(
    cls=Command,
    epilog="""\
# Detect in annotated pictures, and measure the detections
detect test-data/ --recursive --out found/
detect-evaluate found/detections.json --root test-data/
# Measure a submission file; write tables, curves and mistakes to a page
detect-evaluate predictions.txt --root ILSVRC/ --html report.html

Exit code 0: evaluated; 1: a file cannot be used, the message says which and
why; 2: wrong usage""",
)
def detect_evaluate(
    predictions: Annotated[
        Path,
        typer.Argument(
            rich_help_panel=INPUT,
            metavar="PREDICTIONS",
            help="ILSVRC submission file, detections.json of detect, or COCO results (.json).",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="DATASET",
            help="Ground truth: data set in the ILSVRC, VOC, COCO, YOLO, Roboflow, CVAT, labelme or Label Studio "
            "layout.",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=INPUT, metavar="NAME", help="Split of --root; val by default, if the layout has splits."
        ),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="PATH",
            help="Ground truth, instead of --root: folder of XML files, or COCO file (.json).",
        ),
    ] = None,
    image_list: Annotated[
        Path | None,
        typer.Option(
            "--list",
            rich_help_panel=INPUT,
            metavar="FILE",
            help="List of pictures for a folder of XML files: lines 'image_id index'.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=INPUT, metavar="FOLDER", help="Folder of the pictures of --annotations, for --html."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="FILE",
            help="File with your own class names, one on each line. By default, the classes of the layout.",
        ),
    ] = None,
    protocol: Annotated[Protocol, typer.Option(rich_help_panel=RUN, help="Rules to evaluate by.")] = Protocol.ilsvrc,
    blacklist: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=INPUT,
            metavar="FILE",
            help="Classes to ignore in some pictures: a file with lines 'image_index wnid'. Only for ilsvrc.",
        ),
    ] = None,
    mean: Annotated[
        Mean,
        typer.Option(
            rich_help_panel=RUN,
            help="Classes in mAP: present: those that have ground truth; official: all, as in the official ILSVRC kit.",
        ),
    ] = Mean.present,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient", rich_help_panel=RUN, help="Skip and count malformed lines and detections in unlisted pictures."
        ),
    ] = False,
    only_predicted: Annotated[
        bool,
        typer.Option(
            "--only-predicted",
            rich_help_panel=INPUT,
            help="Measure only the pictures that the detector has looked at: those in detections.json, or those with "
            "detections in other files.",
        ),
    ] = False,
    resamples: Annotated[
        int | None,
        typer.Option(
            "--bootstrap",
            rich_help_panel=RUN,
            min=1,
            metavar="N",
            help="Add 95 % intervals of AP to the table, --json and --html, from N resampled sets of pictures. By "
            f"default {USUAL_RESAMPLES} with --html, else none. Not for coco.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[
        Path | None, typer.Option(rich_help_panel=OUTPUT, metavar="FILE", help="Write all numbers to this file.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(rich_help_panel=OUTPUT, metavar="FOLDER", help="Write PNG plots to this folder.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            metavar="FILE",
            help="Write an HTML page with tables, intervals, curves, mistakes and finds.",
        ),
    ] = None,
) -> None:
    """Measure detections: mAP, precision and recall of each class, and what to improve.

    The ground truth is --root with --split, or --annotations with --list.
    """
    if (root is None) == (annotations is None):
        raise typer.BadParameter("expected the ground truth: either --root or --annotations", param_hint="--root")
    if blacklist is not None and protocol is not Protocol.ilsvrc:
        raise typer.BadParameter("a blacklist needs --protocol ilsvrc", param_hint="--blacklist")
    if root is not None and (image_list is not None or images is not None):
        raise typer.BadParameter("--list and --images need --annotations", param_hint="--root")
    if resamples and mean is Mean.official:
        raise typer.BadParameter("intervals need --mean present", param_hint="--bootstrap")
    if resamples and protocol is Protocol.coco:
        raise typer.BadParameter("the coco protocol has no intervals", param_hint="--bootstrap")
    if resamples is None:
        has_intervals = mean is Mean.present and protocol is not Protocol.coco
        resamples = USUAL_RESAMPLES if html is not None and has_intervals else 0
    inputs = (predictions, root, annotations, image_list, classes, blacklist)
    check_file(json, "--json", inputs)
    check_file(html, "--html", inputs)
    check_folder(plots, "--plots")
    try:
        with working(messages, "evaluating"):
            truth = _ground_truth(root, split, annotations, image_list, images, classes)
            evaluation, analysis, warning = _evaluate(predictions, truth, protocol, blacklist, lenient, only_predicted)
            intervals = _intervals(evaluation, resamples)
        for notice in evaluation.notices:
            kind = "warning" if notice == warning else "note"
            messages.print(f"[yellow]{kind}:[/yellow] {escape(notice)}", soft_wrap=True)
        _print_classes(evaluation, mean.value, intervals)
        if warning:  # again, because the table may be long
            messages.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)
        _print_means(evaluation, mean.value, intervals)
        _print_errors(analysis)
        with working(messages, "writing"):
            _write(evaluation, analysis, mean.value, intervals, json, plots, html)
    except (ValueError, OSError) as error:
        messages.print(f"[red]error:[/red] {escape(message_of(error))}", soft_wrap=True)
        raise typer.Exit(1) from error


def _ground_truth(
    root: Path | None,
    split: str | None,
    annotations: Path | None,
    image_list: Path | None,
    images: Path | None,
    classes: Path | None,
) -> Any:
    from ..data.annotation_cache import default_cache
    from ..data.categories import read_categories
    from ..data.coco import read_instances
    from ..data.ground_truth import read_ground_truth
    from ..data.ilsvrc import listed_pictures
    from ..data.layouts import open_ground_truth

    categories = None if classes is None else read_categories(classes)
    if root is not None:
        return open_ground_truth(root, split, categories, default_cache())
    assert annotations is not None
    if os.path.isfile(annotations):
        if image_list is not None or classes is not None:
            raise typer.BadParameter(
                "--list and --classes do not go with a COCO annotation file",
                param_hint="--annotations",
            )
        return read_instances(annotations, images)
    if image_list is None:
        raise typer.BadParameter("a folder of XML files needs a list of pictures", param_hint="--list")
    paths = {}
    if images is not None:
        paths = {index: path for _, index, path in listed_pictures(image_list, images, [annotations])}
    return read_ground_truth(annotations, image_list, categories, paths, default_cache())


def _evaluate(
    predictions: Path, truth: Any, protocol: Protocol, blacklist: Path | None, lenient: bool, only_predicted: bool
) -> tuple[Any, Any, str | None]:
    """Returns the evaluation, its error analysis, and the notice that most pictures are missing, if they are."""
    from dataclasses import replace

    from ..data.ground_truth import read_blacklist
    from ..data.predictions import missing_pictures, predicted_pictures, read_predictions
    from ..detection.evaluation.coco import evaluate_coco
    from ..detection.evaluation.error_analysis import analyse
    from ..detection.evaluation.ilsvrc import evaluate
    from ..detection.evaluation.voc import evaluate_voc

    detections, notices = read_predictions(predictions, truth, lenient)
    warning = None
    if only_predicted:
        count = len(truth.image_indices)
        truth = truth.of_pictures(predicted_pictures(detections))
        notices.append(f"measured in {len(truth.image_indices)} of {count} pictures, those in the predictions")
    elif (missing := missing_pictures(detections, truth)) is not None:
        notices.append(missing[0])
        warning = missing[0] if missing[1] else None
    if protocol is Protocol.ilsvrc:
        pairs = read_blacklist(blacklist, truth.categories) if blacklist is not None else []
        if only_predicted:
            measured = set(truth.image_indices.tolist())
            pairs = [pair for pair in pairs if pair[0] in measured]
        evaluation = evaluate(truth, detections, pairs, lenient)
    elif protocol is Protocol.coco:
        evaluation = evaluate_coco(truth, detections, lenient)
    else:
        evaluation = evaluate_voc(truth, detections, 2007 if protocol is Protocol.voc07 else 2012, lenient)
    evaluation = replace(evaluation, notices=(*notices, *evaluation.notices))
    return evaluation, analyse(evaluation), warning


def _intervals(evaluation: Any, resamples: int | None) -> Any:
    from ..detection.evaluation.bootstrap import bootstrap

    return bootstrap(evaluation, resamples) if resamples else None


def _print_classes(evaluation: Any, mean: Any, intervals: Any) -> None:
    from ..detection.evaluation.bootstrap import interval
    from ..detection.evaluation.report import PROTOCOLS
    from ..detection.evaluation.result import MEANS

    truth = evaluation.ground_truth
    title = f"{escape(truth.name)}: {len(truth.image_indices):,} pictures, {int(evaluation.counted.sum()):,} objects"
    table = Table("class", title=title, caption=f"{PROTOCOLS[evaluation.protocol]}; {MEANS[mean]}")
    iou_measures = [name for name in evaluation.measures if name in ("AP50", "AP75")]
    interval_column = () if intervals is None else ("95 % interval",)
    for column in ("AP", *interval_column, *iou_measures, "objects", "detections", "found", "best F1", "at score"):
        table.add_column(column, justify="right")
    listed = [result for result in evaluation.classes if result.positives or mean == "official"]
    listed.sort(key=lambda result: (1 if math.isnan(result.ap) else -result.ap, result.category.name))
    for result in listed:
        found = int(result.curve.true_positives[-1]) if len(result.curve.true_positives) else 0
        point = (f"{result.best_f1.f1:.3f}", f"{result.best_f1.score:.3f}") if result.best_f1 else ("-", "-")
        aps = [f"{value:.4f}" for value in (result.ap, *(result.measures[name] for name in iou_measures))]
        if intervals is not None:
            aps.insert(1, _span(*interval(intervals.of(result.category.id))) if result.positives else "-")
        counts = (str(result.positives), str(result.detections), str(found))
        table.add_row(escape(result.category.name), *aps, *counts, *point)
    console.print(table)


def _print_means(evaluation: Any, mean: Any, intervals: Any) -> None:
    from ..detection.evaluation.bootstrap import interval
    from ..detection.evaluation.result import MEANS

    for name, value in evaluation.measures.items():
        console.print(f"{name:>10} {value:.4f}")
    console.print(f"[bold]mAP {evaluation.mean_ap(mean):.17g}[/bold] ({MEANS[mean]})", highlight=False, soft_wrap=True)
    if intervals is not None:
        span = _span(*interval(intervals.mean))
        console.print(
            f"95 % interval {span} of the mean over the classes in each resampled set", highlight=False, soft_wrap=True
        )


def _span(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"


def _print_errors(analysis: Any) -> None:
    from ..detection.evaluation.error_analysis import ERRORS

    table = Table(
        "mistake",
        title=f"What to improve: gain from correcting each kind (mAP now {analysis.mean_ap:.4f})",
    )
    table.add_column("count", justify="right")
    table.add_column("gain in mAP", justify="right")
    table.add_column("meaning")
    for kind, meaning in ERRORS.items():
        table.add_row(kind, f"{analysis.counts[kind]:,}", f"{analysis.gains[kind]:+.4f}", meaning)
    console.print(table)


def _write(
    evaluation: Any,
    analysis: Any,
    mean: Any,
    intervals: Any,
    json: Path | None,
    plots: Path | None,
    html: Path | None,
) -> None:
    from ..detection.evaluation.plots import write_plots
    from ..detection.evaluation.report import write_html, write_json

    if json is not None:
        write_json(json, evaluation, analysis, mean, intervals)
    if plots is not None:
        write_plots(plots, evaluation, analysis, mean)
    if html is not None:
        write_html(html, evaluation, analysis, mean, intervals)
    for path in (json, plots, html):
        if path is not None:
            messages.print(f"written: {escape(str(path))}", soft_wrap=True)


def main() -> None:
    """Runs the command `detect-evaluate`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
