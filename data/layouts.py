"""Detects the layout of a data set and opens it for training or as ground truth; merges data sets by class names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from . import coco, cvat, ilsvrc, label_studio, labelme, voc, yolo
from .boxes import to_inclusive
from .categories import Category
from .dataset import Dataset, Sample
from .ground_truth import GroundTruth, read_ilsvrc_ground_truth
from .ilsvrc import LayoutError, MissingSplitError, split_names
from .listing import visible_files

EXPECTED = """expected one of
  ILSVRC DET:   ImageSets/DET/SPLIT.txt, Data/DET/SPLIT/, Annotations/DET/SPLIT/*.xml
  PASCAL VOC:   ImageSets/Main/SPLIT.txt, JPEGImages/, Annotations/*.xml
  VOC's files:  pictures in the folder, in JPEGImages/ or in images/, and for each picture an XML file of the same name
                beside it or in Annotations/
  COCO:         an annotation file (.json), or a folder with annotations/*SPLIT*.json
  YOLO:         data.yaml with names and SPLIT; pictures in .../images/, text files in .../labels/
  Roboflow:     the folders train/, valid/ and test/, each with pictures and _annotations.coco.json or XML files
  CVAT:         annotations.xml ("CVAT for images") and images/
  labelme:      pictures, and a JSON file of labelme beside each
  Label Studio: the export "JSON" (.json), and the pictures beside it or in images/"""

Kind = Literal["ILSVRC", "VOC", "VOC's files", "COCO", "YOLO", "CVAT", "labelme", "Label Studio"]


class _Layout(NamedTuple):
    """A layout that was found.

    Attributes:
        kind: the layout.
        path: the folder of the data set, or its annotation file.
        split: the split to open; None for a layout without splits.
        root: the folder whose name the data set has.
        label: added to the name: the folder of a split ("train").
        default_splits: the splits to look for if `split` is None and the layout has splits.
    """

    kind: Kind
    path: Path
    split: str | None
    root: Path
    label: str = ""
    default_splits: Sequence[str] = ()


def open_dataset(
    root: str | Path,
    split: str | None = None,
    categories: Sequence[Category] | None = None,
    default_splits: Sequence[str] = ("train", "trainval"),
) -> Dataset:
    """Opens a data set; detects its layout.

    Args:
        root: the folder of the data set, or an annotation file. `EXPECTED` describes the layouts.
        split: the name of an image list or of a folder. "val" and "valid" are the same. Folders without image lists and
            single annotation files have no splits.
        categories: the classes. The default in the ILSVRC layout is the 200 classes of ILSVRC DET, in other layouts
            the classes of the data set.
        default_splits: if `split` is None, the first of these splits that exists is opened.

    Raises:
        LayoutError: the folder has none of the layouts, or a part of the layout is missing.
        MissingSplitError: the data set does not have the split.
        CocoError, AnnotationError: a file is malformed.
    """
    return _open(_find(Path(root), split, default_splits), categories)


def open_ground_truth(
    root: str | Path,
    split: str | None = None,
    categories: Sequence[Category] | None = None,
    cache: Path | None = None,
    default_splits: Sequence[str] = ("val", "test", "trainval", "train"),
) -> GroundTruth:
    """Reads the ground truth of a data set; detects its layout. The arguments are those of `open_dataset`.

    The ILSVRC, VOC and COCO layouts keep the exact coordinates of their files. The boxes of the other layouts are
    clipped to their pictures.

    Args:
        categories: as in `open_dataset`, but in the VOC layout the default is the 20 classes of VOC if no others occur.
        cache: folder of parsed annotations, see `annotation_cache`; None disables caching.

    Raises:
        LayoutError, MissingSplitError, CocoError, AnnotationError, GroundTruthError: see `open_dataset` and
            `ground_truth.read_ground_truth`.
    """
    found = _find(Path(root), split, default_splits)
    if found.kind in ("ILSVRC", "VOC"):
        assert found.split is not None
        read = read_ilsvrc_ground_truth if found.kind == "ILSVRC" else voc.read_voc_ground_truth
        return read(found.path, found.split, categories, cache)
    if found.kind == "COCO":
        _refuse_categories(found.path, categories)
        truth = coco.read_instances(found.path, _coco_pictures(found))
        return replace(truth, name=f"{found.root.resolve().name} {found.label}") if found.label else truth
    return _ground_truth(_open(found, categories))


def open_validation(
    roots: Sequence[str | Path], split: str | None, categories: Sequence[Category] | None, trained: Sequence[str]
) -> Dataset | None:
    """Opens the validation sets that belong to training sets, as one data set.

    Args:
        roots, categories: see `open_datasets`.
        split: the name of the validation sets; None for "val" of the data sets that have this split.
        trained: the names of the training sets. If a COCO folder has only one annotation file, this file is the
            training set and there is no validation set.

    Returns:
        The validation set; None if `split` is None and no data set has a split "val".

    Raises:
        LayoutError, CocoError, AnnotationError: see `open_dataset`.
    """
    parts = []
    for root in roots:
        try:
            found = open_dataset(root, "val" if split is None else split, categories)
        except MissingSplitError:
            if split is not None:
                raise
            continue
        if split is not None or found.name not in trained:
            parts.append(found)
    return _merge(parts) if len(parts) > 1 else next(iter(parts), None)


@dataclass(frozen=True)
class FoundData:
    """What a data set contributes to merged data sets.

    Attributes:
        root: the folder or the annotation file.
        name: the name of the data set.
        layout: the layout that was found.
        pictures: the number of its pictures.
        objects: the number of its objects by class name.
    """

    root: Path
    name: str
    layout: Kind
    pictures: int
    objects: dict[str, int]


def open_datasets(
    roots: Sequence[str | Path],
    split: str | None = None,
    categories: Sequence[Category] | None = None,
    default_splits: Sequence[str] = ("train", "trainval"),
) -> tuple[Dataset, list[FoundData]]:
    """Opens several data sets as one; classes of the same name are one class.

    The samples keep the order of the data sets and are numbered anew. The classes are those of the first data set with
    their ids, then further classes in the order in which they are met. Only the classes of which a data set has objects
    count as annotated in its pictures (`Sample.annotated`), so that its pictures do not teach that objects of the other
    data sets' classes are background.

    Args:
        roots: at least one data set, see `open_dataset`. The data sets may have different layouts.
        split, categories, default_splits: see `open_dataset`.

    Returns:
        The merged data set, and what was found in each. A single data set is returned as it is, without being counted.

    Raises:
        LayoutError: a picture is in two of the data sets; see also `open_dataset`.
        MissingSplitError, CocoError, AnnotationError: see `open_dataset`.
    """
    layouts = [_find(Path(root), split, default_splits) for root in roots]
    parts = [_open(layout, categories) for layout in layouts]
    if len(parts) == 1:
        return parts[0], []
    found = []
    for root, layout, part in zip(roots, layouts, parts, strict=True):
        names = {category.id: category.name for category in part.categories}
        objects = Counter(names[label] for sample in part for label in sample.labels.tolist())
        found.append(FoundData(Path(root), part.name, layout.kind, len(part), dict(objects)))
    return _merge(parts), found


def _merge(parts: Sequence[Dataset]) -> Dataset:
    merged = list(parts[0].categories)
    by_name = {category.name: category for category in merged}
    for part in parts[1:]:
        for category in part.categories:
            if category.name not in by_name:
                number = max((one.id for one in merged), default=0) + 1
                by_name[category.name] = Category(number, category.wnid, category.name)
                merged.append(by_name[category.name])
    owner: dict[Path, int] = {}
    for number, part in enumerate(parts):
        for sample in part:
            other = owner.setdefault(sample.path.resolve(), number)
            if other != number:
                raise LayoutError(
                    f"{sample.path} is in {parts[other].name} and in {part.name}; expected each picture once"
                )
    ids = [{category.id: by_name[category.name].id for category in part.categories} for part in parts]
    boxed = [
        frozenset(ids[number][label] for sample in part for label in sample.labels.tolist())
        for number, part in enumerate(parts)
    ]
    records = [(number, row) for number, part in enumerate(parts) for row in range(len(part))]
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    name = " + ".join(part.name for part in parts)
    read = partial(_merged_sample, parts=tuple(parts), ids=ids, boxed=boxed, starts=starts)
    return Dataset(name, merged, records, read)


def _merged_sample(
    record: tuple[int, int],
    parts: Sequence[Dataset],
    ids: Sequence[dict[int, int]],
    boxed: Sequence[frozenset[int]],
    starts: Sequence[int],
) -> Sample:
    number, row = record
    sample = parts[number][row]
    labels = np.array([ids[number][label] for label in sample.labels.tolist()], dtype=np.int64)
    annotated = boxed[number]
    if sample.annotated is not None:
        annotated = frozenset(ids[number][one] for one in sample.annotated)
    elif len(set(boxed)) == 1:
        return replace(sample, index=starts[number] + row + 1, labels=labels)
    return replace(sample, index=starts[number] + row + 1, labels=labels, annotated=annotated)


def _find(root: Path, split: str | None, default_splits: Sequence[str]) -> _Layout:
    """Finds the layout of a data set, and the split to open."""
    try:
        return _layout(root, split, default_splits)
    except OSError as error:
        raise LayoutError(f"{error.filename or root}: cannot read this folder: {error.strerror}") from error


def _layout(root: Path, split: str | None, default_splits: Sequence[str]) -> _Layout:
    # For names that are too long, os.path.isfile returns False, while Path.is_file raises an OSError.
    if os.path.isfile(root):
        return _find_file(root, split, default_splits)
    if not os.path.isdir(root):
        raise LayoutError(f"{root}: no such file or folder; {EXPECTED}")
    if voc.is_voc(root):
        return _Layout("VOC", root, _listed_split(root / "ImageSets" / "Main", split, default_splits), root)
    if os.path.isdir(root / "ImageSets"):
        lists = root / "ImageSets" / "DET"
        names = [name for one in (default_splits if split is None else [split]) for name in split_names(one)]
        name = next((name for name in names if os.path.isfile(lists / f"{name}.txt")), names[0])
        return _Layout("ILSVRC", root, name, root)
    if yolo.description_file(root) is not None:
        return _Layout("YOLO", root, split, root, default_splits=default_splits)
    if cvat.is_cvat_file(root / "annotations.xml"):
        return _Layout("CVAT", root / "annotations.xml", split, root, default_splits=default_splits)
    files = visible_files(root / "annotations", {".json"}) or visible_files(root, {".json"})
    if files and labelme.is_labelme_file(files[0]):
        _refuse_split(root, split)
        return _Layout("labelme", files[0].parent, None, root)
    if files:
        file = _annotation_file(files, default_splits if split is None else [split])
        return _Layout(_kind_of_json(file), file, split, root)
    folders = {path.name.lower(): path for path in root.iterdir() if os.path.isdir(path)}
    if "train" in folders and any(map(_has_annotations, folders.values())):
        wanted = [name for one in (default_splits if split is None else [split]) for name in split_names(one)]
        folder = next((folders[name] for name in wanted if name in folders), None)
        if folder is None:
            raise MissingSplitError(
                f"{root}: has no folder {wanted[0]!r}; existing folders: {', '.join(sorted(folders))}"
            )
        return _find(folder, None, default_splits)._replace(root=root, label=folder.name)
    if voc.is_annotated_folder(root):
        _refuse_split(root, split)
        return _Layout("VOC's files", root, None, root)
    nested = next((path for path in (*root.glob("*"), *root.glob("*/*")) if os.path.isdir(path / "ImageSets")), None)
    hint = f"\nhint: {nested} contains a data set" if nested else ""
    raise LayoutError(f"{root}: not a data set; {EXPECTED}{hint}")


def _find_file(file: Path, split: str | None, default_splits: Sequence[str]) -> _Layout:
    if yolo.description_file(file) is not None:
        return _Layout("YOLO", file, split, file.parent, default_splits=default_splits)
    if file.suffix.lower() == ".xml" and cvat.is_cvat_file(file):
        return _Layout("CVAT", file, split, file.parent, default_splits=default_splits)
    if split is not None:
        raise MissingSplitError(f"{file}: an annotation file has no splits, got the split {split!r}")
    top = file.parent.parent if file.parent.name == "annotations" else file.parent
    return _Layout(_kind_of_json(file), file, None, top)


def _kind_of_json(file: Path) -> Kind:
    return "Label Studio" if label_studio.is_label_studio_file(file) else "COCO"


def _open(found: _Layout, categories: Sequence[Category] | None) -> Dataset:
    dataset = _open_as_it_is(found, categories)
    if found.label:
        dataset.name = f"{found.root.resolve().name} {found.label}"
    return dataset


def _open_as_it_is(found: _Layout, categories: Sequence[Category] | None) -> Dataset:
    path, split = found.path, found.split
    if found.kind == "VOC":
        assert split is not None
        return voc.open_dataset(path, split, categories or voc.own_categories(path, split))
    if found.kind == "ILSVRC":
        assert split is not None
        return ilsvrc.open_dataset(path, split, categories)
    if found.kind == "VOC's files":
        return voc.open_folder(path, categories)
    if found.kind == "CVAT":
        return cvat.open_dataset(path, split, categories, found.default_splits)
    if found.kind == "labelme":
        return labelme.open_dataset(path, categories)
    if found.kind == "Label Studio":
        return label_studio.open_dataset(path, categories)
    _refuse_categories(path, categories)
    if found.kind == "YOLO":
        return yolo.open_dataset(path, split, found.default_splits)
    dataset = coco.open_dataset(path, _coco_pictures(found))
    if not len(dataset):
        raise LayoutError(f"{path}: the file lists no pictures")
    return dataset


def _coco_pictures(found: _Layout) -> Path:
    """Returns the folder of the pictures of a COCO file."""
    file, top = found.path, found.root
    suffix = file.stem.removeprefix("instances_")
    folders = [file.parent, top, top / "images", top / suffix, top / "images" / suffix]
    names = coco.read_file_names(file)
    for name in names[:100]:  # some pictures may be missing
        for folder in folders:
            if os.path.isfile(coco.picture_file(folder, name)):
                return folder
    if not names:
        return file.parent
    searched = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise LayoutError(f"{file}: the first picture, {names[0][:300]}, is in none of the folders {searched}")


def _ground_truth(dataset: Dataset) -> GroundTruth:
    """Returns the objects of a data set as ground truth."""
    samples = list(dataset)
    counts = [len(sample.labels) for sample in samples]
    indices = np.array([sample.index for sample in samples], dtype=np.int64)
    return GroundTruth.from_arrays(
        indices,
        np.repeat(indices, counts),
        np.concatenate([sample.labels for sample in samples]),
        to_inclusive(np.concatenate([sample.boxes for sample in samples])),
        difficult=np.concatenate([sample.difficult for sample in samples]),
        categories=dataset.categories,
        image_ids=[sample.image_id for sample in samples],
        paths={sample.index: sample.path for sample in samples},
        file_names=_distinct_names([sample.path for sample in samples]),
        name=dataset.name,
    )


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Returns the names of files with as few folders as tell them apart."""
    for depth in range(1, 20):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [path.as_posix() for path in paths]


def _listed_split(lists: Path, split: str | None, default_splits: Sequence[str]) -> str:
    """Returns the first wanted split that has a list. CVAT calls the list of a task without splits "default"."""
    for wanted in default_splits if split is None else [split]:
        for name in split_names(wanted):
            if os.path.isfile(lists / f"{name}.txt"):
                return name
    existing = [path.stem for path in visible_files(lists, {".txt"})]
    if split is None and "default" in existing:
        return "default"
    wanted = split or default_splits[0]
    there = ", ".join(existing[:12]) or "none"
    raise MissingSplitError(f"{lists}: the list {wanted}.txt does not exist; existing lists: {there}")


def _has_annotations(folder: Path) -> bool:
    return bool(visible_files(folder, {".json"})) or voc.is_annotated_folder(folder)


def _annotation_file(files: Sequence[Path], splits: Sequence[str]) -> Path:
    """Finds the annotation file of the first split that has one.

    Files named "instances*" have priority. A single file serves all splits.
    """
    if len(files) == 1:
        return files[0]
    named = next(filter(None, ([path for path in files if split in path.stem] for split in splits)), [])
    named = [path for path in named if path.stem.startswith("instances")] or named
    if len(named) == 1:
        return named[0]
    shown = ", ".join(path.name for path in named or files)
    error_type = LayoutError if named else MissingSplitError
    raise error_type(
        f"{files[0].parent}: expected one annotation file with {splits[0]!r} in its name, found {len(named)} "
        f"({shown}); give the path of the file"
    )


def _refuse_categories(path: Path, categories: Sequence[Category] | None) -> None:
    if categories is not None:
        raise LayoutError(f"{path}: the data set names its classes; omit the class list")


def _refuse_split(root: Path, split: str | None) -> None:
    if split is not None:
        raise MissingSplitError(f"{root}: has no image lists (ImageSets/Main), so it has no split {split!r}")
