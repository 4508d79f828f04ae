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
from enum import Enum
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
from ..runtime.remote import is_url
from .error_messages import message_of
from .outputs import check_folder
from .progress import progress_bar

if TYPE_CHECKING:
    from ..data.categories import Category
    from ..data.parquet import ParquetWriter
    from ..detection.detector import FileResult
    from ..detection.run_state import Result, RunState

# Smallest score of a detection that is written to files, and of a detection that is drawn and counted on the terminal.
# --score-threshold replaces both.
KEPT_SCORE = 0.01
SHOWN_SCORE = 0.5

# Longest name of a drawing in bytes, without suffix. File systems allow 255, and a suffix and a number are added.
_LONGEST_NAME = 200

# Errors of a disk that has room for nothing: the run stops. It goes on after other errors that concern a drawing.
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class Switch(str, Enum):
    """The value of an option that is on or off."""

    on = "on"
    off = "off"


def demo_images() -> list[Path]:
    """Five photographs that are installed with scikit-image."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [
        folder / name for name in ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
    ]


@app.command(
    epilog="Examples: [bold]detect photos/ --recursive --out found/[/bold]   "
    "[bold]detect s3://bucket/photos/ --ray 10.0.0.1:6379[/bold]   "
    "(exit code 0: all pictures were read; 3: some could not be read, see found/detections.json; 2: wrong usage; "
    "1: the run stopped, continue it with --resume)"
)
def detect(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Pictures, folders, patterns ('*.jpg') or URLs of these (s3://...), or ILSVRC image lists (.txt).",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for detections.json and pictures/.")] = Path("detections"),
    demo: Annotated[
        bool, typer.Option("--demo", help="Detect in five photographs that are installed with scikit-image.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Search sub-folders too.")] = False,
    model: Annotated[str, typer.Option(help="Model folder, or the name of a shipped model.")] = "default",
    describe: Annotated[
        bool, typer.Option("--describe", help="Describe --model and the AP of its classes, then exit.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="Engine that runs the networks: openvino, openvino-int8, torch-compiled or torch. auto is openvino on "
            "a CPU and torch-compiled on a GPU; both give probabilities within 0.03 of float32."
        ),
    ] = "auto",
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Smallest score of detections that are written and drawn. "
            f"By default, detections from {KEPT_SCORE} are written and detections from {SHOWN_SCORE} are drawn.",
        ),
    ] = None,
    max_detections: Annotated[int, typer.Option(min=1, help="Largest number of detections in a picture.")] = 100,
    proposals_file: Annotated[
        Path | None, typer.Option(help="Use the boxes in this file, written by detect-propose, as regions.")
    ] = None,
    box_regression: Annotated[bool, typer.Option(help="Apply the model's box regression, if the model has it.")] = True,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the ranking of proposals.")] = 0,
    max_pixels: Annotated[int, typer.Option(min=1, help="Refuse pictures with more pixels.")] = MAX_PIXELS,
    pictures: Annotated[bool, typer.Option(help="Write pictures with the detections drawn in.")] = True,
    members: Annotated[
        int | None,
        typer.Option(min=1, help="Use the first N networks of the ensemble; all by default.", show_default=False),
    ] = None,
    cascade: Annotated[
        Switch, typer.Option(help="Let the first network decide which regions the other networks score.")
    ] = Switch.on,
    screen: Annotated[
        Switch,
        typer.Option(
            help="Let the screen, if the model has a screen, choose the regions that the networks score. off: the "
            "networks score every region, as in the paper."
        ),
    ] = Switch.on,
    regions: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Let the screen keep the N best regions of each picture; by default, those above its threshold.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in OUT, with the same options; start it if there is none.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="Detect on the Ray cluster at this address (10.0.0.1:6379; auto: the cluster on this machine; local: "
            "start a cluster on this machine). Writes OUT/detections.parquet too and draws no pictures.",
        ),
    ] = None,
) -> None:
    """Find objects in pictures: boxes with class names and scores.

    Writes OUT/detections.json, a COCO dataset with scores, and copies of the pictures with the detections drawn in to
    OUT/pictures/. The result of each picture is stored in OUT/run.sqlite as soon as it is known. --resume continues a
    run that was interrupted.
    """
    if describe:
        _describe(model)
        return
    if demo == bool(inputs):
        raise typer.BadParameter("give pictures, folders or lists to detect in, or --demo", param_hint="INPUT")
    try:
        paths: Sequence[Path | str] = demo_images() if demo else find_images_and_urls(inputs or [], recursive)
    except (ListingError, OSError) as error:
        raise typer.BadParameter(message_of(error), param_hint="INPUT") from error
    check_folder(out, "--out")
    if pictures and not ray:
        check_folder(out / "pictures", "--out")
    kept_score = KEPT_SCORE if score_threshold is None else score_threshold
    shown_score = SHOWN_SCORE if score_threshold is None else score_threshold

    with console.status("loading the model ..."):
        from ..detection.cluster import Cluster, ClusterError
        from ..detection.detector import Detector
        from ..detection.engines.engine import EngineError
        from ..detection.gallery import write_gallery
        from ..detection.model_files import load_model, model_digest
        from ..detection.networks.weights import ModelError
        from ..detection.run_state import RunState, RunStateError
        from ..proposals.files import ProposalFileError, read_proposals

        try:
            proposals = read_proposals(proposals_file) if proposals_file else None
            loaded = load_model(model)
            networks = len(loaded.first_members(members))
            options: dict[str, Any] = {
                "score_threshold": kept_score,
                "max_detections": max_detections,
                "seed": seed,
                "members": members,
                "cascade": cascade is Switch.on,
                "box_regression": box_regression,
                "screen": screen is Switch.on,
                "max_regions": regions,
                "engine": engine,
            }
            cluster = detector = None
            if ray:
                cluster = context.with_resource(Cluster(ray, device))
                where, why, pictures = str(cluster.workers), "", False
            else:
                detector = Detector(loaded, device=device, **options)
                where, why = detector.ensemble.description, f" ({detector.ensemble.reason})"
            # run.sqlite stores these names and values, and --resume compares them. If a later version changes a name
            # or the meaning of a value, runs of older versions cannot be resumed.
            settings: dict[str, object] = {
                "the version of inception-rcnn": version("inception-rcnn"),
                "the model's digest": model_digest(model)[:12],
                "the networks": networks,
                "their engine": f"Ray's, --device {device} --engine {engine}" if cluster else where,
                "--cascade": cascade.value,
                "box regression": "on" if box_regression else "off",
                "--score-threshold": kept_score,
                "the score that is drawn": shown_score if pictures else "none",
                "--max-detections": max_detections,
                "--max-pixels": max_pixels,
                "--seed": seed,
                "the digest of --proposals-file": _file_digest(proposals_file) if proposals_file else "no file",
            }
            if loaded.screen is not None:  # runs of models without a screen have no such settings
                settings["--screen"] = screen.value
                settings["--regions"] = "those above the threshold" if regions is None else regions
            class_ids = [category.id for category in loaded.categories]
            state = RunState(out / "run.sqlite", settings, paths, resume=resume, class_ids=class_ids)
        except (ModelError, EngineError, ClusterError, ProposalFileError, RunStateError, OSError, ValueError) as error:
            raise typer.BadParameter(message_of(error)) from error
    names = {category.id: category.name for category in loaded.categories}
    with state:
        left = state.left()
        console.print(
            f"{len(paths)} pictures, {networks} network(s) on {where}{why}"
            + (f"; {len(paths) - len(left)} pictures are already done" if resume else "")
            + ("; the run is complete" if state.finished else "")
        )
        if cluster:
            to_do = [(picture, paths[picture]) for picture in left]
            results = cluster.detect(to_do, loaded, max_pixels=max_pixels, proposals_file=proposals_file, **options)
        else:
            assert detector
            files = detector.detect_files([paths[picture] for picture in left], max_pixels, proposals)
            results = _draw_results(paths, left, files, names, shown_score, out / "pictures" if pictures else None)
        try:
            _store_results(paths, results, len(left), state)
            found, failed = _write_detections(paths, state, loaded.categories, shown_score, out, parquet=bool(ray))
            if not ray:
                with progress_bar(console, "pictures") as progress:
                    task = progress.add_task("writing index.html", total=len(paths))
                    write_gallery(
                        out / "index.html",
                        paths,
                        state.results(),
                        loaded.categories,
                        shown_score,
                        loaded.subclasses,
                        lambda: progress.advance(task),
                    )
            state.finish()
        except (OSError, sqlite3.Error, ClusterError, EngineError, RunStateError, KeyboardInterrupt) as error:
            console.print(
                f"[red]stopped:[/red] {escape(message_of(error) or 'interrupted')}\n"
                f"the results of {len(paths) - len(state.left())} of {len(paths)} pictures are stored in "
                f"{escape(str(state.file))}; continue with the same command and --resume"
            )
            raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else 1) from error
    _print_summary(Counter({names[label]: count for label, count in found.items()}), shown_score, len(paths) - failed)
    console.print(f"written: {escape(str(out / 'detections.json'))}")
    if failed:
        console.print(
            f'[yellow]{failed} of {len(paths)} pictures could not be read[/yellow]: see "failures" in detections.json'
        )
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


def _store_results(
    paths: Sequence[Path | str], results: "Generator[Result, None, None]", count: int, state: "RunState"
) -> None:
    """Store `count` results in `state` as they come, with a progress bar and a warning for each unreadable picture."""
    with progress_bar(console, "images") as progress, closing(results):
        task = progress.add_task("detecting", total=count)
        for result in results:
            if result.failure:
                name = escape(str(paths[result.picture]))
                progress.console.print(f"[yellow]warning:[/yellow] {name} is left out: {escape(result.failure)}")
            state.add(result)
            progress.advance(task)


def _write_detections(
    paths: Sequence[Path | str],
    state: "RunState",
    categories: "Sequence[Category]",
    shown_score: float,
    out: Path,
    *,
    parquet: bool,
) -> tuple[Counter[int], int]:
    """Write the results in `state` to detections.json and, if asked for, to detections.parquet.

    Returns:
        The number of detections of each label with a score of at least `shown_score`, and the number of pictures that
        could not be read.
    """
    from ..data.coco import DetectionsWriter

    found: Counter[int] = Counter()
    failed = 0
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
                failed += 1
                for writer in writers:
                    writer.fail(name, result.failure or "not read")
                continue
            boxes, scores, labels = result.detections.boxes, result.detections.scores, result.detections.labels
            for writer in writers:
                writer.add(name, result.width, result.height, boxes, scores, labels)
            found.update(result.detections.above(shown_score).labels.tolist())
    return found, failed


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
    app()


if __name__ == "__main__":
    main()
