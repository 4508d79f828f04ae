"""Reads data sets in the ILSVRC DET layout:

    ROOT/ImageSets/DET/<split>.txt              one picture per line: image_id index
    ROOT/Data/DET/<split>/<image_id>.JPEG       (or another suffix of `IMAGE_SUFFIXES`, for example .jpg or .png)
    ROOT/Annotations/DET/<split>/<image_id>.xml

The list of a part of a split (`train_15.txt`, `val2.txt`) uses the folders of the whole split (`train`, `val`). A file
`ROOT/ImageSets/DET/<split>_annotated.txt` says which classes are annotated in which pictures, see `partial`.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .annotation import read_annotation
from .categories import Category, category_ids, det_categories
from .dataset import Dataset, Sample
from .images import IMAGE_SUFFIXES, without_suffix
from .json_values import shown
from .partial import AnnotatedClasses, read_annotated_classes

_PART_OF_SPLIT = re.compile(r"(train|val|test)(_.*|\d+)")
_BLANK = " \t\f\v\r"
_INTEGER = re.compile(r"[+-]?\d{1,15}", re.ASCII)
_MARKS = ("-1", "0", "1")
_LONGEST_NAME = 255  # bytes in a name on common file systems
# The order in which `picture_path` looks for a picture: cameras and Windows write suffixes in capitals.
_SUFFIXES = (
    ".JPEG",
    *(
        spelled(suffix)
        for spelled in (str.lower, str.upper, lambda suffix: f".{suffix[1:].title()}")
        for suffix in sorted(IMAGE_SUFFIXES, key=lambda suffix: (suffix in (".avif", ".heic", ".heif"), suffix))
    ),
)
# Pictures of ILSVRC train that were verified not to contain a class; the challenge has no XML files for them.
_EXTRA_PICTURES = "ILSVRC2013_train_extra"


class LayoutError(ValueError):
    """A data set does not have the expected layout; the message names the expected files and folders."""


class MissingSplitError(LayoutError):
    """A data set does not have the split that was asked for; the message names the splits that it has."""


@dataclass(frozen=True)
class _Entry:
    name: str  # as in the list
    image_id: str  # the name without a picture suffix
    index: int
    negative: bool  # whether the XML file may be missing: the list marks the picture with -1, or it is an extra picture


def open_dataset(root: str | Path, split: str, categories: Sequence[Category] | None = None) -> Dataset:
    """Opens a split; its samples have the order of the image list and are read on first access.

    Boxes are clipped to the picture. Many ILSVRC files violate their convention and count pixels from 0, so their boxes
    can extend one pixel beyond the picture. `read_ilsvrc_ground_truth` returns the boxes without clipping.

    Args:
        root: the folder that contains `ImageSets`, `Data` and `Annotations`.
        split: the name of a list in `ImageSets/DET`, without `.txt`.
        categories: the classes; by default the 200 classes of ILSVRC DET.

    Raises:
        LayoutError: the list or a folder is missing (a MissingSplitError if only other lists exist), or the list is
            malformed, empty or names a picture twice.
        PartialAnnotationError: the file of annotated classes is malformed.
        AnnotationError: on access to a sample, if its XML file is missing or malformed, or contains an unknown class.
    """
    root = Path(root)
    missing = _missing_folders(root, split)
    if missing:
        lists = root / "ImageSets" / "DET"
        is_split = not os.path.isdir(lists) or os.path.isfile(_list_path(root, split))
        error_type = LayoutError if is_split else MissingSplitError
        raise error_type("\n".join([f"{root}: not a data set in the ILSVRC DET layout", *missing, *_hints(root)]))
    categories = det_categories() if categories is None else tuple(categories)
    list_path = _list_path(root, split)
    pictures, annotations = (split_folder(root, kind, split) for kind in ("Data", "Annotations"))
    entries = _read_list(list_path, [annotations, pictures])
    if not entries:
        raise LayoutError(f"{list_path}: the list is empty; expected lines 'image_id index'")
    refuse_repeated_names(list_path, [entry.image_id for entry in entries])
    partly = list_path.with_name(f"{split}_annotated.txt")
    annotated = read_annotated_classes(partly, categories) if os.path.isfile(partly) else AnnotatedClasses(())
    ids = category_ids(categories)
    read = partial(_read_sample, pictures=pictures, annotations=annotations, ids=ids, annotated=annotated)
    return Dataset(f"{root.resolve().name} {split}", categories, entries, read)


def read_image_list(path: str | Path, folders: Sequence[Path] = ()) -> list[tuple[str, int]]:
    """Reads an image list; returns the image_id and the index of each line.

    A picture suffix is removed from the id. The index is the number in the second column, which submission files use.
    Some lists have no second column. The lists of a class (`train_15.txt`) contain marks in the second column: 1 if the
    class occurs in the picture, 0 if it occurs partly, -1 if it does not occur. In both cases the index is the number
    of the entry, starting at 1. Marks in a third column are ignored.

    Names may contain spaces, may be in quotation marks, and need not be UTF-8.

    Args:
        folders: the folders of the pictures or annotations. A name may end in a number, as in "Screenshot 101112": if
            a folder has a file of the name with the number, the number is not an index.

    Raises:
        LayoutError: the file cannot be read, an index is not positive or occurs twice, or a name cannot be a file name.
    """
    return [(entry.image_id, entry.index) for entry in _read_list(Path(path), folders)]


def refuse_repeated_names(list_path: Path, names: Sequence[str]) -> None:
    """Raises a LayoutError if a list names a picture twice."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise LayoutError(f"{list_path}: names {name!r} twice; expected each picture once")
        seen.add(name)


def listed_pictures(path: str | Path, folder: Path, folders: Sequence[Path] = ()) -> list[tuple[str, int, Path]]:
    """Returns the image_id, the index and the path in `folder` of each picture in a list. Files may be missing.

    Args:
        folders: further folders, as in `read_image_list`.

    Raises:
        LayoutError: see `read_image_list`.
    """
    entries = _read_list(Path(path), [folder, *folders])
    return [(entry.image_id, entry.index, picture_path(folder, entry.name)) for entry in entries]


def split_names(split: str) -> tuple[str, ...]:
    """Returns the names that tools give to a split, `split` first: "val", "valid" and "validation" are the same."""
    validation = ("val", "valid", "validation")
    return tuple(dict.fromkeys((split, *validation))) if split in validation else (split,)


def split_folder(root: Path, kind: str, split: str) -> Path:
    """Returns the folder `ROOT/<kind>/DET/<split>`.

    If this folder does not exist and the split is a part of another split ("train_15" of "train"), returns the folder
    of the whole split.

    Args:
        kind: "Data" or "Annotations".
    """
    folder = root / kind / "DET" / split
    part = _PART_OF_SPLIT.fullmatch(split)
    return folder if part is None or os.path.isdir(folder) else folder.with_name(part[1])


def picture_path(folder: Path, image_id: str) -> Path:
    """Returns the path of a picture: the file `image_id` itself if it exists, else a file with a picture suffix.

    The function looks for the suffix `.JPEG` first, then for the other suffixes of `IMAGE_SUFFIXES`, also in capitals.
    If `image_id` has a picture suffix, files with another suffix count last. If no file exists, the function returns
    the path of `image_id`, with `.JPEG` if it has no picture suffix.
    """
    stem = without_suffix(image_id)
    if stem != image_id and os.path.exists(folder / image_id):
        return folder / image_id
    for name in dict.fromkeys((image_id, stem)):
        for suffix in _SUFFIXES:
            path = folder / f"{name}{suffix}"
            if os.path.exists(path):
                return path
    return folder / (image_id if stem != image_id else f"{image_id}.JPEG")


def annotation_path(folder: Path, image_id: str) -> Path:
    """Returns the path of an XML file, `<image_id>.xml`; with the suffix in capitals if only that file exists."""
    path = folder / f"{image_id}.xml"
    capitals = folder / f"{image_id}.XML"
    return capitals if not os.path.exists(path) and os.path.exists(capitals) else path


def _read_sample(
    entry: _Entry, pictures: Path, annotations: Path, ids: Mapping[str, int], annotated: AnnotatedClasses
) -> Sample:
    path = annotation_path(annotations, entry.image_id)
    annotation = None if entry.negative and not os.path.exists(path) else read_annotation(path)
    picture = picture_path(pictures, entry.name)
    sample = Sample.from_annotation(entry.image_id, entry.index, picture, annotation, ids)
    return replace(sample, annotated=annotated.of(entry.image_id, sample.labels.tolist()))


def _read_list(path: Path, folders: Sequence[Path]) -> list[_Entry]:
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise LayoutError(f"{path}: cannot read the image list: {error}") from error
    # Like the names of files, names in lists need not be UTF-8.
    text = content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    lines = [
        (line_number, line)
        for line_number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1)
        if line.strip(_BLANK)
    ]
    files = _Files(folders)
    readings = [(line_number, _readings(line)) for line_number, line in lines]
    columns = _columns([one for _, one in readings], files)
    names: list[str] = []
    numbers: list[tuple[int, int]] = []  # (line, second column)
    for line_number, of_line in readings:
        name, number = of_line[min(columns, len(of_line) - 1)]
        name = _listed_name(name, files)
        parts = name.split("/")
        if (
            parts[-1] in ("", ".", "..")
            or "\0" in name
            or max(len(os.fsencode(part)) for part in parts) > _LONGEST_NAME
        ):
            raise LayoutError(f"{path}, line {line_number}: {shown(name)} cannot be the name of a file")
        names.append(name)
        if number is not None:
            if not _INTEGER.fullmatch(number):
                raise LayoutError(
                    f"{path}, line {line_number}: the index is {shown(number)}; expected at most 15 digits"
                )
            numbers.append((line_number, int(number)))

    indices = [number for _, number in numbers]
    if len(indices) not in (0, len(names)):
        raise LayoutError(f"{path}: only some lines have an index; expected 'image_id index' in all lines or in none")
    are_marks = set(indices) <= {-1, 0, 1} and len(indices) != len({i for i in indices if i > 0})
    negative = [are_marks and i == -1 for i in indices] or [False] * len(names)
    if not indices or are_marks:
        indices = list(range(1, len(names) + 1))
    else:
        first: dict[int, int] = {}
        for line_number, index in numbers:
            if index < 1 or index in first:
                problem = f"line {first[index]} has the same index" if index in first else "expected at least 1"
                raise LayoutError(f"{path}, line {line_number}: the index is {index}; {problem}")
            first[index] = line_number
    return [
        _Entry(name, without_suffix(name), index, mark or name.startswith(_EXTRA_PICTURES))
        for name, index, mark in zip(names, indices, negative, strict=True)
    ]


def _readings(line: str) -> list[tuple[str, str | None]]:
    """Returns what a line can mean with 0, 1, 2 columns after the name: the name and the first column.

    Columns are numbers, and the second is a mark: "photo 7 1" can be a name, "photo 7" with the number 1, or "photo"
    with the number 7 and the mark 1. A name keeps the blanks at its ends.
    """
    readings: list[tuple[str, str | None]] = [(line, None)]
    before, last = _last_field(line)
    if before.strip(_BLANK) and _is_number(last):
        readings.append((before, last))
        name, number = _last_field(before)
        if last in _MARKS and name.strip(_BLANK) and _is_number(number):
            readings.append((name, number))
    return readings


def _last_field(line: str) -> tuple[str, str]:
    """Splits the last field from a line, and one blank before it."""
    line = line.rstrip(_BLANK)
    position = max(line.rfind(blank) for blank in _BLANK)
    return line[: max(position, 0)], line[position + 1 :]


def _is_number(field: str) -> bool:
    digits = field[1:] if field[:1] in ("+", "-") else field
    return digits.isascii() and digits.isdigit()


def _columns(lines: Sequence[list[tuple[str, str | None]]], files: _Files) -> int:
    """Returns the number of columns after the names in a list; the other numbers belong to the names.

    The first line that ends with a number and names an existing file decides. Without such a line, all numbers are
    columns.

    Args:
        lines: the `_readings` of each line.
    """
    for readings in lines:
        if len(readings) > 1:
            for columns, (name, _) in enumerate(readings):
                if _listed_name(name, files) in files:
                    return columns
    return 2


def _listed_name(text: str, files: _Files) -> str:
    """Returns the name that a text of a list means: an existing file, else the text without blanks and quotes."""
    stripped = text.strip(_BLANK)
    quoted = len(stripped) > 2 and stripped[0] in "'\"" and stripped[-1] == stripped[0]
    readings = dict.fromkeys((text, stripped, stripped[1:-1] if quoted else stripped))
    return next((name for name in readings if len(readings) > 1 and name in files), list(readings)[-1])


class _Files:
    """The files in some folders, with and without suffixes. Folders are listed when a name in them is asked for."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._listed: dict[Path, set[str]] = {}

    def __contains__(self, name: str) -> bool:
        """Whether a folder has a picture or an annotation of this name."""
        paths = [folder / name for folder in self._folders]
        return any(path.name in self._names(path.parent) for path in paths)

    def _names(self, folder: Path) -> set[str]:
        if folder not in self._listed:
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):  # ValueError: a NUL character
                names = []
            stems = (name[:-4] if name.lower().endswith(".xml") else without_suffix(name) for name in names)
            self._listed[folder] = {*names, *stems}
        return self._listed[folder]


def _list_path(root: Path, split: str) -> Path:
    return root / "ImageSets" / "DET" / f"{split}.txt"


def _missing_folders(root: Path, split: str) -> list[str]:
    pictures, annotations = (split_folder(root, kind, split) for kind in ("Data", "Annotations"))
    expected = [
        ("image list", _list_path(root, split), os.path.isfile(_list_path(root, split))),
        ("folder of pictures", pictures, os.path.isdir(pictures)),
        ("folder of annotations", annotations, os.path.isdir(annotations)),
    ]
    return [f"missing {kind}: {path}" for kind, path, found in expected if not found]


def _hints(root: Path) -> list[str]:
    hints = []
    lists = (root / "ImageSets" / "DET").glob("[!.]*.txt")
    splits = sorted(path.stem for path in lists if not path.stem.endswith("_annotated"))
    if splits:
        hints.append(f"hint: the data set has the splits {', '.join(splits[:8])}{', ...' if len(splits) > 8 else ''}")
    if os.path.isdir(root / "ILSVRC" / "ImageSets"):
        hints.append(f"hint: the data set is in {root / 'ILSVRC'}")
    return hints
