"""Data in the ILSVRC DET layout, of the challenge or a user's own:

    ROOT/ImageSets/DET/<split>.txt              one picture per line: image_id index
    ROOT/Data/DET/<split>/<image_id>.JPEG       (.jpg, .png and the other suffixes of pictures will do)
    ROOT/Annotations/DET/<split>/<image_id>.xml

Lists of a part of a split (``train_15.txt``, ``val2.txt``) share the folders of the whole (``train``, ``val``).
The XML files are the subject of ``data.annotation``, the submission files that of ``data.submission``; their
names are handed out here too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .annotation import AnnotatedObject, Annotation, AnnotationError, read_annotation, write_annotation
from .boxes import clip
from .categories import Category, category_ids, det_categories
from .dataset import Dataset, Sample
from .images import IMAGE_SUFFIXES
from .submission import Submission, SubmissionError, read_submission, write_submission

__all__ = [
    "AnnotatedObject",
    "Annotation",
    "AnnotationError",
    "LayoutError",
    "Submission",
    "SubmissionError",
    "check_layout",
    "listed_pictures",
    "open_dataset",
    "picture_path",
    "read_annotation",
    "read_image_list",
    "read_submission",
    "split_folder",
    "write_annotation",
    "write_submission",
]

_PART_OF_SPLIT = re.compile(r"(train|val|test)(_.*|\d+)")
_LIST_LINE = re.compile(r"(?P<name>.+?)(?:\s+(?P<number>[+-]?\d+)(?:\s+(?:-1|0|1))?)?", re.ASCII)
# Pictures of ILSVRC train that were verified to lack a class; the challenge has no XML files for them.
_WITHOUT_XML = "ILSVRC2013_train_extra"


class LayoutError(ValueError):
    """A data set that is not laid out as expected; the message says what was expected where."""


@dataclass(frozen=True)
class _Entry:
    name: str  # as the list has it
    image_id: str  # without a suffix of pictures
    index: int
    negative: bool  # may lack its XML file: the list says -1 of it, or it is one of the extra pictures


def open_dataset(root: str | Path, split: str, categories: Sequence[Category] | None = None) -> Dataset:
    """The annotated pictures of a split, in the order of its list; each is read when it is asked for.

    Boxes are clipped to the picture: many ILSVRC files count from 0, against their own convention, and would
    reach a pixel beyond it. (An evaluation to the last digit takes ``read_annotation``.)

    Args:
        root: the folder that holds ``ImageSets``, ``Data`` and ``Annotations``.
        split: the name of a list in ``ImageSets/DET``, without ``.txt``.
        categories: the classes; by default the 200 of ILSVRC DET.

    Raises:
        LayoutError: the list or a folder is missing, the list is empty or names a picture twice.
        AnnotationError: when a sample is read: its XML file is missing or malformed, or names an unknown class.
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
            raise LayoutError(f"{list_path}: names {entry.image_id!r} twice; expected every picture once")
        seen.add(entry.image_id)
    read = partial(
        _read_sample,
        pictures=split_folder(root, "Data", split),
        annotations=split_folder(root, "Annotations", split),
        ids=category_ids(categories),
    )
    return Dataset(f"{root.resolve().name} {split}", categories, entries, read)


def check_layout(root: str | Path, split: str) -> list[str]:
    """Everything that a split lacks, one line each with the path where it was expected; empty if it is complete.

    Looks for the list, the two folders, and for the picture and the XML file of every line of the list.

    Raises:
        LayoutError: the list is there but malformed.
    """
    root = Path(root)
    missing = _missing_folders(root, split)
    if not _list_path(root, split).is_file():
        return missing + _hints(root)
    pictures, annotations = (split_folder(root, kind, split) for kind in ("Data", "Annotations"))
    for entry in _read_list(_list_path(root, split)):
        if pictures.is_dir() and not (path := picture_path(pictures, entry.name)).exists():
            missing.append(f"missing picture: {path}")
        path = annotations / f"{entry.image_id}.xml"
        if annotations.is_dir() and not entry.negative and not path.exists():
            missing.append(f"missing annotation: {path}")
    return missing


def read_image_list(path: str | Path) -> list[tuple[str, int]]:
    """Reads an image list: (image_id, index) per line. A suffix of picture files is taken off the id.

    The index is the second column, as submission files use it. Where there is no such column, or where it holds
    the marks of a class list (``train_15.txt``: 1 the class occurs, 0 in part, -1 it does not), the index is the
    number of the entry, from 1. Such a mark in a third column is ignored.

    Raises:
        LayoutError: no such file, or indices that are not positive or occur twice.
    """
    return [(entry.image_id, entry.index) for entry in _read_list(Path(path))]


def listed_pictures(path: str | Path, folder: Path) -> list[Path]:
    """The picture files that a list names, in its order, if they lie in ``folder``. They may be missing.

    Raises:
        LayoutError: as ``read_image_list``.
    """
    return [picture_path(folder, entry.name) for entry in _read_list(Path(path))]


def split_folder(root: Path, kind: str, split: str) -> Path:
    """The folder of a split: ``ROOT/<kind>/DET/<split>``, or that of the whole ("train" for "train_15").

    Args:
        kind: "Data" or "Annotations".
    """
    folder = root / kind / "DET" / split
    part = _PART_OF_SPLIT.fullmatch(split)
    return folder if part is None or folder.is_dir() else folder.with_name(part[1])


def picture_path(folder: Path, image_id: str) -> Path:
    """The file of a picture: its id with ``.JPEG``, or with another suffix of pictures where that exists.

    An id that has such a suffix already is left as it is.
    """
    if _without_suffix(image_id) != image_id:
        return folder / image_id
    expected = folder / f"{image_id}.JPEG"
    if expected.exists():
        return expected
    candidates = (folder / f"{image_id}{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in candidates if path.exists()), expected)


def _read_sample(entry: _Entry, pictures: Path, annotations: Path, ids: Mapping[str, int]) -> Sample:
    path = annotations / f"{entry.image_id}.xml"
    without_objects = entry.negative and not path.exists()
    annotation = Annotation(entry.image_id, 1, 1) if without_objects else read_annotation(path)
    return Sample(
        image_id=entry.image_id,
        index=entry.index,
        path=picture_path(pictures, entry.name),
        boxes=clip(annotation.boxes, annotation.width, annotation.height),
        labels=annotation.labels(ids),
        difficult=annotation.difficult,
        outside=annotation.outside,
        size=None if without_objects else (annotation.width, annotation.height),
    )


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
            assert match is not None  # .+? takes any line that is not empty
            names.append(match["name"])
            if match["number"] is not None:
                numbers.append((line_number, int(match["number"])))

    indices = [number for _, number in numbers]
    if len(indices) not in (0, len(names)):
        raise LayoutError(f"{path}: only some lines have an index; expected 'image_id index' in all or in none")
    are_marks = set(indices) <= {-1, 0, 1} and len(indices) != len({i for i in indices if i > 0})
    negative = [are_marks and i == -1 for i in indices] or [False] * len(names)
    if not indices or are_marks:
        indices = list(range(1, len(names) + 1))
    else:
        first: dict[int, int] = {}
        for line_number, index in numbers:
            if index < 1 or index in first:
                problem = f"that of line {first[index]} too" if index in first else "expected 1 or more"
                raise LayoutError(f"{path}, line {line_number}: the index is {index}; {problem}")
            first[index] = line_number
    return [
        _Entry(name, _without_suffix(name), index, mark or name.startswith(_WITHOUT_XML))
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
    return [f"missing {what}: {path}" for what, path, found in expected if not found]


def _hints(root: Path) -> list[str]:
    hints = []
    splits = sorted(path.stem for path in (root / "ImageSets" / "DET").glob("*.txt"))
    if splits:
        hints.append(f"hint: the splits there are {', '.join(splits[:8])}{', ...' if len(splits) > 8 else ''}")
    if (root / "ILSVRC" / "ImageSets").is_dir():
        hints.append(f"hint: the data set is in {root / 'ILSVRC'}")
    return hints
