"""Detects the layout of a data set (ILSVRC DET, PASCAL VOC or COCO) and opens it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import coco, ilsvrc, voc
from .categories import Category
from .dataset import Dataset
from .ilsvrc import LayoutError

EXPECTED = """expected one of
  ILSVRC DET:   ImageSets/DET/SPLIT.txt, Data/DET/SPLIT/, Annotations/DET/SPLIT/*.xml
  PASCAL VOC:   ImageSets/Main/SPLIT.txt, JPEGImages/, Annotations/*.xml
  VOC's files:  pictures in the folder, in JPEGImages/ or in images/, and for each picture an XML file of the same name
                beside it or in Annotations/
  COCO:         an annotation file (.json), or a folder with annotations/*SPLIT*.json"""


def open_dataset(
    root: str | Path,
    split: str | None = None,
    categories: Sequence[Category] | None = None,
    default_splits: Sequence[str] = ("train", "trainval"),
) -> Dataset:
    """Opens a data set; detects its layout.

    Args:
        root: the folder of the data set, or a COCO annotation file. `EXPECTED` describes the layouts.
        split: the name of an image list. Folders without image lists and single annotation files have no splits.
        categories: the classes. The default in the ILSVRC layout is the 200 classes of ILSVRC DET, in other layouts
            the classes of the data set.
        default_splits: if `split` is None, the VOC layout uses the first of these lists that exists. The other layouts
            use the first name.

    Raises:
        LayoutError: the folder has none of the layouts, or a part of the layout is missing.
        CocoError, AnnotationError: a file is malformed.
    """
    root = Path(root)
    if root.is_file():
        if split is not None:
            raise LayoutError(f"{root}: an annotation file has no splits, got the split {split!r}")
        return _open_coco(root, None, categories)
    if not root.is_dir():
        raise LayoutError(f"{root}: no such file or folder; {EXPECTED}")
    if voc.is_voc(root):
        split = split or _default_split(root / "ImageSets" / "Main", default_splits)
        return voc.open_dataset(root, split, categories or voc.own_categories(root, split))
    if (root / "ImageSets").is_dir():
        return ilsvrc.open_dataset(root, split or default_splits[0], categories)
    files = sorted((root / "annotations").glob("*.json")) or sorted(root.glob("*.json"))
    if files:
        return _open_coco(_annotation_file(files, split or default_splits[0]), root, categories)
    if voc.is_annotated_folder(root):
        if split is not None:
            raise LayoutError(f"{root}: has no image lists (ImageSets/Main), so it has no split {split!r}")
        return voc.open_folder(root, categories)
    nested = next((path for path in (*root.glob("*"), *root.glob("*/*")) if (path / "ImageSets").is_dir()), None)
    hint = f"\nhint: {nested} contains a data set" if nested else ""
    raise LayoutError(f"{root}: not a data set; {EXPECTED}{hint}")


def open_validation(
    root: str | Path, split: str | None, categories: Sequence[Category] | None, trained: Dataset
) -> Dataset | None:
    """Opens the validation set that belongs to a training set.

    Args:
        root, categories: see `open_dataset`.
        split: the name of the validation set; None for "val" if the data set has this split.
        trained: the training set. If a COCO folder has only one annotation file, this file is the training set and
            there is no validation set.

    Returns:
        The validation set; None if `split` is None and the data set has no split "val".

    Raises:
        LayoutError, CocoError, AnnotationError: see `open_dataset`. If `split` is None, LayoutError and CocoError
            count as a missing split.
    """
    if split is not None:
        return open_dataset(root, split, categories)
    try:
        found = open_dataset(root, "val", categories)
    except (coco.CocoError, LayoutError):
        return None
    return None if found.name == trained.name else found


def _default_split(lists: Path, wanted: Sequence[str]) -> str:
    for name in wanted:
        if (lists / f"{name}.txt").is_file():
            return name
    there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:12])
    raise LayoutError(f"{lists}: the list {wanted[0]}.txt does not exist; existing lists: {there or 'none'}")


def _annotation_file(files: Sequence[Path], split: str) -> Path:
    """Finds the annotation file of a split. Files named "instances*" have priority; a single file serves all splits."""
    if len(files) == 1:
        return files[0]
    named = [path for path in files if split in path.stem]
    named = [path for path in named if path.stem.startswith("instances")] or named
    if len(named) == 1:
        return named[0]
    shown = ", ".join(path.name for path in named or files)
    raise LayoutError(
        f"{files[0].parent}: expected one annotation file with {split!r} in its name, found {len(named)} ({shown}); "
        "give the path of the file"
    )


def _open_coco(file: Path, root: Path | None, categories: Sequence[Category] | None) -> Dataset:
    if categories is not None:
        raise LayoutError(f"{file}: a COCO file contains its classes; omit the class list")
    top = root or (file.parent.parent if file.parent.name == "annotations" else file.parent)
    suffix = file.stem.removeprefix("instances_")
    folders = (file.parent, top, top / "images", top / suffix, top / "images" / suffix)
    dataset = coco.open_dataset(file, file.parent)
    if not len(dataset):
        raise LayoutError(f"{file}: the file lists no pictures")
    first = dataset[0].path
    name = first.relative_to(file.parent) if first.is_relative_to(file.parent) else first
    for folder in folders:
        if (folder / name).is_file():
            return dataset if folder == file.parent else coco.open_dataset(file, folder)
    searched = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise LayoutError(f"{file}: the first picture, {name}, is in none of the folders {searched}")
