"""The objects of a data set as arrays, in the numbers of the files: what evaluations to the last digit start from.

``Dataset`` hands out pictures one by one in float32 and the program's box convention; here all objects lie side by
side in float64, 1-based and inclusive as ILSVRC and VOC files have them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .annotation_cache import read_annotations
from .categories import Category, category_ids, det_categories
from .ilsvrc import open_dataset, picture_path, read_image_list, split_folder


class GroundTruthError(ValueError):
    """Objects that cannot be evaluated against; the message says what was expected."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """G objects in I pictures.

    Attributes:
        name: for people ("ILSVRC val").
        categories: the classes that ``labels`` belong to.
        image_ids: names of the pictures, in the order of the list; pictures without objects are among them.
        image_indices: int64 [I], the numbers by which detections name the pictures, all different.
        images: int64 [G], of each object the number of its picture.
        labels: int64 [G], each a ``Category.id``.
        inclusive: float64 [G, 4], ``(xmin, ymin, xmax, ymax)``, 1-based and inclusive.
        difficult: bool [G], objects that the VOC protocols leave out.
        crowd: bool [G], regions of many objects in COCO files; the VOC protocols leave them out too.
        areas: float64 [G] in square pixels, of the object's outline where a COCO file says it, else of its box.
        xywh: float64 [G, 4], boxes as a COCO file has them, else None.
        paths: the picture files by the number of the picture, as far as they are known. Not opened.
    """

    name: str
    categories: tuple[Category, ...]
    image_ids: tuple[str, ...]
    image_indices: npt.NDArray[np.int64]
    images: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    inclusive: npt.NDArray[np.float64]
    difficult: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]
    xywh: npt.NDArray[np.float64] | None = None
    paths: Mapping[int, Path] = field(default_factory=dict, repr=False)

    @classmethod
    def from_arrays(
        cls,
        image_indices: npt.ArrayLike,
        images: npt.ArrayLike,
        labels: npt.ArrayLike,
        inclusive: npt.ArrayLike,
        *,
        difficult: npt.ArrayLike | None = None,
        crowd: npt.ArrayLike | None = None,
        areas: npt.ArrayLike | None = None,
        xywh: npt.ArrayLike | None = None,
        categories: Sequence[Category] | None = None,
        image_ids: Sequence[str] | None = None,
        paths: Mapping[int, Path] | None = None,
        name: str = "ground truth",
    ) -> GroundTruth:
        """Ground truth without files: the attributes of the class, checked; an empty list will do for no objects.

        Args:
            image_indices: the numbers of all pictures, of those without objects too.
            categories: by default the 200 of ILSVRC DET.

        Raises:
            GroundTruthError: arrays that do not fit together, a picture listed twice, an object in a picture that is
                not listed, an unknown class, or a coordinate that is not a finite number.
        """
        categories = det_categories() if categories is None else tuple(categories)
        image_indices = np.asarray(image_indices, dtype=np.int64).reshape(-1)
        images = np.asarray(images, dtype=np.int64).reshape(-1)
        labels = np.asarray(labels, dtype=np.int64).reshape(-1)
        inclusive = _boxes(inclusive)
        if not len(images) == len(labels) == len(inclusive):
            lengths = f"{len(images)} images, {len(labels)} labels and {len(inclusive)} boxes"
            raise GroundTruthError(f"{name}: expected one image, label and box for each object, got {lengths}")
        if not np.isfinite(inclusive).all():
            row = int(np.argmin(np.isfinite(inclusive).all(axis=1)))
            raise GroundTruthError(f"{name}: the box of object {row} is {inclusive[row].tolist()}; expected numbers")
        values, counts = np.unique(image_indices, return_counts=True)
        if (counts > 1).any():
            raise GroundTruthError(f"{name}: picture {values[counts > 1][0]} is listed twice; expected every one once")
        _check_members(images, values, "is in picture {}, which is not listed", name)
        known = np.array(sorted(one.id for one in categories), dtype=np.int64)
        _check_members(labels, known, "is of class {}, which is not among the categories", name)
        width, height = (inclusive[:, 2:] - inclusive[:, :2] + 1).T
        return cls(
            name=name,
            categories=categories,
            image_ids=tuple(map(str, image_indices.tolist())) if image_ids is None else tuple(image_ids),
            image_indices=image_indices,
            images=images,
            labels=labels,
            inclusive=inclusive,
            difficult=_flags(difficult, len(labels)),
            crowd=_flags(crowd, len(labels)),
            areas=width * height if areas is None else np.asarray(areas, dtype=np.float64).reshape(-1),
            xywh=None if xywh is None else _boxes(xywh),
            paths=paths or {},
        )

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.labels)


def read_ground_truth(
    annotations: str | Path,
    image_list: str | Path,
    categories: Sequence[Category] | None = None,
    paths: Mapping[int, Path] | None = None,
    cache: Path | None = None,
    name: str | None = None,
) -> GroundTruth:
    """The objects that the XML files of a folder (``ILSVRC`` or VOC form) name, for the pictures of a list.

    Args:
        annotations: the folder; it holds ``<image_id>.xml`` for every picture of the list.
        image_list: lines ``image_id index``, see ``read_image_list``.
        categories: by default the 200 of ILSVRC DET. ``<name>`` in the files is a WNID or a name of them.
        paths: the picture files by index, if they are at hand.
        cache: folder of parsed annotations, see ``annotation_cache``; None parses anew.
        name: for people; by default the name of the list.

    Raises:
        LayoutError, AnnotationError: a file that is missing or malformed, a class that is unknown.
        GroundTruthError: the list names a picture twice.
    """
    categories = det_categories() if categories is None else tuple(categories)
    entries = read_image_list(image_list)
    names = [image_id for image_id, _ in entries]
    repeated = next((one for one, two in pairwise(sorted(names)) if one == two), None)
    if repeated is not None:
        raise GroundTruthError(f"{image_list}: names {repeated!r} twice; expected every picture once")
    parsed = read_annotations([Path(annotations) / f"{image_id}.xml" for image_id in names], cache)
    indices = np.array([index for _, index in entries], dtype=np.int64)
    return GroundTruth.from_arrays(
        indices,
        indices[parsed.files],
        parsed.labels(category_ids(categories)),
        parsed.inclusive,
        difficult=parsed.difficult,
        categories=categories,
        image_ids=names,
        paths=paths,
        name=name or Path(image_list).stem,
    )


def read_ilsvrc_ground_truth(
    root: str | Path, split: str, categories: Sequence[Category] | None = None, cache: Path | None = None
) -> GroundTruth:
    """The objects of a split in the ILSVRC layout; arguments as ``open_dataset``, errors as ``read_ground_truth``."""
    root = Path(root)
    dataset = open_dataset(root, split, categories)  # says what is missing
    image_list = root / "ImageSets" / "DET" / f"{split}.txt"
    pictures = split_folder(root, "Data", split)
    return read_ground_truth(
        split_folder(root, "Annotations", split),
        image_list,
        dataset.categories,
        paths={index: picture_path(pictures, image_id) for image_id, index in read_image_list(image_list)},
        cache=cache,
        name=dataset.name,
    )


def read_blacklist(path: str | Path, categories: Sequence[Category] | None = None) -> list[tuple[int, int]]:
    """Reads a blacklist: lines ``image_index wnid``, pairs that count neither way -> [(image_index, label)].

    Raises:
        GroundTruthError: no such file, a line of another form, or a class that is not among the categories.
    """
    path = Path(path)
    ids = category_ids(det_categories() if categories is None else categories)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GroundTruthError(f"{path}: cannot read the blacklist: {error}") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        fields = line.split(maxsplit=1)
        if not fields:
            continue
        where = f"{path}, line {number}"
        if len(fields) != 2 or not (fields[0].isascii() and fields[0].isdigit()):
            raise GroundTruthError(f"{where}: expected 'image_index wnid', got {line.strip()[:80]!r}")
        if (wnid := fields[1].strip()) not in ids:
            raise GroundTruthError(f"{where}: the class {wnid!r} is not in the class list")
        pairs.append((int(fields[0]), ids[wnid]))
    return pairs


def _boxes(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(boxes, dtype=np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise GroundTruthError(f"expected boxes [G, 4], got the shape {list(array.shape)}")
    return array


def _flags(flags: npt.ArrayLike | None, count: int) -> npt.NDArray[np.bool_]:
    return np.zeros(count, dtype=np.bool_) if flags is None else np.asarray(flags, dtype=np.bool_).reshape(count)


def _check_members(values: npt.NDArray[np.int64], known: npt.NDArray[np.int64], problem: str, name: str) -> None:
    """Raises unless every value is known."""
    unknown = ~np.isin(values, known)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise GroundTruthError(f"{name}: object {row} {problem.format(values[row])}")
