"""Data in the PASCAL VOC layout:

    ROOT/ImageSets/Main/<split>.txt         one image_id per line
    ROOT/JPEGImages/<image_id>.jpg
    ROOT/Annotations/<image_id>.xml

The XML files are those of ``data.annotation``; ``<difficult>`` is respected.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .boxes import clip
from .categories import Category, category_ids
from .dataset import Dataset, Sample
from .ground_truth import GroundTruth, read_ground_truth
from .ilsvrc import LayoutError, picture_path, read_annotation, read_image_list

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)


def voc_categories() -> tuple[Category, ...]:
    """The 20 classes of PASCAL VOC in alphabetical order, ids 1..20; their "WNIDs" are their names."""
    return tuple(Category(number, name, name) for number, name in enumerate(_NAMES.split(), start=1))


def is_voc(root: str | Path) -> bool:
    """Whether a folder is laid out as VOC has it."""
    return (Path(root) / "ImageSets" / "Main").is_dir()


def open_dataset(root: str | Path, split: str, categories: Sequence[Category] | None = None) -> Dataset:
    """The annotated pictures of a split, in the order of its list; each is read when it is asked for.

    Args:
        root: the folder that holds ``ImageSets``, ``JPEGImages`` and ``Annotations`` (``VOCdevkit/VOC2012``).
        split: the name of a list in ``ImageSets/Main``, without ``.txt``.
        categories: by default the 20 classes of VOC.

    Raises:
        LayoutError: the list or a folder is missing, or the list is malformed.
        AnnotationError: when a sample is read: its XML file is missing or malformed, or names an unknown class.
    """
    root = Path(root)
    categories = voc_categories() if categories is None else tuple(categories)
    entries = read_image_list(_list_path(root, split))
    read = partial(_read_sample, root=root, ids=category_ids(categories))
    return Dataset(f"{root.resolve().name} {split}", categories, entries, read)


def read_voc_ground_truth(
    root: str | Path, split: str, categories: Sequence[Category] | None = None, cache: Path | None = None
) -> GroundTruth:
    """The objects of a split for evaluation; arguments and errors as ``open_dataset`` and ``read_ground_truth``."""
    root = Path(root)
    entries = read_image_list(_list_path(root, split))
    return read_ground_truth(
        root / "Annotations",
        _list_path(root, split),
        voc_categories() if categories is None else categories,
        paths={index: picture_path(root / "JPEGImages", image_id) for image_id, index in entries},
        cache=cache,
        name=f"{root.resolve().name} {split}",
    )


def _list_path(root: Path, split: str) -> Path:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    folders = [root / "Annotations", root / "JPEGImages"]
    missing = [f"missing folder: {one}" for one in folders if not one.is_dir()]
    missing += [] if path.is_file() else [f"missing image list: {path}"]
    if missing:
        raise LayoutError("\n".join([f"{root}: not a data set in the PASCAL VOC layout", *missing]))
    return path


def _read_sample(entry: tuple[str, int], root: Path, ids: dict[str, int]) -> Sample:
    image_id, index = entry
    annotation = read_annotation(root / "Annotations" / f"{image_id}.xml")
    return Sample(
        image_id=image_id,
        index=index,
        path=picture_path(root / "JPEGImages", image_id),
        boxes=clip(annotation.boxes, annotation.width, annotation.height),
        labels=annotation.labels(ids),
        difficult=annotation.difficult,
    )
