"""Detections as a COCO dataset with scores, which `pycocotools.coco.COCO` opens.

The format: https://cocodataset.org/#format-data.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import numpy as np

from .boxes import to_xywh
from .categories import Category


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
