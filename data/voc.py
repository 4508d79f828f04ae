"""Data in the PASCAL VOC layout:

    ROOT/ImageSets/Main/<split>.txt         one image_id per line
    ROOT/JPEGImages/<image_id>.jpg
    ROOT/Annotations/<image_id>.xml

or, without lists, a folder of pictures with an XML file of the same name for each (``open_folder``). The XML files are
those of ``data.annotation``; ``<difficult>`` is respected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from .annotation_cache import read_annotations
from .boxes import clip
from .categories import Category, category_ids
from .dataset import Dataset, Sample
from .ground_truth import GroundTruth, read_ground_truth
from .ilsvrc import LayoutError, picture_path, read_annotation, read_image_list
from .images import IMAGE_SUFFIXES

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
    records = [
        (image_id, index, picture_path(root / "JPEGImages", image_id), root / "Annotations" / f"{image_id}.xml")
        for image_id, index in entries
    ]
    return Dataset(
        f"{root.resolve().name} {split}", categories, records, partial(_read_sample, ids=category_ids(categories))
    )


def own_categories(root: str | Path, split: str) -> tuple[Category, ...]:
    """The classes that the annotations of a split name, in alphabetical order, ids from 1.

    Raises: as ``open_dataset``.
    """
    root = Path(root)
    entries = read_image_list(_list_path(root, split))
    return _named([root / "Annotations" / f"{image_id}.xml" for image_id, _ in entries])


def open_folder(root: str | Path, categories: Sequence[Category] | None = None) -> Dataset:
    """A folder of pictures with an XML file of the same name for each, in the order of their names.

    The pictures lie in ``ROOT/JPEGImages``, ``ROOT/images`` or ``ROOT``, the XML files in ``ROOT/Annotations``,
    ``ROOT/annotations`` or beside the pictures.

    Args:
        categories: by default the classes that the annotations name, see ``own_categories``.

    Raises:
        LayoutError: a picture without annotation or an annotation without picture, or two pictures of one name.
        AnnotationError: an XML file that is malformed, or, once a sample is read, an unknown class.
    """
    root = Path(root)
    pictures, annotations = _annotated_folders(root)
    by_name: dict[str, Path] = {}
    for path in sorted(one for one in pictures.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES):
        if path.stem in by_name:
            raise LayoutError(
                f"{path} and {by_name[path.stem].name} have one name; expected one picture for an XML file"
            )
        by_name[path.stem] = path
    files = {path.stem: path for path in sorted(annotations.glob("*.xml"))}
    _check_pairs(root, by_name, files)
    if categories is None:
        categories = _named(list(files.values()))
    records = [(name, index, path, files[name]) for index, (name, path) in enumerate(by_name.items(), start=1)]
    return Dataset(root.resolve().name, categories, records, partial(_read_sample, ids=category_ids(categories)))


def is_annotated_folder(root: str | Path) -> bool:
    """Whether a folder holds pictures and XML files as ``open_folder`` takes them, paired or not."""
    pictures, annotations = _annotated_folders(Path(root))
    return any(one.suffix.lower() in IMAGE_SUFFIXES for one in pictures.iterdir()) and any(annotations.glob("*.xml"))


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


def _annotated_folders(root: Path) -> tuple[Path, Path]:
    """Where the pictures and where the XML files of a data set without lists are."""
    pictures = next((root / name for name in ("JPEGImages", "images") if (root / name).is_dir()), root)
    annotations = next((root / name for name in ("Annotations", "annotations") if (root / name).is_dir()), pictures)
    return pictures, annotations


def _check_pairs(root: Path, pictures: Mapping[str, Path], annotations: Mapping[str, Path]) -> None:
    """Raises unless every picture has an annotation and every annotation a picture."""
    for what, some, others in (
        ("pictures have no annotation", pictures, annotations),
        ("annotations have no picture", annotations, pictures),
    ):
        alone = [path.name for name, path in some.items() if name not in others]
        if alone:
            shown = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            raise LayoutError(
                f"{root}: {len(alone)} of {len(some)} {what} of the same name: {shown}. Move them away, or add what is "
                "missing; a picture without objects has an XML file without <object>"
            )


def _named(annotations: Sequence[Path]) -> tuple[Category, ...]:
    names = read_annotations(annotations).names.tolist()
    return tuple(Category(number, name, name) for number, name in enumerate(sorted(names), start=1))


def _read_sample(record: tuple[str, int, Path, Path], ids: dict[str, int]) -> Sample:
    image_id, index, path, xml = record
    annotation = read_annotation(xml)
    return Sample(
        image_id=image_id,
        index=index,
        path=path,
        boxes=clip(annotation.boxes, annotation.width, annotation.height),
        labels=annotation.labels(ids),
        difficult=annotation.difficult,
        outside=annotation.outside,
        size=(annotation.width, annotation.height),
    )
