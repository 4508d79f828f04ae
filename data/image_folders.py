"""Pictures of one thing each, in a folder for every class, as ImageNet is laid out: ROOT/<class>/<picture>."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .ilsvrc import LayoutError
from .listing import ListingError, find_images


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """N pictures and what each shows.

    Attributes:
        classes: names of the folders, in alphabetical order.
        paths: the picture files. None is opened.
        labels: int64 [N], positions in ``classes``.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)


def open_image_folders(root: str | Path, classes: Sequence[str] | None = None) -> LabelledImages:
    """The pictures in the folders of ``root``, at any depth under the folder of their class.

    Args:
        classes: those that a classifier knows already; by default the folders that are there.

    Raises:
        LayoutError: no folders, a folder without pictures, or one that is not among ``classes``.
    """
    root = Path(root)
    folders = sorted(path for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise LayoutError(f"{root}: no folders; expected one for each class, with its pictures: ROOT/<class>/<picture>")
    known = tuple(path.name for path in folders) if classes is None else tuple(classes)
    paths: list[Path] = []
    labels: list[int] = []
    for folder in folders:
        if folder.name not in known:
            raise LayoutError(f"{folder}: the class {folder.name!r} is not among the {len(known)} trained on")
        try:
            found = find_images(folder, recursive=True)
        except ListingError as error:
            raise LayoutError(f"{folder}: expected pictures of the class {folder.name!r}: {error}") from error
        paths += found
        labels += [known.index(folder.name)] * len(found)
    return LabelledImages(known, tuple(paths), np.array(labels, np.int64))
