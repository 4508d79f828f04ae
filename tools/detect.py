"""`detect`: find objects in pictures, write the detections to a file and draw them into copies of the pictures.

detect photos/ --out found/
"""

import hashlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.categories import read_class_names
from ..data.images import MAX_PIXELS
from ..data.listing import ListingError, find_images_and_urls, picture_numbers
from ..runtime.interruption import end_on_signals, say_when_interrupted
from .drawings import Drawings
from .error_messages import message_of, print_failures
from .help import INPUT, MODEL, OUTPUT, RUN, Command
from .options import Device, EngineName, MaxPixels, ModelName, Recursive, Seed, Switch
from .outputs import check_folder
from .progress import StageProgress, working
from .result_files import ResultFiles, parse_also, users_pictures

if TYPE_CHECKING:
    from ..detection.detector import FileResult
    from ..detection.model_json import Description
    from ..detection.run_state import Existing, Result, RunState

# Smallest score of a detection that is written to files, and of a detection that is drawn and counted on the terminal.
KEPT_SCORE = 0.001
SHOWN_SCORE = 0.3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


def demo_images() -> list[Path]:
    """Five photographs that are installed with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [
        folder / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
    ]


@app.command(
    cls=Command,
    epilog="""\
# Try it on five photographs that are installed with the program
detect --demo --out demo/
# All pictures in a folder and its sub-folders
detect photos/ --recursive --out found/
# Boxes of lions and zebras to correct in a labelling program
detect photos/ --classes "lion, zebra" --also voc,csv
# Continue a run that was stopped
detect photos/ --recursive --out found/ --resume
# Describe the classes that a model finds
detect --describe --model default

Exit code 0: all pictures were read; 3: some could not be read, the last
lines say which; 2: wrong usage; 1: the run stopped, --resume continues it;
130, 143: stopped by Ctrl-C, by SIGTERM""",
)
def detect(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Pictures, folders, patterns ('*.jpg') or URLs of these (s3://...), or ILSVRC image lists (.txt).",
            rich_help_panel=INPUT,
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="Detect in five photographs that are installed with scikit-image.",
            rich_help_panel=INPUT,
        ),
    ] = False,
    recursive: Recursive = False,
    proposals_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use the boxes in this file, written by detect-propose, as regions.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    max_pixels: MaxPixels = MAX_PIXELS,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder for index.html, detections.json and pictures/.", rich_help_panel=OUTPUT
        ),
    ] = Path("detections"),
    pictures: Annotated[
        bool,
        typer.Option(" /--no-pictures", help="Draw no detections into copies of the pictures.", rich_help_panel=OUTPUT),
    ] = True,
    min_score: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="0..1", help="Smallest score of detections that are written.", rich_help_panel=OUTPUT
        ),
    ] = KEPT_SCORE,
    draw_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0..1",
            help="Smallest score of detections that are drawn, counted, and written to the VOC and YOLO layouts; "
            f"{SHOWN_SCORE} by default.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    score_threshold: Annotated[  # the old name of both
        float | None, typer.Option(min=0, max=1, hidden=True)
    ] = None,
    also: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT,...",
            help="Further files: csv (detections.csv), voc and yolo (folders with the pictures, to correct in a "
            "labelling program or to train on), ilsvrc (submission.txt).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    finest_names: Annotated[
        bool,
        typer.Option(
            "--finest-names",
            help="Draw the finest names that the model knows: 'dog: Samoyed' in place of 'dog'.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    max_detections: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Largest number of detections in a picture.", rich_help_panel=OUTPUT),
    ] = 100,
    model: ModelName = "default",
    describe: Annotated[
        bool,
        typer.Option(
            "--describe", help="Describe --model and the AP of its classes, then exit.", rich_help_panel=MODEL
        ),
    ] = False,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES|FILE",
            help="Report only these classes of the model: names or WNIDs ('lion, zebra, hammer'), or a file with a "
            "name on each line. imagenet: report the finest names that the model knows in place of its classes.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    members: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Use the first N networks of the ensemble; all by default.", rich_help_panel=MODEL
        ),
    ] = None,
    cascade: Annotated[
        Switch,
        typer.Option(
            help="on: in a model with a cascade, the first network decides which regions the other networks score. "
            "off: all networks score every region.",
            rich_help_panel=MODEL,
        ),
    ] = Switch.on,
    screen: Annotated[
        Switch,
        typer.Option(
            help="on: the screen, if the model has a screen, chooses the regions that the networks score. off: the "
            "networks score every region, as in the paper.",
            rich_help_panel=MODEL,
        ),
    ] = Switch.on,
    regions: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Let the screen keep the N best regions of each picture; by default, those above its threshold.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    box_regression: Annotated[
        bool,
        typer.Option(
            " /--no-box-regression",
            help="Leave the boxes where the regions are. Otherwise the model's box regression, if the model has it, "
            "moves them.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    engine: Annotated[
        EngineName,
        typer.Option(
            help="Engine that runs the networks. auto is torch-compiled on a GPU. On a CPU with AVX2 it is "
            "openvino-int8, if the model stores the ranges that it needs, else openvino.",
            rich_help_panel=RUN,
        ),
    ] = EngineName.auto,
    device: Device = "auto",
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
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Detect on the Ray cluster at this address (10.0.0.1:6379; auto: the cluster on this machine; local: "
            "start a cluster on this machine). Writes OUT/detections.parquet too, but no drawings and no index.html.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Find objects in pictures: boxes with class names and scores.

    Writes OUT/index.html, a gallery to open in a browser; OUT/detections.json, a COCO dataset with scores; and to
    OUT/pictures/ copies of the pictures with the detections drawn in. The result of each picture is stored in
    OUT/run.sqlite as soon as it is known, so that a run that was stopped can be continued.
    """
    if describe:
        _describe(model)
        return
    if demo == bool(inputs):
        raise typer.BadParameter("give pictures, folders or lists to detect in, or --demo", param_hint="INPUT")
    if resume and overwrite:
        raise typer.BadParameter("expected either --resume or --overwrite", param_hint="--resume")
    try:
        paths: Sequence[Path | str] = demo_images() if demo else find_images_and_urls(inputs or [], recursive)
    except (ListingError, OSError) as error:
        raise typer.BadParameter(message_of(error), param_hint="INPUT") from error
    formats = parse_also(also)
    check_folder(out, "--out")
    folders = [one.value for one in formats]  # that get pictures
    if not ray:
        folders.append("gallery_thumbnails")
    if pictures and not ray:
        check_folder(out / "pictures", "--out")
        folders.append("pictures")
    paths = users_pictures(paths, inputs or [], out, folders)
    if not ray and (out / "index.html").exists() and not (out / "run.sqlite").exists():
        raise typer.BadParameter(
            f"{out} holds an index.html that no run of detect wrote; choose another folder", param_hint="--out"
        )
    if score_threshold is not None:
        min_score = draw_score = score_threshold
    shown_score = max(SHOWN_SCORE, min_score) if draw_score is None else draw_score
    if shown_score < min_score:
        raise typer.BadParameter(
            f"expected at least {min_score}, because detections below --min-score are not written",
            param_hint="--draw-score",
        )
    options: dict[str, Any] = {
        "score_threshold": min_score,
        "max_detections": max_detections,
        "seed": seed,
        "members": members,
        "cascade": cascade is Switch.on,
        "box_regression": box_regression,
        "screen": screen is Switch.on,
        "max_regions": regions,
        "engine": engine.value,
    }

    # The run is compared with the run in --out before networks are loaded, which takes seconds.
    with working(console, "loading the program"):
        from ..detection.class_choice import choose_classes
        from ..detection.cluster import Cluster, ClusterError
        from ..detection.detector import Detector
        from ..detection.engines.choice import EngineError, choose
        from ..detection.gallery import write_gallery
        from ..detection.model_files import find_model, load_model, model_digest
        from ..detection.model_json import read_description
        from ..detection.networks.weights import ModelError
        from ..detection.run_state import RunState, RunStateError
        from ..proposals.files import ProposalFileError, read_proposals
    try:
        described = read_description(find_model(model) / "model.json")
        networks = _number_of_networks(described, members)
        _check_screen(described, screen is Switch.on, regions)
        options["classes"] = names_of_classes = read_class_names(classes) if classes else None
        choice = choose_classes(described.categories, described.subclasses, names_of_classes)
        chosen = None if ray else choose(engine.value, device, ranges=described.input_ranges[:networks])
        proposals = read_proposals(proposals_file) if proposals_file else None
        # run.sqlite stores these names and values, and later runs compare them. If a later version changes a name or
        # the meaning of a value, runs of older versions cannot be resumed.
        settings: dict[str, object] = {
            "the version of inception-rcnn": version("inception-rcnn"),
            "the model's digest": model_digest(model)[:12],
            "the networks": networks,
            "their engine": chosen.description if chosen else f"Ray's, --device {device} --engine {engine.value}",
            "--cascade": cascade.value,
            "box regression": "on" if box_regression else "off",
            "--min-score": min_score,
            "--max-detections": max_detections,
            "--max-pixels": max_pixels,
            "--seed": seed,
            "the digest of --proposals-file": _file_digest(proposals_file) if proposals_file else "no file",
        }
        if described.screen is not None:  # runs of models without a screen have no such settings
            settings["--screen"] = screen.value
            settings["--regions"] = "those above the threshold" if regions is None else regions
        if names_of_classes:
            settings["--classes"] = ", ".join(names_of_classes)
        existing: Existing = "overwrite" if overwrite else "resume" if resume else "refuse"
        state = RunState(
            out / "run.sqlite",
            settings,
            paths,
            existing=existing,
            categories=choice.categories,
            finest=choice.subclasses,
        )
    except (ModelError, EngineError, ProposalFileError, RunStateError, OSError, ValueError) as error:
        raise typer.BadParameter(message_of(error)) from error
    context.with_resource(state)
    say_when_interrupted(lambda: _kept(state, len(paths)))
    files = ResultFiles(out, formats, parquet=bool(ray), gallery=not ray, shown_score=shown_score, keep=not overwrite)
    drawings = None
    if pictures and not ray:
        drawings = Drawings(
            out / "pictures",
            paths,
            least_score=shown_score,
            finest_names=finest_names,
            warn=_print_warning,
            on_written=state.wrote,
        )
    if state.finished and files.are_written(state) and not (drawings and drawings.missing(state.results())):
        failures = [result for result in state.results() if result.failure]
        console.print(
            f"the run in {escape(str(out))} is complete: {len(paths)} pictures with these settings; --overwrite starts "
            "it again",
            soft_wrap=True,
        )
        _print_outputs(paths, failures, files, drawings)
        return
    left = state.left()
    if left:
        try:
            with working(console, "loading the model"):
                loaded = load_model(model)
                cluster = detector = None
                if ray:
                    cluster = context.with_resource(Cluster(ray, device))
                    where, why = str(cluster.workers), ""
                else:
                    detector = Detector(loaded, device=device, **options)
                    where, why = detector.ensemble.description, f" ({detector.ensemble.reason})"
        except (ModelError, EngineError, ClusterError, OSError, ValueError) as error:
            raise typer.BadParameter(message_of(error)) from error
        console.print(f"{len(paths)} pictures, {networks} network(s) on {where}{why}", soft_wrap=True)
    if state.done:
        console.print(f"{state.done} of {len(paths)} pictures are already done")
    try:
        if left:
            if cluster:
                to_do = [(picture, paths[picture]) for picture in left]
                results = cluster.detect(to_do, loaded, max_pixels=max_pixels, proposals_file=proposals_file, **options)
            else:
                assert detector
                found_in = detector.detect_files(
                    [paths[picture] for picture in left], max_pixels, proposals, keep_image=drawings is not None
                )
                results = _draw_results(left, found_in, drawings)
            _store_results(paths, results, state)
        with working(console, "writing the results"):
            if drawings:
                drawings.complete(state.results())
            numbers = picture_numbers(inputs or [], paths)
            found, failures, notices = files.write(paths, numbers, state, choice.categories, choice.subclasses)
        if not ray:
            with StageProgress(console, "images") as progress:
                counter = itertools.count(1)
                write_gallery(
                    out / "index.html",
                    paths,
                    state.results(),
                    choice.categories,
                    shown_score,
                    choice.subclasses,
                    lambda: progress.report("gallery", next(counter), len(paths), {}),
                    state.wrote,
                )
        state.finish(files.outputs())
    except (OSError, sqlite3.Error, ClusterError, EngineError, RunStateError) as error:
        console.print(
            f"[red]stopped:[/red] {escape(message_of(error))}\n{escape(_kept(state, len(paths)))}", soft_wrap=True
        )
        raise typer.Exit(1) from error
    read = len(paths) - len(failures)
    names = {category.id: category.name for category in choice.categories}
    _print_summary(Counter({names[label]: count for label, count in found.items()}), shown_score, read)
    for notice in notices:
        console.print(notice, markup=False, highlight=False, soft_wrap=True)
    _print_outputs(paths, failures, files, drawings)


def _number_of_networks(described: "Description", members: int | None) -> int:
    if members is not None and members > described.members:
        raise typer.BadParameter(
            f"expected at most {described.members}, the networks of the model, got {members}", param_hint="--members"
        )
    return members or described.members


def _check_screen(described: "Description", screen: bool, regions: int | None) -> None:
    if regions is not None and (described.screen is None or not screen):
        missing = "--screen off disables it" if described.screen is not None else "this model has none"
        raise typer.BadParameter(f"needs the screen, which chooses the regions, but {missing}", param_hint="--regions")


def _kept(state: "RunState", pictures: int) -> str:
    """What an interrupted run has kept, and how to go on."""
    return (
        f"the results of {state.done} of {pictures} pictures are kept in {state.file}; continue with the same command "
        "and --resume"
    )


def _print_outputs(
    paths: Sequence[Path | str], failures: "Sequence[Result]", files: ResultFiles, drawings: Drawings | None
) -> None:
    """Print the last lines: the pictures that could not be read, and what was written. Exits with 3 after failures."""
    for file in files.files():
        console.print(f"written: {escape(str(file))}", soft_wrap=True)
    if drawings:
        console.print(f"drawings: {escape(str(drawings.folder))}", soft_wrap=True)
    unread = [(paths[result.picture], result.failure or "not read") for result in failures]
    print_failures(console, unread, len(paths), files.out / "detections.json")
    if failures:
        raise typer.Exit(3)


def _describe(model: str) -> None:
    from ..detection.model_files import load_model
    from ..detection.networks.weights import ModelError
    from .model_description import describe

    try:
        describe(model, load_model(model), Console(emoji=False))
    except ModelError as error:
        raise typer.BadParameter(message_of(error), param_hint="--model") from error


def _print_warning(text: str) -> None:
    console.print(f"[yellow]warning:[/yellow] {escape(text)}", soft_wrap=True)


def _draw_results(
    left: list[int], files: "Generator[FileResult, None, None]", drawings: Drawings | None
) -> "Generator[Result, None, None]":
    """Yield the result of each picture after its drawing is written.

    Args:
        left: indices in the run of the pictures that `files` holds.
        files: the detector's results for these pictures.
        drawings: the drawings; None draws nothing.
    """
    from ..detection.run_state import Result

    with closing(files):
        for picture, result in zip(left, files, strict=True):
            if result.size is None or result.detections is None:
                yield Result(picture, 0, 0, None, result.error.reason if result.error else "not read")
                continue
            if drawings and result.image is not None:
                drawings.draw(picture, result.image, result.detections)
            width, height = result.size
            yield Result(picture, width, height, result.detections, None)


def _store_results(paths: Sequence[Path | str], results: "Generator[Result, None, None]", state: "RunState") -> None:
    """Store results in `state` as they come, with their progress and a warning for each unreadable picture."""
    with StageProgress(console, "images") as progress, closing(results):
        progress.report("detecting", state.done, len(paths), {})
        for result in results:
            if result.failure:
                progress.warn(f"{paths[result.picture]} is left out: {result.failure}")
            state.add(result)
            progress.report("detecting", state.done, len(paths), {})


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _print_summary(found: Counter[str], score: float, read: int) -> None:
    # A line of its own: the table is narrower, and would wrap it as a title.
    console.print(f"{sum(found.values()) or 'no'} objects with score >= {score} in {read} pictures")
    table = Table("class", "objects")
    for name, count in found.most_common():
        table.add_row(escape(name), str(count))
    if found:
        console.print(table)


def main() -> None:
    """The command `detect`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
