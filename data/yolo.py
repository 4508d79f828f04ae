"""Reads data sets in the YOLO layout, as Ultralytics, Roboflow, CVAT and Label Studio write it:

    ROOT/data.yaml                    names of the classes; folders or lists of pictures: train, val, test
    ROOT/.../images/<name>.jpg
    ROOT/.../labels/<name>.txt        one object per line: class x y width height, or class x1 y1 x2 y2 ... (a polygon)

Classes are numbered from 0. Coordinates are fractions of the picture, and x y is the centre of the box. A polygon
counts as its bounding box. A picture without a text file has no objects. Label Studio writes `classes.txt` in place of
`data.yaml`; so does labelImg, to the folder of the text files, which may be that of the pictures. Darknet and CVAT
write `obj.data`, and the text files beside the pictures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from . import json_values
from .annotation import AnnotationError
from .boxes import clip
from .categories import Category
from .dataset import Dataset, Sample
from .ilsvrc import LayoutError, MissingSplitError, split_names
from .images import IMAGE_SUFFIXES, ImageError, read_size, without_suffix
from .json_values import shown
from .listing import ListingError, find_images, visible_files

_LARGEST_YAML = 2**20  # bytes
_LARGEST_LABELS = 16 * 2**20  # bytes
_MOST_FOLDERS = 8  # folders of a path of another machine that may exist here
_NUMBER = re.compile(r"[+-]?(\d{1,20}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)
_CLASS = re.compile(r"\d{1,9}(\.0{1,9})?", re.ASCII)
_KEY = re.compile(r"0|[1-9]\d{0,7}", re.ASCII)
# Tools round, and draw polygons a little beyond the picture. Anything further is not a fraction of the picture.
_TOLERANCE = 0.01


class _Loader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """Leaves all values as text, because a class may be called "no" or "1", and refuses keys that occur twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and first.setdefault(key.value, key.start_mark) is not key.start_mark:
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key.value)} occurs twice", key.start_mark)
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content


@dataclass(frozen=True)
class _Description:
    """What `data.yaml`, `classes.txt` or `obj.data` says.

    Attributes:
        file: the file.
        names: class names by number.
        splits: paths of pictures by split, as in the file; {"": ["images"]} for a data set without splits.
        keypoints: numbers after each box, which are not part of a polygon.
    """

    file: Path
    root: Path
    names: dict[int, str]
    splits: dict[str, list[str]]
    keypoints: int = 0


def description_file(root: Path) -> Path | None:
    """Returns the file that describes a YOLO data set, or None if the folder has none."""
    if os.path.isfile(root):
        return root if root.suffix.lower() in (".yaml", ".yml", ".data") else None
    named = [root / "data.yaml", root / "data.yml", *visible_files(root, {".yaml", ".yml"})]
    files = filter(os.path.isfile, named)
    found = next((file for file in files if re.search(rb"^names\s*:", _head(file), re.M)), None)
    if found is not None:
        return found
    if os.path.isfile(root / "obj.data"):
        return root / "obj.data"
    if os.path.isdir(root / "labels") and os.path.isdir(root / "images"):
        return next(filter(os.path.isfile, (root / "classes.txt", root / "labels" / "classes.txt")), None)
    is_flat = os.path.isfile(root / "classes.txt") and not visible_files(root, {".xml", ".json"})
    labelled = is_flat and any(os.path.isfile(_label_file(path)) for path in visible_files(root, IMAGE_SUFFIXES))
    return root / "classes.txt" if labelled else None


def open_dataset(root: str | Path, split: str | None, default_splits: Sequence[str] = ("train",)) -> Dataset:
    """Opens a split; its samples are sorted by path. Boxes are clipped to the picture. Class 0 gets the id 1.

    Args:
        root: the folder that contains the description, or the description itself.
        split: "train", "val", "test" or another key of `data.yaml` that names pictures. None for the first of
            `default_splits` that exists.

    Raises:
        LayoutError: the description is malformed, pictures are missing, or no picture has a text file.
        MissingSplitError: the data set has no such split.
        AnnotationError: on access to a sample, if its text file is malformed or its picture cannot be read.
    """
    file = description_file(Path(root))
    if file is None:
        raise LayoutError(f"{root}: not a data set in the YOLO layout; expected data.yaml with 'names'")
    described = _read_description(file)
    key = _split_key(described, split, default_splits)
    pictures = _pictures(described, key)
    records = [(index, path, _label_file(path)) for index, path in enumerate(pictures, start=1)]
    if not any(os.path.isfile(label) for _, _, label in records):
        raise LayoutError(f"{file}: none of {len(records)} pictures has a text file, for example {records[0][2]}")
    categories = [Category(number + 1, name, name) for number, name in sorted(described.names.items())]
    name = described.root.resolve().name
    read = partial(_read_sample, described=described)
    return Dataset(f"{name} {key}".strip(), categories, records, read)


def _read_sample(record: tuple[int, Path, Path], described: _Description) -> Sample:
    index, path, label_file = record
    try:
        width, height = read_size(path)
    except ImageError as error:
        raise AnnotationError(f"{label_file}: the size of its picture is needed: {error}") from error
    labels, boxes = _read_labels(label_file, described) if os.path.isfile(label_file) else ([], np.empty((0, 4)))
    pixels = clip(boxes * np.array([width, height, width, height]), width, height)
    return Sample(
        image_id=without_suffix(path.name),
        index=index,
        path=path,
        boxes=pixels,
        labels=np.array(labels, dtype=np.int64) + 1,
        difficult=np.zeros(len(labels), np.bool_),
        outside=np.zeros(len(labels), np.bool_),
        size=(width, height),
    )


def _read_labels(file: Path, described: _Description) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Returns the class numbers and the boxes (x1, y1, x2, y2) as fractions of the picture, float64 [N, 4]."""
    labels: list[int] = []
    boxes: list[tuple[float, float, float, float]] = []
    for number, line in enumerate(_read_text(file, _LARGEST_LABELS, AnnotationError).split("\n"), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{file}, line {number}"
        if not _CLASS.fullmatch(fields[0]) or int(float(fields[0])) not in described.names:
            known = f"{described.file} names the classes {min(described.names)} to {max(described.names)}"
            raise AnnotationError(f"{where}: the class is {shown(fields[0])}; {known}")
        labels.append(int(float(fields[0])))
        boxes.append(_box(fields[1:], described.keypoints, where))
    return labels, np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _box(fields: Sequence[str], keypoints: int, where: str) -> tuple[float, float, float, float]:
    if keypoints and len(fields) == 4 + keypoints:
        fields = fields[:4]
    if len(fields) != 4 and (len(fields) < 6 or len(fields) % 2):
        expected = "class x y width height, or class and at least three points of a polygon"
        raise AnnotationError(f"{where}: expected {expected}, got {len(fields) + 1} numbers")
    for field in fields:
        if not _NUMBER.fullmatch(field) or not -_TOLERANCE <= float(field) <= 1 + _TOLERANCE:
            problem = f"expected fractions of the picture from 0 to 1, got {shown(field)}"
            raise AnnotationError(f"{where}: {problem}")
    values = [float(field) for field in fields]
    if len(values) > 4:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    x, y, width, height = values
    if width < 0 or height < 0:
        raise AnnotationError(f"{where}: expected a width and a height of at least 0, got {width:g} and {height:g}")
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _label_file(picture: Path) -> Path:
    """Returns the text file of a picture: in `labels` in place of the last folder `images`, or beside the picture."""
    name = f"{without_suffix(picture.name)}.txt"
    folders = picture.parent.parts
    if "images" in folders:
        last = len(folders) - 1 - folders[::-1].index("images")
        file = Path(*folders[:last], "labels", *folders[last + 1 :], name)
        if os.path.isfile(file) or not os.path.isfile(picture.parent / name):
            return file
    return picture.parent / name


def _pictures(described: _Description, key: str) -> list[Path]:
    found: list[Path] = []
    for entry in described.splits[key]:
        path = _resolve(described, entry, f"{described.file}: {key or 'images'}")
        try:
            found += _listed(described, path) if path.suffix.lower() == ".txt" else find_images(path, recursive=True)
        except ListingError as error:
            raise LayoutError(f"{described.file}: {key or 'images'}: {error}") from error
    if not found:
        raise LayoutError(f"{described.file}: {key or 'images'}: names no pictures")
    return sorted(set(found))


def _listed(described: _Description, file: Path) -> list[Path]:
    lines = enumerate(map(str.strip, _read_text(file, None, LayoutError).split("\n")), start=1)
    return [_resolve(described, line, f"{file}, line {number}", file.parent) for number, line in lines if line]


def _resolve(described: _Description, entry: str, where: str, folder: Path | None = None) -> Path:
    """Returns the path that an entry names.

    Exports name folders of other machines, or relative to places that no longer exist. Then the longest end of the path
    that exists beside the description counts, except a last folder `images`: many data sets have a folder of this name.
    """
    entry = entry.replace("\\", "/")
    below = [part for part in Path(entry).parts if part not in ("..", ".", "/")]
    folders = dict.fromkeys([*([] if folder is None else [folder]), described.root, described.file.parent])
    candidates = [one / entry for one in folders]
    ends = [below, *(below[start:] for start in range(max(1, len(below) - _MOST_FOLDERS), len(below)))]
    inside = [described.file.parent.joinpath(*end) for end in ends if end and (end is below or end != ["images"])]
    # Roboflow writes ../train/images and means train/images.
    candidates = [*inside[:1], *candidates, *inside[1:]] if entry.startswith("../") else [*candidates, *inside]
    for candidate in candidates:
        if os.path.exists(candidate):
            return candidate
    raise LayoutError(f"{where}: {entry[:300]!r} does not exist; expected it in {next(iter(folders))}")


def _split_key(described: _Description, split: str | None, default_splits: Sequence[str]) -> str:
    if "" in described.splits:
        if split is not None:
            raise MissingSplitError(f"{described.root}: has no splits, got the split {split!r}")
        return ""
    for wanted in default_splits if split is None else [split]:
        for key in split_names(wanted):
            if key in described.splits:
                return key
    there = ", ".join(described.splits) or "none"
    wanted = split or default_splits[0]
    raise MissingSplitError(f"{described.file}: has no split {wanted!r}; existing splits: {there}")


def _read_description(file: Path) -> _Description:
    if file.name == "classes.txt":
        root = file.parent.parent if file.parent.name == "labels" else file.parent
        pictures = "images" if os.path.isdir(root / "images") else "."
        return _Description(file, root, _names_by_line(file), {"": [pictures]})
    if file.suffix.lower() == ".data":
        return _read_darknet(file)
    try:
        content = yaml.load(_read_text(file, _LARGEST_YAML, LayoutError), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LayoutError(f"{file}: not YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise LayoutError(f"{file}: expected 'names' and 'train', see the YOLO format of Ultralytics")
    listed = content.get("names")
    if isinstance(listed, list):
        listed = {str(number): name for number, name in enumerate(listed)}
    if not isinstance(listed, dict) or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in listed):
        raise LayoutError(
            f"{file}: names: expected a list of class names, or names by number from 0, got {shown(listed)}"
        )
    names = _check_names({int(key): name for key, name in listed.items()}, file)
    if "nc" in content and content["nc"] != str(len(names)):
        raise LayoutError(f"{file}: nc is {shown(content['nc'])}, but there are {len(names)} names")
    splits: dict[str, list[str]] = {}
    for key, entries in content.items():
        if key in ("train", "val", "valid", "validation", "test") and entries:
            entries = entries if isinstance(entries, list) else [entries]
            if not all(isinstance(entry, str) and entry and "\0" not in entry for entry in entries):
                raise LayoutError(f"{file}: {key}: expected folders or lists of pictures, got {shown(entries)}")
            splits[key] = entries
    folder = content.get("path")
    root = file.parent / folder if isinstance(folder, str) else file.parent
    keypoints = _keypoint_numbers(content.get("kpt_shape"), file)
    return _Description(file, root if os.path.isdir(root) else file.parent, names, splits, keypoints)


def _keypoint_numbers(shape: object, file: Path) -> int:
    if shape is None:
        return 0
    are_numbers = isinstance(shape, list) and all(isinstance(one, str) and _KEY.fullmatch(one) for one in shape)
    if not isinstance(shape, list) or len(shape) != 2 or not are_numbers:
        raise LayoutError(f"{file}: kpt_shape: expected two numbers, got {shown(shape)}")
    return int(shape[0]) * int(shape[1])


def _read_darknet(file: Path) -> _Description:
    """Reads `obj.data`: lines `train = data/train.txt`, `names = data/obj.names`."""
    lines = _read_text(file, _LARGEST_YAML, LayoutError).split("\n")
    content = {key.strip(): value.strip() for key, equals, value in (line.partition("=") for line in lines) if equals}
    root = file.parent
    if "names" not in content:
        raise LayoutError(f"{file}: expected a line 'names = FILE'")
    splits = {key: [content[key]] for key in ("train", "valid", "test") if content.get(key)}
    described = _Description(file, root, {}, splits)
    names_file = _resolve(described, content["names"], f"{file}: names")
    return _Description(file, root, _names_by_line(names_file), splits)


def _names_by_line(file: Path) -> dict[int, str]:
    """Returns the names in a file with a class on each line. The number of a class is that of its line, from 0."""
    lines = map(str.strip, _read_text(file, _LARGEST_YAML, LayoutError).split("\n"))
    return _check_names({number: name for number, name in enumerate(lines) if name}, file)


def _check_names(names: Mapping[int, object], file: Path) -> dict[int, str]:
    checked: dict[int, str] = {}
    first: dict[str, int] = {}
    for number, name in names.items():
        try:
            checked[number] = json_values.class_name(name)
        except ValueError as error:
            raise LayoutError(f"{file}: the name of class {number}: {error}") from error
        if checked[number] in first:
            raise LayoutError(f"{file}: the classes {first[checked[number]]} and {number} have the name {shown(name)}")
        first[checked[number]] = number
    if not checked:
        raise LayoutError(f"{file}: names no classes")
    return checked


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(_LARGEST_YAML)
    except OSError:
        return b""


def _read_text(file: Path, largest: int | None, error_type: type[ValueError]) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read() if largest is None else stream.read(largest + 1)
    except OSError as error:
        raise error_type(f"{file}: cannot read the file: {error.strerror}") from error
    if largest is not None and len(content) > largest:
        raise error_type(f"{file}: more than {largest >> 20} MB")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise error_type(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from error
