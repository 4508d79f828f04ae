"""The files that `detect` writes when all pictures are done, from the results that are stored."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..data.output_names import distinct_names
from ..runtime.remote import is_url

if TYPE_CHECKING:
    from typing import Protocol

    from ..data.categories import Category, Subclass
    from ..data.picture_detections import PictureDetections
    from ..detection.run_state import Result, RunState

    class Writer(Protocol):
        """What all writers of detections have in common."""

        def add(self, picture: PictureDetections) -> None: ...

        def fail(self, file_name: str, reason: str) -> None: ...


class Also(str, Enum):
    """The further formats of `--also`."""

    csv = "csv"
    voc = "voc"
    yolo = "yolo"
    ilsvrc = "ilsvrc"


# The file that each format writes last.
_LAST = {
    Also.csv: "detections.csv",
    Also.voc: "voc/classes.txt",
    Also.yolo: "yolo/data.yaml",
    Also.ilsvrc: "submission.txt",
}


_GALLERY = "index.html"

# The folders in the folder of a run that hold pictures: drawings, small copies, and those of the layouts.
_PICTURES = ("pictures", "gallery_thumbnails", Also.voc.value, Also.yolo.value)


def users_pictures(
    paths: Sequence[Path | str], inputs: Sequence[str], out: Path, written: Collection[str]
) -> Sequence[Path | str]:
    """The pictures that are no files of an earlier run, such as drawings, which a search below `inputs` finds too.

    Args:
        paths: files or URLs.
        inputs: the files and folders that the user named.
        out: the folder of the run.
        written: the folders below `out` to which the run writes pictures.

    Raises:
        typer.BadParameter: a picture could be overwritten, because it is in a folder of `written`; or no picture is
            left.
    """
    folders = [Path(os.path.realpath(out / name)) for name in _PICTURES]
    roots = [Path(os.path.realpath(name)) for name in inputs if os.path.isdir(name)]
    has_run = (out / "run.sqlite").exists()

    @cache
    def folder_around(directory: str) -> Path | None:
        real = Path(os.path.realpath(directory))
        return next((folder for folder in folders if real.is_relative_to(folder)), None)

    kept: list[Path | str] = []
    for path in paths:
        folder = None if is_url(path) else folder_around(os.path.dirname(path))
        if folder is not None and has_run and any(root in folder.parents for root in roots):
            continue
        if folder is not None and folder.name in written:
            raise typer.BadParameter(
                f"the run writes to the folder {folder}, so it could overwrite your picture {path}; choose another "
                "folder",
                param_hint="--out",
            )
        kept.append(path)
    if not kept:
        raise typer.BadParameter("all pictures are drawings or copies that an earlier run made", param_hint="INPUT")
    return kept


def parse_also(text: str | None) -> frozenset[Also]:
    """The formats in a text such as "csv,voc".

    Raises:
        typer.BadParameter: there is no such format.
    """
    names = [name.strip().lower() for name in (text or "").split(",")]
    known = [one.value for one in Also]
    for name in names:
        if name and name not in known:
            raise typer.BadParameter(f"unknown format {name[:40]!r}: expected {', '.join(known)}", param_hint="--also")
    return frozenset(Also(name) for name in names if name)


def notice_of_changed(files: Sequence[Path]) -> str:
    """Say that files of a replaced run stay, see `RunState.delete_replaced`."""
    return (
        f"{len(files)} files of the replaced run stay, because they changed after it wrote them or cannot be deleted, "
        f"for example {files[0]}"
    )


@dataclass(frozen=True)
class ResultFiles:
    """The result files of a run.

    Attributes:
        out: the folder of the run.
        also: formats besides detections.json.
        parquet: whether to write detections.parquet.
        gallery: whether the run has a gallery, index.html, which `gallery.write_gallery` writes.
        shown_score: smallest score of the detections that people are to see: those in the VOC and YOLO layouts, and
            those that are counted.
        keep: whether VOC and YOLO files that exist already stay as they are.
    """

    out: Path
    also: frozenset[Also]
    parquet: bool
    gallery: bool
    shown_score: float
    keep: bool

    def files(self) -> list[Path]:
        """The main file of each format. The other files of the format are written before it."""
        names = ["detections.json", *(["detections.parquet"] if self.parquet else [])]
        names += [_GALLERY] if self.gallery else []
        return [self.out / name for name in [*names, *(_LAST[one] for one in Also if one in self.also)]]

    def outputs(self) -> dict[str, float]:
        """The files, for `RunState.finish`."""
        return {str(file.relative_to(self.out)): self.shown_score for file in self.files()}

    def are_written(self, state: RunState) -> bool:
        """Whether all files exist and show the results of this run from `shown_score` on."""
        return self.outputs().items() <= state.outputs.items() and all(file.exists() for file in self.files())

    def write(
        self,
        paths: Sequence[Path | str],
        numbers: Sequence[int],
        state: RunState,
        categories: Sequence[Category],
        finest: Sequence[Subclass],
    ) -> tuple[Counter[int], list[Result], list[str]]:
        """Write the results in `state`, and delete the other files of runs that this run replaced.

        Args:
            paths: the pictures of the run.
            numbers: the number of each picture in the ILSVRC submission.
            state: the results.
            categories, finest: the classes that they refer to.

        Returns:
            The number of detections of each label with a score of at least `shown_score`; the results of the pictures
            that could not be read; notices for the user.
        """
        from ..data.labelling import VocWriter, YoloWriter
        from ..data.picture_detections import PictureDetections

        changed = state.delete_replaced(but=self.files())
        written: set[Path] = set()

        def on_written(file: Path) -> None:
            written.add(file)
            state.wrote(file)

        found: Counter[int] = Counter()
        failures: list[Result] = []
        with ExitStack() as stack:
            writers = self._open_writers(stack, paths, numbers, categories, finest, on_written)
            for result in state.results():
                name = str(paths[result.picture])
                if result.detections is None:
                    failures.append(result)
                    for writer in writers:
                        writer.fail(name, result.failure or "not read")
                    continue
                one = result.detections
                picture = PictureDetections(
                    name, result.width, result.height, one.boxes, one.scores, one.labels, one.subclasses
                )
                for writer in writers:
                    writer.add(picture)
                found.update(one.above(self.shown_score).labels.tolist())
        for file in self.files():
            if file.name != _GALLERY:
                on_written(file)
        labelling = [writer for writer in writers if isinstance(writer, VocWriter | YoloWriter) and writer.kept]
        notices = [
            f"{len(writer.kept)} annotation files in {writer.folder} had other boxes and stay as they are, because you "
            "may have corrected them; delete them to have them written again"
            for writer in labelling
        ]
        kept = {file for writer in labelling for file in writer.kept}
        if stay := [file for file in changed if file not in written | kept]:
            notices.append(notice_of_changed(stay))
        return found, failures, notices

    def _open_writers(
        self,
        stack: ExitStack,
        paths: Sequence[Path | str],
        numbers: Sequence[int],
        categories: Sequence[Category],
        finest: Sequence[Subclass],
        on_written: Callable[[Path], None],
    ) -> list[Writer]:
        from ..data.coco import DetectionsWriter
        from ..data.detections_csv import CsvWriter
        from ..data.labelling import VocWriter, YoloWriter
        from ..data.submission import SubmissionWriter

        writers: list[Writer] = [
            stack.enter_context(DetectionsWriter(self.out / "detections.json", categories, finest))
        ]
        if self.parquet:
            from ..data.parquet import ParquetWriter

            writers.append(stack.enter_context(ParquetWriter(self.out / "detections.parquet", categories, finest)))
        if Also.csv in self.also:
            writers.append(stack.enter_context(CsvWriter(self.out / "detections.csv", categories, finest)))
        if Also.ilsvrc in self.also:
            indices = {str(path): number for path, number in zip(paths, numbers, strict=True)}
            writers.append(stack.enter_context(SubmissionWriter(self.out / "submission.txt", indices)))
        names: Mapping[str, str] = {}
        if self.also & {Also.voc, Also.yolo}:
            names = dict(zip(map(str, paths), distinct_names(paths, printable=True), strict=True))
        for one, kind in ((Also.voc, VocWriter), (Also.yolo, YoloWriter)):
            if one in self.also:
                folder = self.out / one.value
                writer = kind(
                    folder,
                    categories,
                    names,
                    least_score=self.shown_score,
                    keep=self.keep,
                    on_written=on_written,
                )
                writers.append(stack.enter_context(writer))
        return writers
