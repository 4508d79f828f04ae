"""The right classes of pictures: a file of labels, or folders that are named after classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

from .categories import Category
from .classifier_classes import class_positions
from .images import without_suffix
from .json_values import shown


class LabelError(ValueError):
    """Labels cannot be used; the message names the file and the line."""


def read_labels(file: str | Path, pictures: Sequence[str | Path], classes: Sequence[Category]) -> list[int | None]:
    """Reads the classes of pictures from a file of labels (UTF-8).

    A line holds the name of a picture and a class: "ILSVRC2012_val_00000006 n01735189". The class is a WNID or a name.
    A tab, or else the last blank, separates them. The name may lack its picture suffix. It may have folders before it,
    which then belong to the picture's path. Lines of other pictures are ignored, but their class must exist too.

    Args:
        pictures: paths or URLs.
        classes: the classes that a classifier tells apart.

    Returns:
        For each picture the position of its class in `classes`; None if no line names the picture.

    Raises:
        LabelError: the file cannot be read; a line is malformed, names an unknown class or a name of two classes, or a
            picture that another line gives another class; a line names two pictures; no line names a picture.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")  # names need not be UTF-8
    except OSError as error:
        raise LabelError(f"{file}: cannot read the labels: {error.strerror or error}") from error
    positions = class_positions(classes)
    labels: dict[str, tuple[int, int]] = {}  # the class and the number of the line
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.strip().rsplit("\t" if "\t" in line.strip() else None, 1)
        if not fields:
            continue
        if len(fields) == 1:
            raise LabelError(
                f"{file}, line {number}: expected the name of a picture and a WNID, separated by a blank or a tab, got "
                f"{shown(line)}"
            )
        name, label = PurePath(fields[0].strip()).as_posix(), fields[1].strip()
        if label not in positions:
            raise LabelError(
                f"{file}, line {number}: {shown(label)} is not the WNID, or the name, of one of the model's "
                f"{len(classes)} classes"
            )
        known = labels.setdefault(name, (positions[label], number))
        if known[0] != positions[label]:
            raise LabelError(f"{file}, line {number}: line {known[1]} gives {shown(name)} another class")
    found = [_line_of(picture, labels) for picture in pictures]
    if not any(found):
        raise LabelError(f"{file}: none of its {len(labels)} names is the name of one of the {len(pictures)} pictures")
    picture_of: dict[int, str | Path] = {}
    for picture, entry in zip(pictures, found, strict=True):
        if entry is not None and picture_of.setdefault(entry[1], picture) != picture:
            raise LabelError(
                f"{file}, line {entry[1]}: two pictures have this name, {picture_of[entry[1]]} and {picture}; write "
                "their folders before the names"
            )
    return [None if entry is None else entry[0] for entry in found]


def labels_of_folders(
    pictures: Sequence[str | Path], inputs: Sequence[str | Path], classes: Sequence[Category]
) -> tuple[list[int | None], set[str]]:
    """The classes that folders give to pictures: ROOT/<class>/<picture>, as in ImageNet.

    Args:
        pictures: paths or URLs.
        inputs: what the user named. The folder of a picture is the first folder below an input that is a folder. For
            other pictures it is the folder that the picture is in.
        classes: the classes that a classifier tells apart. A folder has the WNID or the name of a class.

    Returns:
        For each picture the position of its class in `classes`, or None, and the folders that no class has the name of.
    """
    positions = class_positions(classes)
    roots = [Path(name) for name in inputs if os.path.isdir(name)]
    labels: list[int | None] = []
    unknown: set[str] = set()
    for picture in pictures:
        folder = _class_folder(PurePath(picture), roots)
        labels.append(positions.get(folder))
        if folder not in positions:
            unknown.add(folder)
    return labels, unknown


def _line_of(picture: str | Path, labels: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """The label of a picture: that of the longest end of its path, with or without suffix, that the labels have."""
    parts = PurePath(picture).parts
    for start in range(len(parts)):
        name = PurePath(*parts[start:]).as_posix()
        for written in (name, without_suffix(name)):
            if written in labels:
                return labels[written]
    return None


def _class_folder(picture: PurePath, roots: Sequence[Path]) -> str:
    for root in roots:
        if picture.is_relative_to(root) and len(below := picture.relative_to(root).parts) > 1:
            return below[0]
    return picture.parent.name
