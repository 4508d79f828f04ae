"""The ground truth for evaluation: all objects of a data set as arrays, with the exact coordinates of the files.

A `Dataset` returns pictures one by one, with float32 boxes in the program's convention. A `GroundTruth` holds all
boxes in float64, 1-based and inclusive as in ILSVRC and VOC files, because rounding would change evaluation results.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .annotation_cache import read_annotations
from .categories import Category, category_ids, det_categories
from .ilsvrc import annotation_path, listed_pictures, open_dataset, read_image_list, split_folder
from .json_values import shown
from .partial import read_annotated_classes


class GroundTruthError(ValueError):
    """The ground truth or a blacklist is invalid; the message states the expected content."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """G objects in I pictures.

    Attributes:
        name: the name to print ("ILSVRC val").
        categories: the classes that `labels` refers to.
        image_ids: names of the I pictures in the order of the image list, including pictures without objects.
        image_indices: int64 [I], unique numbers of the pictures. Detections refer to pictures by these numbers.
        images: int64 [G], the picture number of each object.
        labels: int64 [G], the `Category.id` of each object.
        inclusive: float64 [G, 4], `(xmin, ymin, xmax, ymax)`, 1-based and inclusive.
        difficult: bool [G], objects that the VOC protocols ignore.
        crowd: bool [G], boxes around groups of objects in COCO files; the VOC protocols ignore them too.
        areas: float64 [G] in square pixels: the area of the object's segment if a COCO file gives it, else of its box.
        xywh: float64 [G, 4], the boxes as in a COCO file; None for other files.
        paths: picture files by picture number; may be incomplete.
        file_names: names of the I picture files as the annotation file writes them, with "/" between folders; None if
            the pictures are known by their image ids only.
        notices: sentences about the objects that a reader of the evaluation should know.
        unannotated: pairs (picture number, class id) of classes that are not annotated in a picture, see `partial`. The
            ilsvrc protocol ignores detections of the class in the picture.
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
    file_names: tuple[str, ...] | None = field(default=None, repr=False)
    notices: tuple[str, ...] = ()
    unannotated: tuple[tuple[int, int], ...] = ()

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
        file_names: Sequence[str] | None = None,
        name: str = "ground truth",
        notices: Sequence[str] = (),
    ) -> GroundTruth:
        """Makes ground truth from arrays and checks them. The arguments are the attributes of the class.

        Args:
            image_indices: numbers of all pictures, including pictures without objects.
            images, labels, inclusive: G entries each; an empty list for no objects.
            categories: by default the 200 classes of ILSVRC DET.

        Raises:
            GroundTruthError: arrays have different lengths, a picture is listed twice, an object is in an unlisted
                picture, a class is unknown, a number or class id is not whole, a coordinate is not a finite number, or
                an area is not a finite number of at least 0.
        """
        categories = det_categories() if categories is None else tuple(categories)
        image_indices = _whole_numbers(image_indices, "image_indices", name)
        images = _whole_numbers(images, "images", name)
        labels = _whole_numbers(labels, "labels", name)
        inclusive = _boxes(inclusive)
        if not len(images) == len(labels) == len(inclusive):
            lengths = f"{len(images)} images, {len(labels)} labels and {len(inclusive)} boxes"
            raise GroundTruthError(f"{name}: expected one image, label and box for each object, got {lengths}")
        if not np.isfinite(inclusive).all():
            row = int(np.argmin(np.isfinite(inclusive).all(axis=1)))
            box = inclusive[row].tolist()
            raise GroundTruthError(f"{name}: the box of object {row} is {box}; expected finite numbers")
        values, counts = np.unique(image_indices, return_counts=True)
        if (counts > 1).any():
            raise GroundTruthError(f"{name}: picture {values[counts > 1][0]} is listed twice; expected unique numbers")
        _check_members(images, values, "is in picture {}, which is not listed", name)
        known = np.array(sorted(category.id for category in categories), dtype=np.int64)
        _check_members(labels, known, "is of class {}, which is not among the categories", name)
        width, height = (inclusive[:, 2:] - inclusive[:, :2] + 1).T
        areas = width * height if areas is None else np.asarray(areas, dtype=np.float64).reshape(-1)
        if areas.shape != labels.shape or not (np.isfinite(areas) & (areas >= 0)).all():
            raise GroundTruthError(
                f"{name}: expected an area for each of {len(labels)} objects, a number of at least 0"
            )
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
            areas=areas,
            xywh=None if xywh is None else _boxes(xywh),
            paths=paths or {},
            file_names=None if file_names is None else tuple(file_names),
            notices=tuple(notices),
        )

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.labels)

    def of_pictures(self, numbers: npt.NDArray[np.int64]) -> GroundTruth:
        """Returns the ground truth of the pictures with these numbers. Numbers that are not listed are ignored."""
        listed, objects = np.isin(self.image_indices, numbers), np.isin(self.images, numbers)
        kept = set(self.image_indices[listed].tolist())
        return replace(
            self,
            image_ids=tuple(compress(self.image_ids, listed)),
            image_indices=self.image_indices[listed],
            images=self.images[objects],
            labels=self.labels[objects],
            inclusive=self.inclusive[objects],
            difficult=self.difficult[objects],
            crowd=self.crowd[objects],
            areas=self.areas[objects],
            xywh=None if self.xywh is None else self.xywh[objects],
            file_names=None if self.file_names is None else tuple(compress(self.file_names, listed)),
            unannotated=tuple(pair for pair in self.unannotated if pair[0] in kept),
        )


def read_ground_truth(
    annotations: str | Path,
    image_list: str | Path,
    categories: Sequence[Category] | None = None,
    paths: Mapping[int, Path] | None = None,
    cache: Path | None = None,
    name: str | None = None,
) -> GroundTruth:
    """Reads the annotation files (ILSVRC or VOC form) of all pictures in an image list.

    Args:
        annotations: the folder that contains `<image_id>.xml` for every picture in the list.
        image_list: a file with lines `image_id index`, see `read_image_list`.
        categories: by default the 200 classes of ILSVRC DET. `<name>` in the files is a WNID or a name of a class.
        paths: picture files by index, if available.
        cache: folder of parsed annotations, see `annotation_cache`; None disables caching.
        name: the name to print; by default the name of the image list.

    Raises:
        LayoutError, AnnotationError: a file is missing or malformed, or a class is unknown.
        GroundTruthError: the list names a picture twice.
    """
    categories = det_categories() if categories is None else tuple(categories)
    entries = read_image_list(image_list, [Path(annotations)])
    names = [image_id for image_id, _ in entries]
    repeated = next((image_id for image_id, following in pairwise(sorted(names)) if image_id == following), None)
    if repeated is not None:
        raise GroundTruthError(f"{image_list}: names {repeated!r} twice; expected each picture once")
    parsed = read_annotations([annotation_path(Path(annotations), image_id) for image_id in names], cache)
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
    """Reads the ground truth of a split in the ILSVRC layout.

    Args:
        root, split, categories: see `ilsvrc.open_dataset`.
        cache: see `read_ground_truth`.

    Raises:
        LayoutError, AnnotationError: see `read_ground_truth`.
        PartialAnnotationError: the file of annotated classes is malformed.
    """
    root = Path(root)
    dataset = open_dataset(root, split, categories)  # raises an error if the layout is incomplete
    image_list = root / "ImageSets" / "DET" / f"{split}.txt"
    annotations, pictures = (split_folder(root, kind, split) for kind in ("Annotations", "Data"))
    truth = read_ground_truth(
        annotations,
        image_list,
        dataset.categories,
        paths={index: path for _, index, path in listed_pictures(image_list, pictures, [annotations])},
        cache=cache,
        name=dataset.name,
    )
    partly = image_list.with_name(f"{split}_annotated.txt")
    if not os.path.isfile(partly):
        return truth
    annotated = read_annotated_classes(partly, dataset.categories)
    labels: dict[int, set[int]] = {index: set() for index in truth.image_indices.tolist()}
    for index, label in zip(truth.images.tolist(), truth.labels.tolist(), strict=True):
        labels[index].add(label)
    unannotated = []
    for image_id, (index, own) in zip(truth.image_ids, labels.items(), strict=True):
        known = annotated.of(image_id, own)
        if known is not None:
            unannotated += [(index, category.id) for category in dataset.categories if category.id not in known]
    return replace(truth, unannotated=tuple(unannotated))


def read_blacklist(path: str | Path, categories: Sequence[Category] | None = None) -> list[tuple[int, int]]:
    """Reads a blacklist: lines `image_index wnid`.

    The evaluation ignores the objects and detections of this class in this picture.

    Returns:
        The pairs (image_index, label).

    Raises:
        GroundTruthError: the file cannot be read, a line is malformed, or a class is not in `categories`.
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
        if len(fields[0]) > 15 or int(fields[0]) < 1:
            raise GroundTruthError(f"{where}: the index is {fields[0][:80]}; expected from 1 to 15 digits, at least 1")
        if (wnid := fields[1].strip()) not in ids:
            raise GroundTruthError(f"{where}: the class {shown(wnid)} is not in the class list")
        pairs.append((int(fields[0]), ids[wnid]))
    return pairs


def _boxes(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(boxes, dtype=np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise GroundTruthError(f"expected boxes [G, 4], got an array of shape {list(array.shape)}")
    return array


def _whole_numbers(numbers: npt.ArrayLike, field_name: str, name: str) -> npt.NDArray[np.int64]:
    array = np.asarray(numbers)
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    whole = array.astype(np.int64) if array.dtype.kind in "iuf" else None
    if whole is None or (array.dtype.kind == "f" and (np.abs(array) >= 2**53).any()) or (whole != array).any():
        raise GroundTruthError(f"{name}: {field_name}: expected whole numbers of 64 bits")
    return whole.reshape(-1)


def _flags(flags: npt.ArrayLike | None, count: int) -> npt.NDArray[np.bool_]:
    return np.zeros(count, dtype=np.bool_) if flags is None else np.asarray(flags, dtype=np.bool_).reshape(count)


def _check_members(values: npt.NDArray[np.int64], known: npt.NDArray[np.int64], problem: str, name: str) -> None:
    """Raises a GroundTruthError unless every value is in `known`."""
    unknown = ~np.isin(values, known)
    if unknown.any():
        row = int(np.argmax(unknown))
        raise GroundTruthError(f"{name}: object {row} {problem.format(values[row])}")
