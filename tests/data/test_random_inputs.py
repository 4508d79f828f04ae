"""Seeded random inputs: readers return right values or raise their documented errors; box conversions are inverses."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_rcnn.data import boxes as box_ops
from inception_rcnn.data.annotation import AnnotationError, read_annotation
from inception_rcnn.data.coco import CocoError, open_dataset, read_detections, read_instances
from inception_rcnn.data.ilsvrc import LayoutError, read_image_list
from inception_rcnn.data.label_studio import open_dataset as open_label_studio
from inception_rcnn.data.labelme import open_dataset as open_labelme
from inception_rcnn.data.submission import SubmissionError, read_submission

COUNT = 150
SCALARS: tuple[Any, ...] = (
    *(None, True, False, "", "1", "x", "é\u2028", "\0", "9" * 30, "nan"),
    *(0, 1, -1, 2**53 + 1, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e300, float("nan"), float("inf")),
)


def random_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8)
    if depth < 3 and kind == 0:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(6))]
    if depth < 3 and kind == 1:
        return {rng.choice(("id", "name", "x")): random_value(rng, depth + 1) for _ in range(rng.randrange(3))}
    return rng.choice(SCALARS) if kind < 6 else rng.randrange(-3, 100)


def mutate(rng: random.Random, value: Any) -> Any:
    """Returns a copy of a JSON value in which a random part is another value, or missing."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {other: part for other, part in value.items() if other != key}
        return {**value, key: mutate(rng, value[key])}
    if isinstance(value, list) and value and rng.random() < 0.9:
        position = rng.randrange(len(value))
        return [*value[:position], mutate(rng, value[position]), *value[position + 1 :]]
    return random_value(rng)


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}, {"id": 2, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "dog", "supercategory": "pet"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0, "score": 0.9},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [1.5, 2, 3, 2], "score": 0.1},
    ],
    "failures": [],
}
LABELME = {
    "shapes": [{"label": "dog", "points": [[1, 2], [3, 4], [5, 1]], "shape_type": "polygon"}],
    "imagePath": "a.jpg",
    "imageHeight": 80,
    "imageWidth": 100,
}
LABEL_STUDIO_VALUE = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["dog"]}
LABEL_STUDIO_SIZE = {"original_width": 90, "original_height": 70, "image_rotation": 0}
LABEL_STUDIO_RESULT = {"type": "rectanglelabels", "value": LABEL_STUDIO_VALUE, **LABEL_STUDIO_SIZE}
LABEL_STUDIO = [
    {"data": {"image": "a.jpg"}, "annotations": [{"result": [LABEL_STUDIO_RESULT], "was_cancelled": False}]},
]


@pytest.mark.parametrize(
    ("content", "read", "errors"),
    [
        (COCO, lambda folder: read_instances(folder / "a.json", folder), CocoError),
        (COCO, lambda folder: list(open_dataset(folder / "a.json", folder)), CocoError),
        (COCO, lambda folder: read_detections(folder / "a.json"), CocoError),
        (COCO["annotations"], lambda folder: read_detections(folder / "a.json"), CocoError),
        (LABELME, lambda folder: list(open_labelme(folder)), (AnnotationError, LayoutError)),
        (LABEL_STUDIO, lambda folder: list(open_label_studio(folder / "a.json")), (AnnotationError, LayoutError)),
    ],
)
def test_any_json_value_in_any_field_is_read_or_refused(
    tmp_path: Path, content: Any, read: Callable[[Path], Any], errors: type[Exception]
) -> None:
    rng = random.Random(0)
    (tmp_path / "a.jpg").touch()
    refused = []
    for _ in range(COUNT):
        (tmp_path / "a.json").write_text(json.dumps(mutate(rng, content)))
        try:
            read(tmp_path)
        except errors as error:
            refused.append(str(error))
    assert COUNT / 10 < len(refused) < COUNT
    assert all("a.json" in message and len(message) < 600 for message in refused)


def test_a_lenient_reader_keeps_the_other_detections(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(COUNT):
        entries = [COCO["annotations"][0], mutate(rng, COCO["annotations"][0]), COCO["annotations"][0]]
        (tmp_path / "a.json").write_text(json.dumps(entries))
        got = read_detections(tmp_path / "a.json", lenient=True)
        assert len(got.scores) + got.skipped == 3
        assert got.xywh[[0, -1]].tolist() == [[1, 2, 30, 20]] * 2


XML = (
    "<annotation><filename>a</filename><size><width>9</width><height>9</height></size><object><name>dog</name>"
    "<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    "</annotation>"
)


def test_changed_bytes_of_xml_files_are_read_or_refused(tmp_path: Path) -> None:
    rng, refused = random.Random(0), []
    for _ in range(COUNT):
        content = bytearray(XML.encode())
        for _ in range(rng.randrange(1, 4)):
            position = rng.randrange(len(content))
            content[position : position + rng.randrange(3)] = rng.choice((b"", b"9", b"-", b"e", b"&", b"<", b"\xff"))
        (tmp_path / "a.xml").write_bytes(content)
        try:
            found = read_annotation(tmp_path / "a.xml")
        except AnnotationError as error:
            refused.append(str(error))
        else:
            assert (box_ops.area(found.boxes) > 0).all()
    assert all("a.xml" in message for message in refused)


@pytest.mark.parametrize("lenient", [False, True])
def test_changed_bytes_of_submissions_are_read_or_refused(tmp_path: Path, lenient: bool) -> None:
    rng, refused = random.Random(0), []
    line = b"1 2 0.5 1 1 5 5\n"
    for _ in range(COUNT):
        content = bytearray(line * 3)
        position = len(line) + rng.randrange(len(line) - 1)
        content[position : position + rng.randrange(2)] = rng.choice(
            (b"", b"9", b"-", b"e9", b"_", b"\xa0", b"\xc2\xa0")
        )
        (tmp_path / "a.txt").write_bytes(content)
        try:
            found = read_submission(tmp_path / "a.txt", lenient)
        except SubmissionError as error:
            refused.append(str(error))
        else:
            assert len(found) + found.skipped == 3
    assert all("a.txt, line 2: " in message and not lenient for message in refused)


def test_any_line_of_a_list_is_a_name_and_an_index_or_refused(tmp_path: Path) -> None:
    rng, refused = random.Random(0), []
    parts = ["a", "b c", " ", "  ", "\t", "7", "-1", "0", "1", "'", '"', ".jpg", "/", "\0", "é", "9" * 20, "\u2028"]
    for _ in range(COUNT):
        lines = ["".join(rng.choices(parts, k=rng.randrange(1, 7))) for _ in range(2)]
        (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
        try:
            found = read_image_list(tmp_path / "a.txt", [tmp_path])
        except LayoutError as error:
            refused.append(str(error))
        else:
            assert len(found) == sum(bool(line.strip(" \t")) for line in lines)
            assert all(name for name, _ in found)
            assert len({index for _, index in found}) == len(found)
    assert all("a.txt" in message for message in refused)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.uniform(-50, 500, (count, 2, 2)).astype(np.float32)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def test_conversions_of_boxes_are_inverses() -> None:
    boxes = random_boxes(np.random.default_rng(0), 1000)
    assert np.array_equal(box_ops.from_inclusive(box_ops.to_inclusive(boxes)), boxes)
    assert np.array_equal(box_ops.from_xywh(box_ops.to_xywh(boxes)), boxes)


def test_flips_keep_areas_and_overlaps() -> None:
    boxes = np.rint(random_boxes(np.random.default_rng(1), 60))
    flipped = box_ops.flip_horizontal(boxes, 640)
    assert np.array_equal(box_ops.flip_horizontal(flipped, 640), boxes)
    assert np.array_equal(box_ops.area(flipped), box_ops.area(boxes))
    assert np.array_equal(box_ops.iou(flipped, flipped), box_ops.iou(boxes, boxes))


def test_clipped_boxes_are_inside_and_stay_when_clipped_again() -> None:
    boxes = random_boxes(np.random.default_rng(2), 1000)
    clipped = box_ops.clip(boxes, 300, 200)
    assert ((clipped >= 0) & (clipped <= (300, 200, 300, 200))).all()
    assert np.array_equal(box_ops.clip(clipped, 300, 200), clipped)
    assert (box_ops.area(clipped) <= box_ops.area(boxes)).all()
    assert not box_ops.reach_beyond(clipped, 300, 200, tolerance=0).any()


def test_overlaps_are_those_of_a_plain_loop() -> None:
    a, b = (random_boxes(np.random.default_rng(seed), 20).astype(np.float64) for seed in (3, 4))
    for row, (x1, y1, x2, y2) in enumerate(a):
        for column, (u1, v1, u2, v2) in enumerate(b):
            shared = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
            union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
            assert box_ops.iou(a, b)[row, column] == pytest.approx(shared / union, abs=1e-5)
