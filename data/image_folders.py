"""Reads data sets for image classification in the layout of ImageNet: ROOT/<class>/<picture>."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .ilsvrc import LayoutError
from .listing import ListingError, find_images


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """N pictures and their classes.

    Attributes:
        classes: names of the classes.
        paths: the N picture files.
        labels: int64 [N], position of each picture's class in `classes`.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)


def open_image_folders(root: str | Path, classes: Sequence[str] | None = None) -> LabelledImages:
    """Lists the pictures in the class folders of `root` and in all their sub-folders. Does not open the pictures.

    Args:
        classes: the classes of an existing classifier; by default the names of the folders in alphabetical order.

    Raises:
        LayoutError: `root` contains no folders, a folder contains no pictures, or a folder's name is not in `classes`.
    """
    root = Path(root)
    entries = root.glob("*") if os.path.isdir(root) else ()
    folders = sorted(path for path in entries if os.path.isdir(path) and not path.name.startswith("."))
    if not folders:
        raise LayoutError(f"{root}: contains no folders; expected one for each class: ROOT/<class>/<picture>")
    known = tuple(path.name for path in folders) if classes is None else tuple(classes)
    paths: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        if folder.name not in known:
            raise LayoutError(f"{folder}: {folder.name!r} is not among the {len(known)} classes of the classifier")
        try:
            found = find_images(folder, recursive=True)
        except ListingError as error:
            raise LayoutError(f"{folder}: expected pictures of the class {folder.name!r}: {error}") from error
        paths += found
        labels += [known.index(folder.name)] * len(found)
    return LabelledImages(known, tuple(paths), np.array(labels, np.int64))
