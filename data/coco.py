"""COCO files: detections as a COCO dataset with scores, which `pycocotools.coco.COCO` opens, and annotations.

The format: https://cocodataset.org/#format-data.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from .boxes import clip, from_xywh, reach_beyond, to_xywh
from .categories import Category
from .dataset import Dataset, Sample
from .ground_truth import GroundTruth


class DetectionsWriter:
    """Writes `detections.json` picture by picture; what is kept in memory does not grow with the detections.

        with DetectionsWriter("out/detections.json", categories) as writer:
            writer.add("a.jpg", width, height, boxes, scores, labels)
            writer.fail("b.jpg", "truncated")

    The file holds `images` (id, file_name, width, height), `categories` (id, name, wnid), `annotations` (id, image_id,
    category_id, bbox [x, y, width, height], area, iscrowd, score) and `failures` (file_name, reason). It appears under
    its name when all is written; until then it is `detections.json.partial`. An exception inside the `with` block
    still leaves a whole file of what was written before it.

    Args:
        file: the file to write; its folder is made if need be.
        categories: classes that labels refer to.
    """

    def __init__(self, file: str | Path, categories: Sequence[Category]):
        self._file = Path(file)
        self._categories = categories
        self._images: list[dict[str, Any]] = []
        self._failures: list[dict[str, str]] = []
        self._annotations = 0

    def __enter__(self) -> "DetectionsWriter":
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._partial = self._file.with_name(self._file.name + ".partial")
        self._stream: TextIO = self._partial.open("w", encoding="utf-8")
        self._stream.write('{"annotations": [')
        return self

    def add(
        self, file_name: str, width: int, height: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> None:
        """One picture's detections: boxes [N, 4] in our convention, scores [N], labels [N] (`Category.id`)."""
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "file_name": file_name, "width": width, "height": height})
        for (x, y, w, h), score, label in zip(to_xywh(boxes).tolist(), scores, labels, strict=True):
            annotation = {
                "id": self._annotations + 1,
                "image_id": image_id,
                "category_id": int(label),
                "bbox": [round(x, 3), round(y, 3), round(w, 3), round(h, 3)],
                "area": round(w * h, 3),
                "iscrowd": 0,
                "score": float(score),
            }
            self._stream.write(("\n" if not self._annotations else ",\n") + json.dumps(annotation))
            self._annotations += 1

    def fail(self, file_name: str, reason: str) -> None:
        """A picture that could not be read, and why."""
        self._failures.append({"file_name": file_name, "reason": reason})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rest = {
            "images": self._images,
            "categories": [
                {"id": category.id, "name": category.name, "wnid": category.wnid} for category in self._categories
            ],
            "failures": self._failures,
        }
        self._stream.write("],\n" + json.dumps(rest, ensure_ascii=False)[1:] + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._partial.replace(self._file)


class CocoError(ValueError):
    """A COCO file that cannot be used; the message names the file, the element and what was expected."""


@dataclass(frozen=True, eq=False)
class CocoDetections:
    """N detections in the terms of a file: `detections.json`, or a list of results as COCO's server takes it.

    Attributes:
        file_names: of the pictures by image id; None if the file is a list of results, which does not name them.
        categories: the classes; None likewise.
        image_ids, category_ids: int64 [N].
        scores: float64 [N].
        xywh: float64 [N, 4], corner and size, 0-based and continuous.
        failures: pictures that the detector could not read.
        skipped: malformed entries that a lenient reader left out.
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
    """Reads `detections.json`, or a plain list of results.

    Args:
        lenient: skip malformed detections and count them.

    Raises:
        CocoError: not such a file; or, unless `lenient`, a malformed detection.
    """
    content = _load(file)
    plain = isinstance(content, list)
    entries = content if plain else _list(content, "annotations", file)
    rows, bad = _rows(entries, scores=True)
    if bad and not lenient:
        expected = "image_id and category_id whole, bbox [x, y, width, height] and score finite numbers"
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
    """Reads an annotation file (`instances_val2017.json`) for evaluation. Image ids are the numbers of pictures.

    Args:
        pictures: the folder of the picture files, if they are at hand.

    Raises:
        CocoError: not such a file, or a malformed annotation.
    """
    return _instances(_load(file), file, pictures)


def _instances(content: Any, file: str | Path, pictures: str | Path | None) -> GroundTruth:
    if not isinstance(content, dict):
        raise CocoError(f"{file}: expected an object with images, annotations and categories")
    names = _file_names(content, file)
    entries = _list(content, "annotations", file)
    rows, bad = _rows(entries, scores=False)
    if bad:
        expected = "image_id and category_id whole, bbox [x, y, width, height] finite numbers"
        got = json.dumps(entries[bad[0]])[:100]
        raise CocoError(f"{file}: annotation {bad[0] + 1} of {len(entries)}: expected {expected}; got {got}")
    categories = _categories(content, file)
    for column, known, what in (
        (0, list(names), "image"),
        (1, [category.id for category in categories], "category"),
    ):
        unknown = np.flatnonzero(~np.isin(rows[:, column], known))
        if len(unknown):
            first = int(unknown[0])
            raise CocoError(
                f"{file}: annotation {first + 1} of {len(entries)}: its {what}_id is {int(rows[first, column])}, "
                f"and no {what} in the file has that id"
            )
    xywh = rows[:, 2:6]
    return GroundTruth.from_arrays(
        list(names),
        rows[:, 0],
        rows[:, 1],
        inclusive_from_xywh(xywh),
        crowd=[bool(one.get("iscrowd", 0)) for one in entries],
        areas=[one.get("area", w * h) for one, (w, h) in zip(entries, xywh[:, 2:].tolist(), strict=True)],
        xywh=xywh,
        categories=categories,
        image_ids=[Path(name).with_suffix("").as_posix() for name in names.values()],
        paths={} if pictures is None else {number: Path(pictures) / name for number, name in names.items()},
        name=Path(file).stem,
    )


def open_dataset(file: str | Path, pictures: str | Path) -> Dataset:
    """The annotated pictures of a COCO annotation file; crowds are `difficult`, boxes are clipped to the picture.

    Raises:
        CocoError: as `read_instances`.
    """
    content = _load(file)
    truth = _instances(content, file, pictures)
    assert truth.xywh is not None
    boxes = from_xywh(truth.xywh)
    order = np.argsort(truth.images, kind="stable")
    ends = np.searchsorted(truth.images[order], [truth.image_indices, truth.image_indices + 1])
    records = []
    for one, image_id, index, start, stop in zip(
        content["images"], truth.image_ids, truth.image_indices.tolist(), *ends, strict=True
    ):
        rows = order[start:stop]
        size = one.get("width"), one.get("height")
        said = all(isinstance(side, (int, float)) for side in size)
        width, height = size if said else (math.inf, math.inf)
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
                (int(width), int(height)) if said else None,
            )
        )
    return Dataset(truth.name, truth.categories, records, _same)


def inclusive_from_xywh(xywh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1-based inclusive (xmin, ymin, xmax, ymax) from corner and size, float64 [N, 4]: `xmax - xmin + 1 = width`."""
    return np.concatenate([xywh[:, :2] + 1, xywh[:, :2] + xywh[:, 2:]], axis=1)


def _same(sample: Sample) -> Sample:
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
        raise CocoError(f"{file}: expected a list {key!r}, as in COCO files (https://cocodataset.org/#format-data)")
    return entries


def _file_names(content: Any, file: str | Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, one in enumerate(_list(content, "images", file), start=1):
        try:
            key, name = _whole(one["id"]), str(one["file_name"])
            if not name:
                raise ValueError("no name")
        except (TypeError, KeyError, ValueError) as error:
            raise CocoError(f"{file}: image {number}: expected a whole id and a file_name, got {one!r:.100}") from error
        if key in names:
            raise CocoError(f"{file}: image {number}: the id {key} is that of {names[key]!r} too")
        names[key] = name
    return names


def _categories(content: Any, file: str | Path) -> tuple[Category, ...]:
    categories: dict[int, Category] = {}
    for number, one in enumerate(_list(content, "categories", file), start=1):
        try:
            category = Category(_whole(one["id"]), str(one.get("wnid", one["name"])), str(one["name"]))
        except (TypeError, KeyError, ValueError) as error:
            raise CocoError(f"{file}: category {number}: expected a whole id and a name, got {one!r:.100}") from error
        if category.id in categories or category.id < 1:
            problem = "0 is the background; expected 1 or more" if category.id < 1 else "it occurs twice"
            raise CocoError(f"{file}: category {number} ({category.name!r}) has the id {category.id}: {problem}")
        categories[category.id] = category
    return tuple(categories.values())


def _rows(entries: list[Any], scores: bool) -> tuple[npt.NDArray[np.float64], list[int]]:
    """image_id, category_id, x, y, width, height and score (or 0) per entry [N, 7]; and the malformed entries."""
    try:
        rows = np.array(
            [(one["image_id"], one["category_id"], *one["bbox"], one["score"] if scores else 0) for one in entries],
            dtype=np.float64,
        ).reshape(-1, 7)
        good = np.isfinite(rows).all(axis=1) & (rows[:, :2] == np.floor(rows[:, :2])).all(axis=1)
        return rows[good], np.flatnonzero(~good).tolist()
    except (TypeError, KeyError, ValueError):
        pass
    kept, bad = [], []
    for number, one in enumerate(entries):
        try:
            x, y, width, height = one["bbox"]
            values = (one["image_id"], one["category_id"], x, y, width, height, one["score"] if scores else 0)
            row = np.array(values, dtype=np.float64)
            if not np.isfinite(row).all() or (row[:2] != np.floor(row[:2])).any():
                raise ValueError("not finite, or an id that is not whole")
            kept.append(row)
        except (TypeError, KeyError, ValueError):
            bad.append(number)
    return np.array(kept).reshape(-1, 7), bad


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {value!r}")
    return value
