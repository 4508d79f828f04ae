"""Reads data sets in the ILSVRC DET layout:

    ROOT/ImageSets/DET/<split>.txt              one picture per line: image_id index
    ROOT/Data/DET/<split>/<image_id>.JPEG       (or another suffix of `IMAGE_SUFFIXES`, for example .jpg or .png)
    ROOT/Annotations/DET/<split>/<image_id>.xml

The list of a part of a split (`train_15.txt`, `val2.txt`) uses the folders of the whole split (`train`, `val`). A file
`ROOT/ImageSets/DET/<split>_annotated.txt` says which classes are annotated in which pictures, see `partial`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from .annotation import read_annotation
from .categories import Category, category_ids, det_categories
from .dataset import Dataset, Sample
from .images import IMAGE_SUFFIXES
from .partial import AnnotatedClasses, read_annotated_classes

_PART_OF_SPLIT = re.compile(r"(train|val|test)(_.*|\d+)")
_LIST_LINE = re.compile(r"(?P<name>.+?)(?:\s+(?P<number>[+-]?\d+)(?:\s+(?:-1|0|1))?)?", re.ASCII)
# Pictures of ILSVRC train that were verified not to contain a class; the challenge has no XML files for them.
_EXTRA_PICTURES = "ILSVRC2013_train_extra"


class LayoutError(ValueError):
    """A data set does not have the expected layout; the message names the expected files and folders."""


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
        LayoutError: the list or a folder is missing, or the list is malformed, empty or names a picture twice.
        PartialAnnotationError: the file of annotated classes is malformed.
        AnnotationError: on access to a sample, if its XML file is missing or malformed, or contains an unknown class.
    """
    root = Path(root)
    missing = _missing_folders(root, split)
    if missing:
        raise LayoutError("\n".join([f"{root}: not a data set in the ILSVRC DET layout", *missing, *_hints(root)]))
    categories = det_categories() if categories is None else tuple(categories)
    list_path = _list_path(root, split)
    entries = _read_list(list_path)
    if not entries:
        raise LayoutError(f"{list_path}: the list is empty; expected lines 'image_id index'")
    seen: set[str] = set()
    for entry in entries:
        if entry.image_id in seen:
            raise LayoutError(f"{list_path}: names {entry.image_id!r} twice; expected each picture once")
        seen.add(entry.image_id)
    partly = list_path.with_name(f"{split}_annotated.txt")
    read = partial(
        _read_sample,
        pictures=split_folder(root, "Data", split),
        annotations=split_folder(root, "Annotations", split),
        ids=category_ids(categories),
        annotated=read_annotated_classes(partly, categories) if partly.is_file() else AnnotatedClasses(()),
    )
    return Dataset(f"{root.resolve().name} {split}", categories, entries, read)


def read_image_list(path: str | Path) -> list[tuple[str, int]]:
    """Reads an image list; returns the image_id and the index of each line.

    A picture suffix is removed from the id. The index is the number in the second column, which submission files use.
    Some lists have no second column. The lists of a class (`train_15.txt`) contain marks in the second column: 1 if the
    class occurs in the picture, 0 if it occurs partly, -1 if it does not occur. In both cases the index is the number
    of the entry, starting at 1. Marks in a third column are ignored.

    Raises:
        LayoutError: the file cannot be read, or an index is not positive or occurs twice.
    """
    return [(entry.image_id, entry.index) for entry in _read_list(Path(path))]


def listed_pictures(path: str | Path, folder: Path) -> list[Path]:
    """Returns the paths in `folder` of the pictures that a list names, in the order of the list. Files may be missing.

    Raises:
        LayoutError: see `read_image_list`.
    """
    return [picture_path(folder, entry.name) for entry in _read_list(Path(path))]


def split_folder(root: Path, kind: str, split: str) -> Path:
    """Returns the folder `ROOT/<kind>/DET/<split>`.

    If this folder does not exist and the split is a part of another split ("train_15" of "train"), returns the folder
    of the whole split.

    Args:
        kind: "Data" or "Annotations".
    """
    folder = root / kind / "DET" / split
    part = _PART_OF_SPLIT.fullmatch(split)
    return folder if part is None or folder.is_dir() else folder.with_name(part[1])


def picture_path(folder: Path, image_id: str) -> Path:
    """Returns the path of a picture.

    If `image_id` has no picture suffix, the function looks for a file with the suffix `.JPEG`, then for files with the
    other suffixes of `IMAGE_SUFFIXES`. If none of these files exists, it returns the path with `.JPEG`.
    """
    if _without_suffix(image_id) != image_id:
        return folder / image_id
    expected = folder / f"{image_id}.JPEG"
    if expected.exists():
        return expected
    candidates = (folder / f"{image_id}{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in candidates if path.exists()), expected)


def _read_sample(
    entry: _Entry, pictures: Path, annotations: Path, ids: Mapping[str, int], annotated: AnnotatedClasses
) -> Sample:
    path = annotations / f"{entry.image_id}.xml"
    annotation = None if entry.negative and not path.exists() else read_annotation(path)
    path = picture_path(pictures, entry.name)
    sample = Sample.from_annotation(entry.image_id, entry.index, path, annotation, ids)
    return replace(sample, annotated=annotated.of(entry.image_id, sample.labels.tolist()))


def _read_list(path: Path) -> list[_Entry]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path}: cannot read the image list: {error}") from error
    names: list[str] = []
    numbers: list[tuple[int, int]] = []  # (line, second column)
    for line_number, line in enumerate(lines, start=1):
        if line.strip():
            match = _LIST_LINE.fullmatch(line.strip())
            assert match is not None  # because .+? matches any line that is not empty
            names.append(match["name"])
            if match["number"] is not None:
                numbers.append((line_number, int(match["number"])))

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
        _Entry(name, _without_suffix(name), index, mark or name.startswith(_EXTRA_PICTURES))
        for name, index, mark in zip(names, indices, negative, strict=True)
    ]


def _without_suffix(image_id: str) -> str:
    stem, dot, suffix = image_id.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else image_id


def _list_path(root: Path, split: str) -> Path:
    return root / "ImageSets" / "DET" / f"{split}.txt"


def _missing_folders(root: Path, split: str) -> list[str]:
    pictures, annotations = (split_folder(root, kind, split) for kind in ("Data", "Annotations"))
    expected = [
        ("image list", _list_path(root, split), _list_path(root, split).is_file()),
        ("folder of pictures", pictures, pictures.is_dir()),
        ("folder of annotations", annotations, annotations.is_dir()),
    ]
    return [f"missing {kind}: {path}" for kind, path, found in expected if not found]


def _hints(root: Path) -> list[str]:
    hints = []
    lists = (root / "ImageSets" / "DET").glob("*.txt")
    splits = sorted(path.stem for path in lists if not path.stem.endswith("_annotated"))
    if splits:
        hints.append(f"hint: the data set has the splits {', '.join(splits[:8])}{', ...' if len(splits) > 8 else ''}")
    if (root / "ILSVRC" / "ImageSets").is_dir():
        hints.append(f"hint: the data set is in {root / 'ILSVRC'}")
    return hints
