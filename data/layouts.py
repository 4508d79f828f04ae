"""Annotated pictures in whichever of the known layouts they lie."""

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
  VOC's files:  pictures (here, or in JPEGImages/ or images/), and for each an XML file of the same name, beside it or
                in Annotations/
  COCO:         the annotation file itself (.json), or a folder with annotations/*SPLIT*.json"""


def open_dataset(
    root: str | Path,
    split: str | None = None,
    categories: Sequence[Category] | None = None,
    default_splits: Sequence[str] = ("train", "trainval"),
) -> Dataset:
    """The annotated pictures of a data set in the ILSVRC, VOC or COCO layout, which is found out.

    Args:
        root: its folder, or a COCO annotation file. ``EXPECTED`` says what is looked for, in this order.
        split: the list of pictures. Folders without lists and annotation files have none.
        categories: the classes. By default the 200 of ILSVRC DET in its layout; in the others those that the data set
            has.
        default_splits: without `split`, the first of these that is there.

    Raises:
        LayoutError: none of the layouts, or one of them in part; CocoError, AnnotationError: a malformed file.
    """
    root = Path(root)
    if root.is_file():
        if split is not None:
            raise LayoutError(f"{root}: an annotation file has no splits; got {split!r}")
        return _coco(root, None, categories)
    if not root.is_dir():
        raise LayoutError(f"{root}: there is no such folder; {EXPECTED}")
    if voc.is_voc(root):
        split = split or _default_split(root / "ImageSets" / "Main", default_splits)
        return voc.open_dataset(root, split, categories or voc.own_categories(root, split))
    if (root / "ImageSets").is_dir():
        return ilsvrc.open_dataset(root, split or default_splits[0], categories)
    files = sorted((root / "annotations").glob("*.json")) or sorted(root.glob("*.json"))
    if files:
        return _coco(_of_split(files, split or default_splits[0]), root, categories)
    if voc.is_annotated_folder(root):
        if split is not None:
            raise LayoutError(f"{root}: has no lists of pictures (ImageSets/Main), so no split {split!r}")
        return voc.open_folder(root, categories)
    nested = next((path for path in (*root.glob("*"), *root.glob("*/*")) if (path / "ImageSets").is_dir()), None)
    hint = f"\nhint: there is a data set in {nested}" if nested else ""
    raise LayoutError(f"{root}: not a data set; {EXPECTED}{hint}")


def open_validation(
    root: str | Path, split: str | None, categories: Sequence[Category] | None, trained: Dataset
) -> Dataset | None:
    """The annotated pictures to measure on: those of `split`, or by default of val.

    Args:
        root, split, categories: as in `open_dataset`.
        trained: what is trained on. A COCO folder with one annotation file has no other val than that.

    Returns:
        None where `split` is None and there is no val.

    Raises:
        as `open_dataset`, where `split` is named.
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
    raise LayoutError(f"{lists}: there is no list {wanted[0]}.txt; name one of those there: {there or 'none'}")


def _of_split(files: Sequence[Path], split: str) -> Path:
    """The annotation file of a split: the only one, or that of objects ("instances") with the split in its name."""
    if len(files) == 1:
        return files[0]
    named = [path for path in files if split in path.stem]
    named = [path for path in named if path.stem.startswith("instances")] or named
    if len(named) == 1:
        return named[0]
    shown = ", ".join(path.name for path in named or files)
    raise LayoutError(
        f"{files[0].parent}: {len(named)} annotation files have {split!r} in their name ({shown}); name the file itself"
    )


def _coco(file: Path, root: Path | None, categories: Sequence[Category] | None) -> Dataset:
    if categories is not None:
        raise LayoutError(f"{file}: a COCO file names its classes itself; leave the class list out")
    top = root or (file.parent.parent if file.parent.name == "annotations" else file.parent)
    suffix = file.stem.removeprefix("instances_")
    folders = (file.parent, top, top / "images", top / suffix, top / "images" / suffix)
    dataset = coco.open_dataset(file, file.parent)
    if not len(dataset):
        raise LayoutError(f"{file}: names no pictures")
    first = dataset[0].path
    name = first.relative_to(file.parent) if first.is_relative_to(file.parent) else first
    for folder in folders:
        if (folder / name).is_file():
            return dataset if folder == file.parent else coco.open_dataset(file, folder)
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise LayoutError(
        f"{file}: its first picture, {name}, is in none of {looked}; expected the pictures in one of these"
    )
