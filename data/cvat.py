"""Reads "CVAT for images 1.1": one file `annotations.xml` for all pictures, which are in `images/` or beside it.

Boxes, polygons, ellipses and masks count by their bounding boxes. https://docs.cvat.ai/docs/manual/advanced/formats
describes the format.
"""

from __future__ import annotations

import math
import operator
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from defusedxml import ElementTree as SafeElementTree
from defusedxml.common import DefusedXmlException

from .annotation import AnnotatedObject, Annotation, AnnotationError
from .boxes import LARGEST_COORDINATE
from .categories import Category, category_ids
from .dataset import Dataset, Sample
from .ilsvrc import LayoutError, MissingSplitError, split_names
from .json_values import class_name, shown

_NUMBER = re.compile(r"[+-]?(\d{1,20}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)
_OTHER_SHAPES = ("polyline", "points", "cuboid", "skeleton")


class _Image(NamedTuple):
    annotation: Annotation
    subset: str


def is_cvat_file(file: Path) -> bool:
    """Whether a file begins like an export of CVAT."""
    try:
        with file.open("rb") as stream:
            return re.search(rb"<annotations[\s>]", stream.read(1000)) is not None
    except OSError:
        return False


def open_dataset(
    file: str | Path,
    split: str | None = None,
    categories: Sequence[Category] | None = None,
    default_splits: Sequence[str] = ("train",),
) -> Dataset:
    """Opens an export; the samples have the order of the file.

    Args:
        split: a subset of the task in CVAT. None for the first of `default_splits` that exists, or for all pictures if
            the task has no such subset.
        categories: by default the labels that occur, in alphabetical order.

    Raises:
        LayoutError: a picture is missing or occurs twice.
        MissingSplitError: the task has no such subset.
        AnnotationError: the file is malformed; or, on access to a sample, a class is unknown.
    """
    file = Path(file)
    images = list(_read(file))
    subset = _subset(file, {image.subset for image in images}, split, default_splits)
    chosen = [image for image in images if subset in (None, image.subset)]
    if not chosen:
        raise LayoutError(f"{file}: contains no pictures")
    if categories is None:
        names = sorted({annotated.name for image in chosen for annotated in image.annotation.objects})
        categories = tuple(Category(number, name, name) for number, name in enumerate(names, start=1))
    records = [(index, _picture(file, one), one.annotation) for index, one in enumerate(chosen, start=1)]
    numbers: dict[Path, int] = {}
    for number, path, _ in records:
        if (first := numbers.setdefault(path, number)) != number:
            raise LayoutError(f"{file}: the images {first} and {number} are the same picture, {path}")
    name = f"{file.parent.resolve().name} {subset or ''}".strip()
    return Dataset(name, categories, records, partial(_sample, ids=category_ids(categories)))


def _sample(record: tuple[int, Path, Annotation], ids: Mapping[str, int]) -> Sample:
    index, path, annotation = record
    return Sample.from_annotation(os.path.splitext(annotation.filename)[0], index, path, annotation, ids)


def _subset(file: Path, subsets: set[str], split: str | None, default_splits: Sequence[str]) -> str | None:
    by_name = {subset.lower(): subset for subset in subsets}
    for wanted in default_splits if split is None else [split]:
        for name in split_names(wanted.lower()):
            if name in by_name:
                return by_name[name]
    if split is None:
        return None
    raise MissingSplitError(
        f"{file}: has no subset {split!r}; existing subsets: {', '.join(sorted(subsets - {''})) or 'none'}"
    )


def _picture(file: Path, image: _Image) -> Path:
    name = image.annotation.filename.replace("\\", "/")  # Windows writes backslashes
    folders = [file.parent / "images", file.parent, file.parent / "images" / (image.subset or "default")]
    candidates = [*(folder / name for folder in folders), *(folder / Path(name).name for folder in folders)]
    found = next((path for path in candidates if os.path.exists(path)), None)
    if found is None:
        raise LayoutError(f"{file}: the picture {shown(name)} does not exist; expected it at {candidates[0]}")
    return found


def _read(file: Path) -> Iterator[_Image]:
    try:
        with file.open("rb") as stream:
            number = 0
            for event, element in SafeElementTree.iterparse(stream, events=("start", "end")):
                if event == "start" and element.tag == "track":
                    problem = "an export of a video; expected 'CVAT for images', or export it as COCO or YOLO"
                    raise AnnotationError(f"{file}: {problem}")
                if event == "end" and element.tag == "image":
                    number += 1
                    yield _image(element, file, number)
                    element.clear()  # the memory does not grow with the number of pictures
    except AnnotationError:
        raise
    except OSError as error:
        raise AnnotationError(f"{file}: cannot read the annotation: {error.strerror}") from error
    except DefusedXmlException as error:
        raise AnnotationError(f"{file}: entities are not allowed in an annotation ({type(error).__name__})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise AnnotationError(f"{file}: not well-formed XML: {error}") from error


def _image(element: ElementTree.Element, file: Path, number: int) -> _Image:
    where = f"{file}: image {number}"
    name = element.get("name") or ""
    if not name.replace("\\", "/").rpartition("/")[2] or "\0" in name:
        raise AnnotationError(f"{where}: name: expected the name of a file, got {shown(name)}")
    where = f"{where} ({shown(name)})"
    width, height = (_number(element, key, where) for key in ("width", "height"))
    if not (width >= 1 and height >= 1 and width.is_integer() and height.is_integer()):
        raise AnnotationError(f"{where}: expected a whole width and height, got {width:g} and {height:g}")
    objects = tuple(
        _object(shape, f"{where}, {shape.tag} {position}")
        for position, shape in enumerate(element, start=1)
        if shape.tag != "tag"
    )
    return _Image(Annotation(name, int(width), int(height), objects, path=file), element.get("subset") or "")


def _object(shape: ElementTree.Element, where: str) -> AnnotatedObject:
    try:
        name = class_name(shape.get("label"))
    except ValueError as error:
        raise AnnotationError(f"{where}: label: {error}") from error
    (x1, y1), (x2, y2) = _corners(shape, where)
    if x2 < x1 or y2 < y1:
        raise AnnotationError(f"{where}: expected a box with a size, got ({x1:g}, {y1:g}, {x2:g}, {y2:g})")
    return AnnotatedObject(name, (x1 + 1, y1 + 1, x2, y2))


def _corners(shape: ElementTree.Element, where: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the top left and the bottom right corner of the bounding box of a shape."""
    if shape.tag in ("box", "ellipse"):
        keys = ("xtl", "ytl", "xbr", "ybr") if shape.tag == "box" else ("cx", "cy", "rx", "ry")
        a, b, c, d = (_number(shape, key, where) for key in keys)
        x1, y1, x2, y2 = (a, b, c, d) if shape.tag == "box" else (a - c, b - d, a + c, b + d)
        angle = math.radians(_number(shape, "rotation", where)) if shape.get("rotation") else 0.0
        if not angle or x2 < x1 or y2 < y1:
            return (x1, y1), (x2, y2)
        return _turned(x1, y1, x2, y2, angle, is_ellipse=shape.tag == "ellipse")
    if shape.tag == "mask":
        left, top, width, height = (_number(shape, key, where) for key in ("left", "top", "width", "height"))
        return (left, top), (left + width, top + height)
    if shape.tag == "polygon":
        fields = [field for point in (shape.get("points") or "").split(";") for field in point.split(",")]
        if len(fields) < 6 or len(fields) % 2:
            raise AnnotationError(
                f"{where}: points: expected at least three points x,y, got {shown(shape.get('points'))}"
            )
        values = np.array([_parse(field, "points", where) for field in fields]).reshape(-1, 2)
        (x1, y1), (x2, y2) = values.min(axis=0).tolist(), values.max(axis=0).tolist()
        return (x1, y1), (x2, y2)
    hint = "it has no area; leave it out of the export" if shape.tag in _OTHER_SHAPES else "expected box or polygon"
    raise AnnotationError(f"{where}: cannot be used: {hint}")


def _turned(
    x1: float, y1: float, x2: float, y2: float, angle: float, is_ellipse: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the bounding box of a box, or of the ellipse in it, that is turned around its centre."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    x, y, half_width, half_height = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
    add = math.hypot if is_ellipse else operator.add
    width, height = add(half_width * cos, half_height * sin), add(half_width * sin, half_height * cos)
    return (x - width, y - height), (x + width, y + height)


def _number(element: ElementTree.Element, key: str, where: str) -> float:
    return _parse(element.get(key) or "", key, where)


def _parse(text: str, key: str, where: str) -> float:
    text = text.strip()
    if not _NUMBER.fullmatch(text) or abs(float(text)) > LARGEST_COORDINATE:
        raise AnnotationError(f"{where}: {key}: expected a number of pixels, got {shown(text)}")
    return float(text)
