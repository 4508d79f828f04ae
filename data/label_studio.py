"""Reads Label Studio's export "JSON": a list of tasks. The pictures are beside the file, in `images/` or in `upload/`.

Rectangles, polygons and ellipses count by their bounding boxes. Tasks without an annotation, or with only cancelled
annotations, are not part of the data set; predictions and other kinds of answers (choices, texts) are not read.
https://labelstud.io/guide/task_format describes the format.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from . import json_values
from .annotation import AnnotatedObject, Annotation, AnnotationError
from .categories import Category, category_ids
from .dataset import Dataset, Sample
from .ilsvrc import LayoutError
from .images import IMAGE_SUFFIXES, ImageError, read_size, without_suffix
from .json_values import shown

_LARGEST_FILE = 2**30  # bytes
_SHAPES = {"rectanglelabels": "rectangle", "polygonlabels": "polygon", "ellipselabels": "ellipse"}
_UNUSABLE = {"brushlabels", "keypointlabels", "labels", "rectangle", "polygon", "ellipse", "brush", "keypoint"}
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")  # Label Studio puts a random number before the names of uploaded files
_TOLERANCE = 1  # per cent of the picture, as for YOLO files


def is_label_studio_file(file: Path) -> bool:
    """Whether a JSON file is a list, as the tasks of Label Studio are. A COCO annotation file is an object."""
    try:
        with file.open("rb") as stream:
            return stream.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except OSError:
        return False


def open_dataset(file: str | Path, categories: Sequence[Category] | None = None) -> Dataset:
    """Opens an export; the samples have the order of the file.

    Args:
        categories: by default the labels that occur, in alphabetical order.

    Raises:
        LayoutError: a picture is missing, two tasks have the same picture, or no task is annotated.
        AnnotationError: the file is malformed; or, on access to a sample, a class is unknown.
    """
    file = Path(file)
    records: list[tuple[int, Path, Annotation]] = []
    tasks: dict[Path, int] = {}
    for number, path, annotation in _read(file):
        first = tasks.setdefault(path, number)
        if first != number:
            raise LayoutError(f"{file}: the tasks {first} and {number} have the same picture, {path}")
        records.append((len(records) + 1, path, annotation))
    if not records:
        raise LayoutError(f"{file}: contains no annotated task")
    if categories is None:
        names = sorted({annotated.name for _, _, annotation in records for annotated in annotation.objects})
        categories = tuple(Category(number, name, name) for number, name in enumerate(names, start=1))
    return Dataset(file.stem, categories, records, partial(_sample, ids=category_ids(categories)))


def _sample(record: tuple[int, Path, Annotation], ids: Mapping[str, int]) -> Sample:
    index, path, annotation = record
    return Sample.from_annotation(without_suffix(annotation.filename), index, path, annotation, ids)


def _read(file: Path) -> Iterator[tuple[int, Path, Annotation]]:
    """Yields the number, the picture and the annotation of each annotated task."""
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise AnnotationError(f"{file}: more than {_LARGEST_FILE >> 20} MB; export the project in parts")
        tasks = json_values.load_json(file)
    except OSError as error:
        raise AnnotationError(f"{file}: cannot read the annotations: {error.strerror}") from error
    except AnnotationError:
        raise
    except ValueError as error:
        raise AnnotationError(f"{file}: {error}") from error
    if not isinstance(tasks, list):
        raise AnnotationError(f"{file}: expected a list of tasks, as Label Studio writes it")
    for number, task in enumerate(tasks, start=1):
        where = f"{file}: task {number}"
        results = _results(task, where)
        if results is not None:
            path, name = _picture(file, _reference(task.get("data"), where), where)
            yield number, path, _annotation(results, path, name, file, where)


def _results(task: Any, where: str) -> list[Any] | None:
    """Returns the results of the annotation of a task; None if the task is not annotated."""
    if not isinstance(task, dict) or not isinstance(task.get("annotations"), list):
        raise AnnotationError(f"{where}: expected an object with a list 'annotations'; export the project as JSON")
    chosen: list[Any] = []
    best: list[Any] = []
    for position, annotation in enumerate(task["annotations"], start=1):
        place = f"{where}, annotation {position}"
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            raise AnnotationError(f"{place}: expected an object with a list 'result'")
        if not _flag(annotation, "was_cancelled", place):
            chosen.append(annotation["result"])
            if _flag(annotation, "ground_truth", place):
                best.append(annotation["result"])
    chosen = best or chosen
    if len(chosen) > 1:
        kind = "ground truths" if best else "annotations"
        raise AnnotationError(
            f"{where}: has {len(chosen)} {kind}, perhaps of several persons; mark one as ground truth in Label Studio"
        )
    return chosen[0] if chosen else None


def _flag(annotation: Mapping[str, Any], field: str, where: str) -> bool:
    if annotation.get(field) is None:
        return False
    return _checked(json_values.flag, annotation, field, where)


def _checked(read: Any, values: Mapping[str, Any], field: str, where: str) -> Any:
    """Returns a field of an object, read by a function of `json_values`."""
    try:
        return read(values.get(field))
    except ValueError as error:
        raise AnnotationError(f"{where}: {field}: {error}") from error


def _reference(data: Any, where: str) -> str:
    """Returns the name, path or URL of the picture of a task. The project's labelling configuration names its key."""
    fields = data if isinstance(data, dict) else {}
    if isinstance(fields.get("image"), str):
        return fields["image"]
    pictures = [value for value in fields.values() if isinstance(value, str) and _has_picture_suffix(value)]
    if len(pictures) != 1:
        raise AnnotationError(f"{where}: data: expected the name of one picture under 'image', got {shown(data)}")
    return pictures[0]


def _has_picture_suffix(reference: str) -> bool:
    return os.path.splitext(_file_path(reference))[1].lower() in IMAGE_SUFFIXES


def _file_path(reference: str) -> str:
    """Returns the path in a reference: a path, a URL, `/data/upload/...` or `/data/local-files/?d=...`."""
    try:
        parts = urlsplit(reference)
    except ValueError:
        return reference
    if parts.path.rstrip("/").endswith("local-files") and (named := parse_qs(parts.query).get("d")):
        return named[0]
    if len(parts.scheme) > 1 or parts.path.startswith("/data/"):  # a single letter is a drive of Windows
        return unquote(parts.path)
    return reference


def _picture(file: Path, reference: str, where: str) -> tuple[Path, str]:
    """Returns the picture of a task, and its name without the folder in which it was found."""
    path = _file_path(reference).replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if not parts or "\0" in path:
        raise AnnotationError(f"{where}: data: expected the name of a picture, got {shown(reference)}")
    names = ["/".join(parts[start:]) for start in range(len(parts))][-8:]  # the longest first
    if uploaded := _UPLOADED.fullmatch(parts[-1]):
        names.append(uploaded[1])
    folders = [file.parent, file.parent / "images", file.parent / "upload"]
    for name in names:
        for folder in folders:
            if os.path.isfile(folder / name):
                return folder / name, name
    if os.path.isabs(path) and os.path.isfile(path):
        return Path(path), names[0]
    raise LayoutError(
        f"{where}: its picture {shown(reference)} does not exist; expected {shown(names[-1])} beside the file, "
        "in images/ or in upload/"
    )


def _annotation(results: Iterable[Any], path: Path, name: str, file: Path, where: str) -> Annotation:
    shapes: list[tuple[dict[str, Any], str]] = []
    size: tuple[int, int] | None = None
    for number, result in enumerate(results, start=1):
        place = f"{where}, result {number}"
        if not isinstance(result, dict) or not isinstance(result.get("type"), str):
            raise AnnotationError(f"{place}: expected an object with a text 'type', got {shown(result)}")
        if result["type"] in _UNUSABLE:
            raise AnnotationError(
                f"{place}: type: expected one of {', '.join(_SHAPES)}, got {shown(result['type'])}; "
                "leave it out of the export"
            )
        if result["type"] not in _SHAPES:
            continue
        if result.get("image_rotation") is not None and _checked(json_values.number, result, "image_rotation", place):
            raise AnnotationError(f"{place}: image_rotation: expected 0, since the picture file is not turned")
        if result.get("original_width") is not None or result.get("original_height") is not None:
            sides = ("original_width", "original_height")
            width, height = (_checked(json_values.side, result, side, place) for side in sides)
            if size not in (None, (width, height)):
                raise AnnotationError(f"{place}: original_width, original_height: differ from those of another result")
            size = (width, height)
        shapes.append((result, place))
    if size is None and shapes:
        try:
            size = read_size(path)
        except ImageError as error:
            raise AnnotationError(f"{where}: the size of its picture is needed: {error}") from error
    width, height = size or (0, 0)
    objects = tuple(one for result, place in shapes for one in _objects(result, width, height, place))
    return Annotation(name, width, height, objects, path=file)


def _objects(result: Mapping[str, Any], width: int, height: int, where: str) -> Iterator[AnnotatedObject]:
    """Yields an object for each label of a shape."""
    kind, value = result["type"], result.get("value")
    if not isinstance(value, dict):
        raise AnnotationError(f"{where}: value: expected an object, got {shown(value)}")
    labels = value.get(kind)
    if not isinstance(labels, list) or not labels:
        raise AnnotationError(f"{where}: {kind}: expected a list of labels, got {shown(labels)}; label or delete it")
    corners = _corners(value, _SHAPES[kind], width, height, where)
    (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    for label in labels:
        yield AnnotatedObject(_checked(json_values.class_name, {kind: label}, kind, where), (x1 + 1, y1 + 1, x2, y2))


def _corners(value: Mapping[str, Any], shape: str, width: int, height: int, where: str) -> npt.NDArray[np.float64]:
    """Returns points in pixels whose bounding box is that of a shape, float64 [N, 2]."""
    if shape == "polygon":
        points = value.get("points")
        if not isinstance(points, list) or len(points) < 3:
            raise AnnotationError(f"{where}: points: expected a list of at least three points, got {shown(points)}")
        return np.array([_point(point, where) for point in points]) * [width / 100, height / 100]
    turned = value.get("rotation") is not None and _checked(json_values.number, value, "rotation", where)
    angle = math.radians(math.fmod(turned, 360))
    # A turned shape may reach beyond the picture.
    read = partial(_per_cent, tolerance=100 if angle else _TOLERANCE)
    fields = ("x", "y", "width", "height") if shape == "rectangle" else ("x", "y", "radiusX", "radiusY")
    x, y, across, down = (_checked(read, value, field, where) for field in fields)
    if across < 0 or down < 0:
        raise AnnotationError(f"{where}: {fields[2]}, {fields[3]}: expected at least 0, got {across:g} and {down:g}")
    x, y, across, down = x * width / 100, y * height / 100, across * width / 100, down * height / 100
    cos, sin = math.cos(angle), math.sin(angle)
    if shape == "ellipse":
        half = np.array([math.hypot(across * cos, down * sin), math.hypot(across * sin, down * cos)])
        return np.array([x, y]) + np.array([-half, half])
    # Label Studio turns a rectangle clockwise around its upper left corner.
    sides = np.array([[0, 0], [across, 0], [across, down], [0, down]])
    return np.array([x, y]) + sides @ np.array([[cos, sin], [-sin, cos]])


def _point(point: Any, where: str) -> list[float]:
    if not isinstance(point, list) or len(point) != 2:
        raise AnnotationError(f"{where}: points: expected points of two numbers, got {shown(point)}")
    return [_checked(partial(_per_cent, tolerance=_TOLERANCE), {"points": one}, "points", where) for one in point]


def _per_cent(value: object, tolerance: float) -> float:
    share = json_values.number(value)
    if not -tolerance <= share <= 100 + tolerance:
        raise ValueError(f"expected per cent of the picture, from 0 to 100, got {shown(value)}")
    return share
