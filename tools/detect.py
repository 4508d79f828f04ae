"""`detect`: find objects in pictures, write the detections to a file and draw them into copies of the pictures.

detect photos/ --out found/
"""

import errno
import hashlib
import os
import sqlite3
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.images import MAX_PIXELS
from ..data.listing import ListingError, find_images_and_urls
from ..runtime.atomic_write import atomic_write
from ..runtime.interruption import end_on_signals, say_when_interrupted
from ..runtime.remote import is_url
from .error_messages import message_of
from .help import INPUT, MODEL, OUTPUT, RUN, Command
from .options import Device, EngineName, MaxPixels, ModelName, Recursive, Seed
from .outputs import check_folder
from .progress import StageProgress, working

if TYPE_CHECKING:
    from ..data.categories import Category
    from ..data.parquet import ParquetWriter
    from ..detection.detector import FileResult
    from ..detection.model_json import Description
    from ..detection.run_state import Existing, Result, RunState

# Smallest score of a detection that is written to files, and of a detection that is drawn and counted on the terminal.
# --score-threshold replaces both.
KEPT_SCORE = 0.01
SHOWN_SCORE = 0.5

# Longest name of a drawing in bytes, without suffix. File systems allow 255, and a suffix and a number are added.
_LONGEST_NAME = 200

# Number of unreadable pictures that the last lines name.
_NAMED = 20

# Errors of a disk that has room for nothing: the run stops. It goes on after other errors that concern a drawing.
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

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
detect --demo --out found/
# All pictures in a folder and its sub-folders
detect photos/ --recursive --out found/
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
        typer.Option(metavar="FOLDER", help="Folder for detections.json and pictures/.", rich_help_panel=OUTPUT),
    ] = Path("detections"),
    pictures: Annotated[
        bool,
        typer.Option(" /--no-pictures", help="Draw no detections into copies of the pictures.", rich_help_panel=OUTPUT),
    ] = True,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="0..1",
            help="Smallest score of detections that are written and drawn. "
            f"By default, detections from {KEPT_SCORE} are written and detections from {SHOWN_SCORE} are drawn.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
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
    members: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Use the first N networks of the ensemble; all by default.", rich_help_panel=MODEL
        ),
    ] = None,
    cascade: Annotated[
        bool,
        typer.Option(
            " /--no-cascade",
            help="Let all networks score every region. Otherwise the first network decides which regions the other "
            "networks score.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    screen: Annotated[
        bool,
        typer.Option(
            " /--no-screen",
            help="Let the networks score every region, as in the paper. Otherwise the screen, if the model has a "
            "screen, chooses the regions.",
            rich_help_panel=MODEL,
        ),
    ] = True,
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
            help="Engine that runs the networks. auto is openvino on a CPU and torch-compiled on a GPU; both give "
            "probabilities within 0.03 of float32.",
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
        bool, typer.Option("--overwrite", help="Replace the run in --out by a new run.", rich_help_panel=RUN)
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Detect on the Ray cluster at this address (10.0.0.1:6379; auto: the cluster on this machine; local: "
            "start a cluster on this machine). Writes OUT/detections.parquet too and draws no pictures.",
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Find objects in pictures: boxes with class names and scores.

    Writes OUT/detections.json, a COCO dataset with scores, and copies of the pictures with the detections drawn in to
    OUT/pictures/. The result of each picture is stored in OUT/run.sqlite as soon as it is known, so that a run that was
    stopped can be continued.
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
    check_folder(out, "--out")
    if pictures and not ray:
        check_folder(out / "pictures", "--out")
    kept_score = KEPT_SCORE if score_threshold is None else score_threshold
    shown_score = SHOWN_SCORE if score_threshold is None else score_threshold
    options: dict[str, Any] = {
        "score_threshold": kept_score,
        "max_detections": max_detections,
        "seed": seed,
        "members": members,
        "cascade": cascade,
        "box_regression": box_regression,
        "screen": screen,
        "max_regions": regions,
        "engine": engine.value,
    }

    # The run is compared with the run in --out before networks are loaded, which takes seconds.
    with working(console, "loading the program"):
        from ..detection.cluster import Cluster, ClusterError
        from ..detection.detector import Detector
        from ..detection.engines.choice import EngineError, choose
        from ..detection.model_files import find_model, load_model, model_digest
        from ..detection.model_json import read_description
        from ..detection.networks.weights import ModelError
        from ..detection.run_state import RunState, RunStateError
        from ..proposals.files import ProposalFileError, read_proposals
    try:
        described = read_description(find_model(model) / "model.json")
        networks = _number_of_networks(described, members)
        _check_screen(described, screen, regions)
        chosen = None if ray else choose(engine.value, device)
        proposals = read_proposals(proposals_file) if proposals_file else None
        # run.sqlite stores these names and values, and later runs compare them. If a later version changes a name or
        # the meaning of a value, runs of older versions cannot be resumed.
        settings: dict[str, object] = {
            "the version of inception-rcnn": version("inception-rcnn"),
            "the model's digest": model_digest(model)[:12],
            "the networks": networks,
            "their engine": chosen.description if chosen else f"Ray's, --device {device} --engine {engine.value}",
            "--cascade": "on" if cascade else "off",
            "box regression": "on" if box_regression else "off",
            "--score-threshold": kept_score,
            "the score that is drawn": shown_score if pictures and not ray else "none",
            "--max-detections": max_detections,
            "--max-pixels": max_pixels,
            "--seed": seed,
            "the digest of --proposals-file": _file_digest(proposals_file) if proposals_file else "no file",
        }
        if described.screen is not None:  # runs of models without a screen have no such settings
            settings["--screen"] = "on" if screen else "off"
            settings["--regions"] = "those above the threshold" if regions is None else regions
        class_ids = [category.id for category in described.categories]
        existing: Existing = "overwrite" if overwrite else "resume" if resume else "refuse"
        state = RunState(out / "run.sqlite", settings, paths, existing=existing, class_ids=class_ids)
    except (ModelError, EngineError, ProposalFileError, RunStateError, OSError, ValueError) as error:
        raise typer.BadParameter(message_of(error)) from error
    context.with_resource(state)
    say_when_interrupted(lambda: _kept(state, len(paths)))
    drawings = out / "pictures" if pictures and not ray else None
    if state.finished and all(file.exists() for file in _output_files(out, parquet=bool(ray))):
        failures = [result for result in state.results() if result.failure]
        console.print(
            f"the run in {escape(str(out))} is complete: {len(paths)} pictures with these settings; --overwrite starts "
            "it again",
            soft_wrap=True,
        )
        _print_outputs(paths, failures, out, drawings, parquet=bool(ray))
        return
    names = {category.id: category.name for category in described.categories}
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
                files = detector.detect_files([paths[picture] for picture in left], max_pixels, proposals)
                results = _draw_results(paths, left, files, names, shown_score, drawings)
            _store_results(paths, results, state)
        with working(console, "writing the results"):
            found, failures = _write_detections(paths, state, described.categories, shown_score, out, parquet=bool(ray))
            state.finish()
    except (OSError, sqlite3.Error, ClusterError, EngineError, RunStateError) as error:
        console.print(
            f"[red]stopped:[/red] {escape(message_of(error))}\n{escape(_kept(state, len(paths)))}", soft_wrap=True
        )
        raise typer.Exit(1) from error
    read = len(paths) - len(failures)
    _print_summary(Counter({names[label]: count for label, count in found.items()}), shown_score, read)
    _print_outputs(paths, failures, out, drawings, parquet=bool(ray))


def _number_of_networks(described: "Description", members: int | None) -> int:
    if members is not None and members > described.members:
        raise typer.BadParameter(
            f"expected at most {described.members}, the networks of the model, got {members}", param_hint="--members"
        )
    return members or described.members


def _check_screen(described: "Description", screen: bool, regions: int | None) -> None:
    if regions is not None and (described.screen is None or not screen):
        missing = "--no-screen switches it off" if described.screen is not None else "this model has none"
        raise typer.BadParameter(f"needs the screen, which chooses the regions, but {missing}", param_hint="--regions")


def _kept(state: "RunState", pictures: int) -> str:
    """What an interrupted run has kept, and how to go on."""
    return (
        f"the results of {state.done} of {pictures} pictures are kept in {state.file}; continue with the same command "
        "and --resume"
    )


def _output_files(out: Path, *, parquet: bool) -> list[Path]:
    """The files that a finished run has written, besides the drawings."""
    return [out / "detections.json", *([out / "detections.parquet"] if parquet else [])]


def _print_outputs(
    paths: Sequence[Path | str], failures: "Sequence[Result]", out: Path, drawings: Path | None, *, parquet: bool
) -> None:
    """Print the last lines: the pictures that could not be read, and what was written. Exits with 3 after failures."""
    for file in _output_files(out, parquet=parquet):
        console.print(f"written: {escape(str(file))}", soft_wrap=True)
    if drawings:
        console.print(f"drawings: {escape(str(drawings))}", soft_wrap=True)
    if failures:
        console.print(f"[yellow]{len(failures)} of {len(paths)} pictures could not be read:[/yellow]")
        for result in failures[:_NAMED]:
            line = f"  {paths[result.picture]}: {result.failure}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if len(failures) > _NAMED:
            more = f'  and {len(failures) - _NAMED} more: see "failures" in {out / "detections.json"}'
            console.print(more, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(3)


def _describe(model: str) -> None:
    from ..detection.model_files import load_model
    from ..detection.networks.weights import ModelError
    from .model_description import describe

    try:
        describe(model, load_model(model), Console(emoji=False))
    except ModelError as error:
        raise typer.BadParameter(message_of(error), param_hint="--model") from error


def _draw_results(
    paths: Sequence[Path | str],
    left: list[int],
    files: "Generator[FileResult, None, None]",
    names: dict[int, str],
    shown_score: float,
    drawings: Path | None,
) -> "Generator[Result, None, None]":
    """Yield the result of each picture after its drawing is written, so no stored result lacks a drawing.

    Args:
        paths: all pictures of the run.
        left: indices in `paths` of the pictures that `files` holds.
        files: the detector's results for these pictures.
        names: class names by label.
        shown_score: smallest score of detections that are drawn.
        drawings: folder for the drawings; None draws nothing.
    """
    from ..detection.drawing import draw_detections
    from ..detection.run_state import Result

    drawing_names = _distinct_names(paths) if drawings else {}
    with closing(files):
        for picture, result in zip(left, files, strict=True):
            if result.image is None or result.detections is None:
                yield Result(picture, 0, 0, None, result.error.reason if result.error else "not read")
                continue
            if drawings:
                shown = result.detections.above(shown_score)
                texts = [names[int(label)] for label in shown.labels]
                drawn = draw_detections(result.image, shown.boxes, texts, shown.scores)
                try:
                    _write_jpeg(drawings / f"{drawing_names[result.path]}.jpg", drawn)
                except (OSError, ValueError) as error:  # Pillow raises both for pictures that JPEG cannot hold
                    if isinstance(error, OSError) and error.errno in _FULL_DISK:
                        raise
                    console.print(
                        f"[yellow]warning:[/yellow] {escape(str(result.path))}: its drawing cannot be written: "
                        f"{escape(message_of(error))}",
                        soft_wrap=True,
                    )
            height, width = result.image.shape[:2]
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


def _write_detections(
    paths: Sequence[Path | str],
    state: "RunState",
    categories: "Sequence[Category]",
    shown_score: float,
    out: Path,
    *,
    parquet: bool,
) -> "tuple[Counter[int], list[Result]]":
    """Write the results in `state` to detections.json and, if asked for, to detections.parquet.

    Returns:
        The number of detections of each label with a score of at least `shown_score`, and the results of the pictures
        that could not be read.
    """
    from ..data.coco import DetectionsWriter

    found: Counter[int] = Counter()
    failures: list[Result] = []
    with ExitStack() as stack:
        writers: list[DetectionsWriter | ParquetWriter] = [
            stack.enter_context(DetectionsWriter(out / "detections.json", categories))
        ]
        if parquet:
            from ..data import parquet as parquet_files

            writers.append(stack.enter_context(parquet_files.ParquetWriter(out / "detections.parquet", categories)))
        for result in state.results():
            name = str(paths[result.picture])
            if result.detections is None:
                failures.append(result)
                for writer in writers:
                    writer.fail(name, result.failure or "not read")
                continue
            boxes, scores, labels = result.detections.boxes, result.detections.scores, result.detections.labels
            for writer in writers:
                writer.add(name, result.width, result.height, boxes, scores, labels)
            found.update(result.detections.above(shown_score).labels.tolist())
    return found, failures


def _file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _distinct_names(paths: Sequence[Path | str]) -> dict[Path | str, str]:
    """A distinct name for the drawing of each picture: its file name without suffix, numbered if the name is taken.

    The query of a URL is no part of the name. A long name is cut.
    """
    taken: set[str] = set()
    last_number: defaultdict[str, int] = defaultdict(lambda: 1)
    names = {}
    for path in paths:
        file_name = str(path).partition("?")[0].rpartition("/")[2] if is_url(path) else path
        stem = Path(file_name).stem or "picture"
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        name = stem
        while _same_file(name) in taken:
            last_number[stem] += 1
            name = f"{stem}-{last_number[stem]}"
        taken.add(_same_file(name))
        names[path] = name
    return names


def _same_file(name: str) -> str:
    """Equal for two names that are one file on some file system."""
    return unicodedata.normalize("NFC", name).casefold()


def _write_jpeg(file: Path, pixels: np.ndarray) -> None:
    with atomic_write(file) as partial:
        Image.fromarray(pixels).save(partial, format="JPEG", quality=90)


def _print_summary(found: Counter[str], score: float, read: int) -> None:
    table = Table("class", "objects", title=f"{sum(found.values())} objects with score >= {score} in {read} pictures")
    for name, count in found.most_common():
        table.add_row(escape(name), str(count))
    if found:
        console.print(table)
    else:
        console.print(f"no objects with score >= {score} in {read} pictures")


def main() -> None:
    """The command `detect`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
