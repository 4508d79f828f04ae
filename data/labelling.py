"""Writes detections as annotations that people correct in a labelling program: the VOC and the YOLO layout.

Labelling programs (labelImg, CVAT, Label Studio, Roboflow) read both, and so do `voc.open_folder` and
`yolo.open_dataset`. The folder holds links to the pictures; where links are not possible, copies. A picture that has a
URL is not copied.
"""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import yaml

from ..runtime.atomic_write import atomic_write
from ..runtime.remote import is_url
from .annotation import AnnotatedObject, Annotation, AnnotationError, read_annotation, write_annotation
from .boxes import clip, to_inclusive
from .categories import Category
from .images import IMAGE_SUFFIXES
from .picture_detections import PictureDetections

Writer = TypeVar("Writer", bound="_LabellingWriter")


class _LabellingWriter(ABC):
    """Writes an annotation file for each picture. Its methods are the methods of `coco.DetectionsWriter`.

    Each file is complete or missing after an interruption.

    Args:
        folder: the folder to write to; it is created if missing.
        categories: the classes that the labels refer to.
        names: for each file name, the name of the files that are written for the picture, without suffix; see
            `output_names.distinct_names`.
        least_score: smallest score of the detections that are written.
        keep: whether annotation files that exist already stay as they are, because people may have corrected them.
        on_written: called with each file or link that has the content of this run, after it is written.

    Attributes:
        folder: the folder to write to.
        kept: the annotation files that existed already with another content, and stay.
    """

    pictures = ""  # name of the folder of the pictures

    def __init__(
        self,
        folder: Path,
        categories: Sequence[Category],
        names: Mapping[str, str],
        *,
        least_score: float = 0.0,
        keep: bool = False,
        on_written: Callable[[Path], None] = lambda file: None,
    ):
        self.folder = folder
        self._categories = categories
        self._rows = {category.id: row for row, category in enumerate(categories)}
        self._names = names
        self._least_score = least_score
        self._keep = keep
        self._on_written = on_written
        self.kept: list[Path] = []

    def add(self, picture: PictureDetections) -> None:
        """Adds the detections of a picture. Subclasses are not written."""
        name = self._names[picture.file_name]
        suffix = Path(picture.file_name).suffix
        link = self.folder / self.pictures / f"{name}{suffix if suffix.lower() in IMAGE_SUFFIXES else '.jpg'}"
        if not is_url(picture.file_name):
            _link(Path(picture.file_name), link)
            self._on_written(link)
        chosen = picture.scores >= self._least_score
        file = self._annotation_file(name)
        if self._write(file, link, picture.width, picture.height, picture.boxes[chosen], picture.labels[chosen]):
            self._on_written(file)
        else:
            self.kept.append(file)

    def fail(self, file_name: str, reason: str) -> None:  # noqa: B027  # the same for all layouts
        """Adds nothing: a picture that could not be read has no annotation."""

    @abstractmethod
    def _annotation_file(self, name: str) -> Path:
        """The annotation file of the picture whose files have this name."""

    @abstractmethod
    def _write(self, file: Path, picture: Path, width: int, height: int, boxes: np.ndarray, labels: np.ndarray) -> bool:
        """Writes the annotation file of a picture; returns False if a file with another content is kept."""

    @abstractmethod
    def _write_classes(self) -> Path:
        """Writes the file of the classes, which tells that all annotations are written."""

    def __enter__(self: Writer) -> Writer:
        (self.folder / self.pictures).mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._on_written(self._write_classes())


class VocWriter(_LabellingWriter):
    """Writes FOLDER/Annotations/<name>.xml and links FOLDER/JPEGImages/<name>.jpg, see `_LabellingWriter`.

    Boxes are rounded to whole pixels, because many programs read no others. `classes.txt` lists the names of the
    classes, as labelImg takes them.
    """

    pictures = "JPEGImages"

    def _write_classes(self) -> Path:
        file = self.folder / "classes.txt"
        with atomic_write(file) as partial:
            partial.write_text("".join(f"{category.name}\n" for category in self._categories), encoding="utf-8")
        return file

    def _annotation_file(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def _write(self, file: Path, picture: Path, width: int, height: int, boxes: np.ndarray, labels: np.ndarray) -> bool:
        objects = [
            AnnotatedObject(self._categories[self._rows[label]].name, box, truncated=False, pose="Unspecified")
            for box, label in zip(_whole_pixels(boxes, width, height), labels.tolist(), strict=True)
        ]
        annotation = Annotation(picture.name, width, height, tuple(objects), folder=self.pictures)
        if self._keep and os.path.exists(file):
            return _is(file, annotation)
        write_annotation(file, annotation)
        return True


class YoloWriter(_LabellingWriter):
    """Writes FOLDER/data.yaml and FOLDER/labels/<name>.txt, and links FOLDER/images/<name>.jpg.

    See `_LabellingWriter`. Classes are numbered from 0 in the order of `categories`. `data.yaml` names all pictures
    `train`, because the layout needs a name.
    """

    pictures = "images"

    def _write_classes(self) -> Path:
        file = self.folder / "data.yaml"
        names = {number: category.name for number, category in enumerate(self._categories)}
        content = yaml.safe_dump({"train": self.pictures, "names": names}, allow_unicode=True, sort_keys=False)
        with atomic_write(file) as partial:
            partial.write_text(content, encoding="utf-8")
        return file

    def _annotation_file(self, name: str) -> Path:
        return self.folder / "labels" / f"{name}.txt"

    def _write(self, file: Path, picture: Path, width: int, height: int, boxes: np.ndarray, labels: np.ndarray) -> bool:
        x1, y1, x2, y2 = (clip(boxes, width, height) / np.array([width, height, width, height])).T
        rows = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1).tolist()
        content = "".join(
            f"{self._rows[label]} {' '.join(f'{value:.6f}' for value in row)}\n"
            for row, label in zip(rows, labels.tolist(), strict=True)
        ).encode()
        if self._keep and os.path.exists(file):
            return file.read_bytes() == content
        with atomic_write(file) as partial:
            partial.write_bytes(content)
        return True


def _whole_pixels(boxes: np.ndarray, width: int, height: int) -> list[tuple[float, float, float, float]]:
    """Rounds boxes to whole pixels inside the picture, at least one pixel wide and high; 1-based inclusive."""
    rounded = np.rint(to_inclusive(clip(boxes, width, height)))
    rounded[:, :2] = np.minimum(rounded[:, :2], (width, height))
    rounded[:, 2:] = np.maximum(rounded[:, 2:], rounded[:, :2])
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in rounded.tolist()]


def _is(file: Path, annotation: Annotation) -> bool:
    try:
        return read_annotation(file) == annotation
    except AnnotationError:
        return False


def _link(picture: Path, link: Path) -> None:
    """Makes a link to a picture, or a copy if the file system has no links."""
    if os.path.exists(link) and os.path.samefile(link, picture):
        return
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(picture.resolve())
    except OSError:
        with atomic_write(link) as partial:
            shutil.copyfile(picture, partial)
