"""Reads data sets of labelme: beside each picture a JSON file of the same name with "shapes".

Rectangles and polygons count by their bounding boxes, like circles and masks. Pictures without a JSON file were not
annotated and are not part of the data set. https://github.com/wkentaro/labelme describes the program.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import json_values
from .annotation import AnnotatedObject, Annotation, AnnotationError
from .categories import Category, category_ids
from .dataset import Dataset, Sample
from .ilsvrc import LayoutError, picture_path
from .json_values import shown
from .listing import visible_files

_LARGEST_FILE = 512 * 2**20  # bytes; the files may contain the picture
_FEWEST_POINTS = {"rectangle": 2, "polygon": 3, "circle": 2, "mask": 2, "rotation": 4}


def is_labelme_file(file: Path) -> bool:
    """Whether a JSON file was written by labelme."""
    try:
        with file.open("rb") as stream:
            if b'"shapes"' not in stream.read(2**20):  # a COCO file may be too large to be read only for this
                return False
        content = json_values.load_json(file)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def open_dataset(root: str | Path, categories: Sequence[Category] | None = None) -> Dataset:
    """Opens a folder of pictures and JSON files; the samples are sorted by name.

    Args:
        categories: by default the labels that occur, in alphabetical order.

    Raises:
        LayoutError: the folder has no JSON file of labelme, a picture is missing, or two files name the same picture.
        AnnotationError: a JSON file is malformed; or, on access to a sample, a class is unknown.
    """
    root = Path(root)
    files = visible_files(root, {".json"})
    if not files:
        raise LayoutError(f"{root}: contains no JSON files of labelme")
    records = []
    names: set[str] = set()
    annotated_by: dict[str, Path] = {}
    for index, file in enumerate(files, start=1):
        annotation = _read(file)
        names.update(annotated.name for annotated in annotation.objects)
        picture = _picture(file, annotation.filename)
        if (other := annotated_by.setdefault(os.path.realpath(picture), file)) != file:
            raise LayoutError(
                f"{other} and {file.name} annotate the same picture, {picture}; expected one JSON file per picture"
            )
        records.append((file.stem, index, picture, annotation))
    if categories is None:
        categories = tuple(Category(number, name, name) for number, name in enumerate(sorted(names), start=1))
    return Dataset(root.resolve().name, categories, records, partial(_sample, ids=category_ids(categories)))


def _sample(record: tuple[str, int, Path, Annotation], ids: Mapping[str, int]) -> Sample:
    image_id, index, path, annotation = record
    return Sample.from_annotation(image_id, index, path, annotation, ids)


def _picture(file: Path, file_name: str) -> Path:
    """Returns the picture of a JSON file: the one that it names, else the one of the same name beside it."""
    named = file.parent / file_name.replace("\\", "/")
    if os.path.exists(named):
        return named
    beside = [file.parent / named.name, picture_path(file.parent, file.stem)]
    found = next((path for path in beside if os.path.exists(path)), None)
    if found is None:
        raise LayoutError(f"{file}: its picture {shown(file_name)} does not exist; expected it at {named}")
    return found


def _read(file: Path) -> Annotation:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise AnnotationError(f"{file}: more than {_LARGEST_FILE >> 20} MB; expected the annotation of one picture")
        content = json_values.load_json(file)
    except OSError as error:
        raise AnnotationError(f"{file}: cannot read the annotation: {error.strerror}") from error
    except AnnotationError:
        raise
    except ValueError as error:
        raise AnnotationError(f"{file}: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise AnnotationError(f"{file}: expected an object with a list 'shapes', as labelme writes it")
    field = "imagePath"
    try:
        file_name = json_values.file_name(content.get(field))
        sides = {"imageWidth": 0, "imageHeight": 0}
        for field in sides:
            if content.get(field) is not None:
                sides[field] = json_values.side(content[field])
    except ValueError as error:
        raise AnnotationError(f"{file}: {field}: {error}") from error
    width, height = sides.values() if all(sides.values()) else (0, 0)
    objects = tuple(_object(shape, f"{file}: shape {n}") for n, shape in enumerate(content["shapes"], start=1))
    return Annotation(file_name, width, height, objects, path=file)


def _object(shape: Any, where: str) -> AnnotatedObject:
    if not isinstance(shape, dict):
        raise AnnotationError(f"{where}: expected an object, got {shown(shape)}")
    kind = shape.get("shape_type", "polygon")
    if not isinstance(kind, str) or kind not in _FEWEST_POINTS:
        raise AnnotationError(
            f"{where}: shape_type: expected one of {', '.join(_FEWEST_POINTS)}, which have an area, got {shown(kind)}"
        )
    field = "label"
    try:
        name = json_values.class_name(shape.get("label"))
        field = "difficult"
        difficult = json_values.flag(shape["difficult"]) if "difficult" in shape else False
        field = "points"
        points = shape.get("points")
        if not isinstance(points, list) or len(points) < _FEWEST_POINTS[kind]:
            raise ValueError(f"expected a list of at least {_FEWEST_POINTS[kind]} points, got {shown(points)}")
        corners = np.array([_point(point) for point in points])  # [N, 2]
    except ValueError as error:
        raise AnnotationError(f"{where}: {field}: {error}") from error
    if kind == "circle":  # the centre, and a point on the circle
        radius = math.dist(*corners[:2])
        corners = np.array([corners[0] - radius, corners[0] + radius])
    (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return AnnotatedObject(name, (x1 + 1, y1 + 1, x2, y2), difficult)


def _point(point: Any) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise ValueError(f"expected points of two numbers, got {shown(point)}")
    return json_values.coordinate(point[0]), json_values.coordinate(point[1])
