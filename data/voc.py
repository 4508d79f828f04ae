"""Reads data sets in the PASCAL VOC layout:

    ROOT/ImageSets/Main/<split>.txt         one image_id per line
    ROOT/JPEGImages/<image_id>.jpg
    ROOT/Annotations/<image_id>.xml

`open_folder` reads data sets without image lists: a folder of pictures and XML files of the same names. The
format of the XML files is described in `data.annotation`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from .annotation import read_annotation
from .annotation_cache import read_annotations
from .categories import Category, category_ids
from .dataset import Dataset, Sample
from .ground_truth import GroundTruth, read_ground_truth
from .ilsvrc import LayoutError, annotation_path, listed_pictures, refuse_repeated_names
from .images import IMAGE_SUFFIXES
from .listing import visible_files

_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
)


def voc_categories() -> tuple[Category, ...]:
    """Returns the 20 classes of PASCAL VOC in alphabetical order, ids 1..20. Their names are also their WNIDs."""
    return tuple(Category(number, name, name) for number, name in enumerate(_NAMES.split(), start=1))


def is_voc(root: str | Path) -> bool:
    """Whether a folder has the VOC layout, with image lists."""
    return os.path.isdir(Path(root) / "ImageSets" / "Main")


def open_dataset(root: str | Path, split: str, categories: Sequence[Category] | None = None) -> Dataset:
    """Opens a split; its samples have the order of the image list and are read on first access.

    Args:
        root: the folder that contains `ImageSets`, `JPEGImages` and `Annotations` (`VOCdevkit/VOC2012`).
        split: the name of a list in `ImageSets/Main`, without `.txt`.
        categories: by default the 20 classes of VOC.

    Raises:
        LayoutError: the list or a folder is missing, or the list is malformed or names a picture twice.
        AnnotationError: on access to a sample, if its XML file is missing or malformed, or contains an unknown class.
    """
    root = Path(root)
    categories = voc_categories() if categories is None else tuple(categories)
    records = [
        (image_id, index, path, annotation_path(root / "Annotations", image_id))
        for image_id, index, path in _read_split(root, split)
    ]
    return Dataset(
        f"{root.resolve().name} {split}", categories, records, partial(_read_sample, ids=category_ids(categories))
    )


def own_categories(root: str | Path, split: str, cache: Path | None = None) -> tuple[Category, ...]:
    """Returns the classes that occur in the annotations of a split, in alphabetical order, ids from 1.

    Args:
        cache: see `ground_truth.read_ground_truth`.

    Raises:
        LayoutError: see `open_dataset`.
        AnnotationError: an XML file is missing or malformed.
    """
    root = Path(root)
    entries = _read_split(root, split)
    return _occurring_classes([annotation_path(root / "Annotations", image_id) for image_id, _, _ in entries], cache)


def open_folder(root: str | Path, categories: Sequence[Category] | None = None) -> Dataset:
    """Opens a folder of pictures and XML files of the same names; the samples are sorted by name.

    The pictures are in `ROOT/JPEGImages`, `ROOT/images` or `ROOT`. The XML files are in `ROOT/Annotations`,
    `ROOT/annotations` or beside the pictures.

    Args:
        categories: by default the classes that occur in the annotations, in alphabetical order.

    Raises:
        LayoutError: a picture has no annotation, an annotation has no picture, or two pictures have the same name.
        AnnotationError: an XML file is malformed; or, on access to a sample, a class is unknown.
    """
    root = Path(root)
    pictures, annotations = _annotated_folders(root)
    by_name: dict[str, Path] = {}
    files = {path.stem: path for path in visible_files(annotations, {".xml"})}
    for path in visible_files(pictures, IMAGE_SUFFIXES):
        name = path.name if path.name in files else path.stem  # some tools write a.jpg.xml
        if name in by_name:
            raise LayoutError(f"{path} and {by_name[name].name} have the same name; expected one picture per XML file")
        by_name[name] = path
    _check_pairs(root, by_name, files)
    if categories is None:
        categories = _occurring_classes(list(files.values()))
    records = [(name, index, path, files[name]) for index, (name, path) in enumerate(by_name.items(), start=1)]
    return Dataset(root.resolve().name, categories, records, partial(_read_sample, ids=category_ids(categories)))


def is_annotated_folder(root: str | Path) -> bool:
    """Whether a folder contains pictures and XML files where `open_folder` expects them, whether or not names match."""
    pictures, annotations = _annotated_folders(Path(root))
    return bool(visible_files(pictures, IMAGE_SUFFIXES) and visible_files(annotations, {".xml"}))


def read_voc_ground_truth(
    root: str | Path, split: str, categories: Sequence[Category] | None = None, cache: Path | None = None
) -> GroundTruth:
    """Reads the ground truth of a split.

    Args:
        root, split: see `open_dataset`.
        categories: by default the 20 classes of VOC; if others occur in the split, its own classes.
        cache: see `ground_truth.read_ground_truth`.

    Raises:
        LayoutError, AnnotationError, GroundTruthError: see `ground_truth.read_ground_truth`.
    """
    root = Path(root)
    if categories is None:
        own = own_categories(root, split, cache)
        known = {category.name for category in voc_categories()}
        categories = voc_categories() if known.issuperset(category.name for category in own) else own
    return read_ground_truth(
        root / "Annotations",
        _list_path(root, split),
        categories,
        paths={index: path for _, index, path in _read_split(root, split)},
        cache=cache,
        name=f"{root.resolve().name} {split}",
    )


def _read_split(root: Path, split: str) -> list[tuple[str, int, Path]]:
    """Returns the image id, the index and the path of each picture in the list of a split."""
    path = _list_path(root, split)
    pictures = listed_pictures(path, root / "JPEGImages", [root / "Annotations"])
    refuse_repeated_names(path, [image_id for image_id, _, _ in pictures])
    return pictures


def _list_path(root: Path, split: str) -> Path:
    path = root / "ImageSets" / "Main" / f"{split}.txt"
    folders = [root / "Annotations", root / "JPEGImages"]
    missing = [f"missing folder: {folder}" for folder in folders if not os.path.isdir(folder)]
    missing += [] if os.path.isfile(path) else [f"missing image list: {path}"]
    if missing:
        raise LayoutError("\n".join([f"{root}: not a data set in the PASCAL VOC layout", *missing]))
    return path


def _annotated_folders(root: Path) -> tuple[Path, Path]:
    """Returns the folder of the pictures and the folder of the XML files of a data set without image lists."""
    pictures = next((root / name for name in ("JPEGImages", "images") if os.path.isdir(root / name)), root)
    annotations = next((root / name for name in ("Annotations", "annotations") if os.path.isdir(root / name)), pictures)
    return pictures, annotations


def _check_pairs(root: Path, pictures: Mapping[str, Path], annotations: Mapping[str, Path]) -> None:
    """Raises a LayoutError unless every picture has an annotation and every annotation has a picture."""
    for problem, files, partners in (
        ("pictures have no annotation", pictures, annotations),
        ("annotations have no picture", annotations, pictures),
    ):
        alone = [path.name for name, path in files.items() if name not in partners]
        if alone:
            shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            raise LayoutError(
                f"{root}: {len(alone)} of {len(files)} {problem} of the same name: {shown}. Remove these files or add "
                "the missing files; the XML file of a picture without objects has no <object>"
            )


def _occurring_classes(annotations: Sequence[Path], cache: Path | None = None) -> tuple[Category, ...]:
    names = read_annotations(annotations, cache).names.tolist()
    return tuple(Category(number, name, name) for number, name in enumerate(sorted(names), start=1))


def _read_sample(record: tuple[str, int, Path, Path], ids: Mapping[str, int]) -> Sample:
    image_id, index, path, xml = record
    return Sample.from_annotation(image_id, index, path, read_annotation(xml), ids)
