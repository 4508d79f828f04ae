"""Reads and writes COCO files: detections, as a COCO dataset with scores, and annotations.

`pycocotools.coco.COCO` opens the detections too. The format: https://cocodataset.org/#format-data.
"""

import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.atomic_write import atomic_write
from .boxes import clip, from_xywh, reach_beyond, to_xywh
from .categories import Category
from .dataset import Dataset, Sample
from .ground_truth import GroundTruth


class DetectionsWriter:
    """Writes `detections.json` picture by picture. Memory use does not grow with the number of detections.

        with DetectionsWriter("out/detections.json", categories) as writer:
            writer.add("a.jpg", width, height, boxes, scores, labels)
            writer.fail("b.jpg", "truncated")

    The file holds `images` (id, file_name, width, height), `categories` (id, name, wnid), `annotations` (id, image_id,
    category_id, bbox [x, y, width, height], area, iscrowd, score) and `failures` (file_name, reason). It appears when
    the `with` block ends; if the block raises an exception, an older file stays unchanged.

    Args:
        file: the file to write; its folder is created if missing.
        categories: the classes that the labels refer to.
    """

    def __init__(self, file: str | Path, categories: Sequence[Category]):
        self._file = Path(file)
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._failures: list[dict[str, str]] = []
        self._annotation_count = 0

    def __enter__(self) -> "DetectionsWriter":
        with ExitStack() as opened:
            partial = opened.enter_context(atomic_write(self._file))
            self._stream = opened.enter_context(partial.open("w", encoding="utf-8"))
            self._stream.write('{"annotations": [')
            self._opened = opened.pop_all()
        return self

    def add(
        self, file_name: str, width: int, height: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> None:
        """Adds the detections of a picture.

        Args:
            file_name: name of the picture.
            width, height: size of the picture in pixels.
            boxes: [N, 4] in the program's convention (0-based, half-open).
            scores: [N].
            labels: [N], each a `Category.id`.
        """
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for (x, y, w, h), score, label in zip(to_xywh(boxes).tolist(), scores, labels, strict=True):
            annotation = {
                "id": self._annotation_count + 1,
                "image_id": image_id,
                "category_id": int(label),
                "bbox": [round(x, 3), round(y, 3), round(w, 3), round(h, 3)],
                "area": round(w * h, 3),
                "iscrowd": 0,
                "score": float(score),
            }
            self._stream.write(("\n" if not self._annotation_count else ",\n") + json.dumps(annotation))
            self._annotation_count += 1

    def fail(self, file_name: str, reason: str) -> None:
        """Adds a picture that could not be read, with the reason."""
        self._failures.append({"file_name": file_name, "reason": reason})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            self._write_rest()

    def _write_rest(self) -> None:
        rest = {
            "images": self._images,
            "categories": [
                {"id": category.id, "name": category.name, "wnid": category.wnid} for category in self._categories
            ],
            "failures": self._failures,
        }
        self._stream.write("],\n" + json.dumps(rest, ensure_ascii=False)[1:] + "\n")


class CocoError(ValueError):
    """A COCO file cannot be used; the message names the file, the element and the expected value."""


@dataclass(frozen=True, eq=False)
class CocoDetections:
    """N detections with the ids of their file: `detections.json`, or a list of results as COCO's server accepts it.

    Attributes:
        file_names: file name of each picture by image id; None for a list of results, which contains no names.
        categories: the classes; None for a list of results.
        image_ids, category_ids: int64 [N].
        scores: float64 [N].
        xywh: float64 [N, 4], corner and size, 0-based and continuous.
        failures: number of pictures that the detector could not read.
        skipped: number of malformed detections that a lenient reader skipped.
    """

    file_names: dict[int, str] | None
    categories: tuple[Category, ...] | None
    image_ids: npt.NDArray[np.int64]
    category_ids: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    xywh: npt.NDArray[np.float64]
    failures: int = 0
    skipped: int = 0


def read_detections(file: str | Path, lenient: bool = False) -> CocoDetections:
    """Reads `detections.json` or a list of results.

    Args:
        lenient: skip malformed detections and count them.

    Raises:
        CocoError: the file cannot be read or has another format; or, unless `lenient`, a detection is malformed.
    """
    content = _load(file)
    plain = isinstance(content, list)
    entries = content if plain else _list(content, "annotations", file)
    rows, bad = _rows(entries, scores=True)
    if bad and not lenient:
        expected = "whole numbers image_id and category_id, finite numbers bbox [x, y, width, height] and score"
        got = json.dumps(entries[bad[0]])[:100]
        raise CocoError(f"{file}: detection {bad[0] + 1} of {len(entries)}: expected {expected}; got {got}")
    return CocoDetections(
        None if plain else _file_names(content, file),
        None if plain else _categories(content, file),
        rows[:, 0].astype(np.int64),
        rows[:, 1].astype(np.int64),
        rows[:, 6].copy(),
        rows[:, 2:6].copy(),
        0 if plain else len(content.get("failures", ())),
        len(bad),
    )


def read_instances(file: str | Path, pictures: str | Path | None = None) -> GroundTruth:
    """Reads an annotation file (`instances_val2017.json`) for evaluation. The image ids become the picture numbers.

    Args:
        pictures: the folder of the picture files, if available.

    Raises:
        CocoError: the file cannot be read or has another format, or an annotation is malformed.
    """
    return _instances(_load(file), file, pictures)


def _instances(content: Any, file: str | Path, pictures: str | Path | None) -> GroundTruth:
    if not isinstance(content, dict):
        raise CocoError(f"{file}: expected an object with images, annotations and categories")
    names = _file_names(content, file)
    entries = _list(content, "annotations", file)
    rows, bad = _rows(entries, scores=False)
    if bad:
        expected = "whole numbers image_id and category_id, finite numbers bbox [x, y, width, height]"
        got = json.dumps(entries[bad[0]])[:100]
        raise CocoError(f"{file}: annotation {bad[0] + 1} of {len(entries)}: expected {expected}; got {got}")
    categories = _categories(content, file)
    for column, known, kind in (
        (0, list(names), "image"),
        (1, [category.id for category in categories], "category"),
    ):
        unknown = np.flatnonzero(~np.isin(rows[:, column], known))
        if len(unknown):
            first = int(unknown[0])
            raise CocoError(
                f"{file}: annotation {first + 1} of {len(entries)}: its {kind}_id is {int(rows[first, column])}, "
                f"but the file contains no {kind} with this id"
            )
    xywh = rows[:, 2:6]
    return GroundTruth.from_arrays(
        list(names),
        rows[:, 0],
        rows[:, 1],
        inclusive_from_xywh(xywh),
        crowd=[bool(entry.get("iscrowd", 0)) for entry in entries],
        areas=[entry.get("area", w * h) for entry, (w, h) in zip(entries, xywh[:, 2:].tolist(), strict=True)],
        xywh=xywh,
        categories=categories,
        image_ids=[Path(name).with_suffix("").as_posix() for name in names.values()],
        paths={} if pictures is None else {number: Path(pictures) / name for number, name in names.items()},
        name=Path(file).stem,
    )


def open_dataset(file: str | Path, pictures: str | Path) -> Dataset:
    """Opens a COCO annotation file as a data set. Crowd regions are `difficult`; boxes are clipped to the picture.

    Args:
        pictures: the folder of the picture files.

    Raises:
        CocoError: see `read_instances`.
    """
    content = _load(file)
    truth = _instances(content, file, pictures)
    assert truth.xywh is not None
    boxes = from_xywh(truth.xywh)
    order = np.argsort(truth.images, kind="stable")
    ends = np.searchsorted(truth.images[order], [truth.image_indices, truth.image_indices + 1])
    records = []
    for image, image_id, index, start, stop in zip(
        content["images"], truth.image_ids, truth.image_indices.tolist(), *ends, strict=True
    ):
        rows = order[start:stop]
        size = image.get("width"), image.get("height")
        size_known = all(isinstance(side, (int, float)) for side in size)
        width, height = size if size_known else (math.inf, math.inf)
        inside, outside = clip(boxes[rows], width, height), reach_beyond(boxes[rows], width, height)
        records.append(
            Sample(
                image_id,
                index,
                truth.paths[index],
                inside,
                truth.labels[rows],
                truth.crowd[rows],
                outside,
                (int(width), int(height)) if size_known else None,
            )
        )
    return Dataset(truth.name, truth.categories, records, _identity)


def inclusive_from_xywh(xywh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Converts COCO's (x, y, width, height) to 1-based inclusive (xmin, ymin, xmax, ymax), float64 [N, 4].

    `xmax - xmin + 1` equals `width`.
    """
    return np.concatenate([xywh[:, :2] + 1, xywh[:, :2] + xywh[:, 2:]], axis=1)


def _identity(sample: Sample) -> Sample:
    return sample


def _load(file: str | Path) -> Any:
    try:
        return json.loads(Path(file).read_bytes())
    except OSError as error:
        raise CocoError(f"{file}: cannot read the file: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CocoError(f"{file}: not JSON: {error}") from error


def _list(content: Any, key: str, file: str | Path) -> list[Any]:
    entries = content.get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise CocoError(f"{file}: expected a list {key!r}, see the COCO format (https://cocodataset.org/#format-data)")
    return entries


def _file_names(content: Any, file: str | Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, image in enumerate(_list(content, "images", file), start=1):
        try:
            image_id, name = _integer(image["id"]), str(image["file_name"])
            if not name:
                raise ValueError("the file name is empty")
        except (TypeError, KeyError, ValueError) as error:
            problem = f"expected an id (whole number) and a file_name, got {image!r:.100}"
            raise CocoError(f"{file}: image {number}: {problem}") from error
        if image_id in names:
            raise CocoError(f"{file}: image {number}: {names[image_id]!r} has the same id, {image_id}")
        names[image_id] = name
    return names


def _categories(content: Any, file: str | Path) -> tuple[Category, ...]:
    categories: dict[int, Category] = {}
    for number, entry in enumerate(_list(content, "categories", file), start=1):
        try:
            category = Category(_integer(entry["id"]), str(entry.get("wnid", entry["name"])), str(entry["name"]))
        except (TypeError, KeyError, ValueError) as error:
            problem = f"expected an id (whole number) and a name, got {entry!r:.100}"
            raise CocoError(f"{file}: category {number}: {problem}") from error
        if category.id in categories or category.id < 1:
            problem = "expected at least 1 (0 is the background)" if category.id < 1 else "the id occurs twice"
            raise CocoError(f"{file}: category {number} ({category.name!r}) has the id {category.id}: {problem}")
        categories[category.id] = category
    return tuple(categories.values())


def _rows(entries: list[Any], scores: bool) -> tuple[npt.NDArray[np.float64], list[int]]:
    """Converts detections or annotations to an array; leaves malformed entries out.

    Returns:
        image_id, category_id, x, y, width, height and score (0 unless `scores`) of each entry, float64 [N, 7].
        Positions of the malformed entries in `entries`.
    """
    try:
        rows = np.array(
            [(e["image_id"], e["category_id"], *e["bbox"], e["score"] if scores else 0) for e in entries],
            dtype=np.float64,
        ).reshape(-1, 7)
        good = np.isfinite(rows).all(axis=1) & (rows[:, :2] == np.floor(rows[:, :2])).all(axis=1)
        return rows[good], np.flatnonzero(~good).tolist()
    except (TypeError, KeyError, ValueError):
        pass  # An entry is malformed. Only the slower loop below finds it.
    kept, bad = [], []
    for number, entry in enumerate(entries):
        try:
            x, y, width, height = entry["bbox"]
            values = (entry["image_id"], entry["category_id"], x, y, width, height, entry["score"] if scores else 0)
            row = np.array(values, dtype=np.float64)
            if not np.isfinite(row).all() or (row[:2] != np.floor(row[:2])).any():
                raise ValueError("a number is not finite or an id is not a whole number")
            kept.append(row)
        except (TypeError, KeyError, ValueError):
            bad.append(number)
    return np.array(kept).reshape(-1, 7), bad


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {value!r}")
    return value
