"""Detections in a CSV file."""

import csv

import numpy as np
import pytest

from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.data.detections_csv import CsvWriter
from inception_rcnn.data.picture_detections import PictureDetections

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n7", 'cat, "fat"'))
FINEST = (Subclass("n02111889", "Samoyed", 58),)


def test_each_detection_is_a_row(tmp_path):
    file = tmp_path / "new" / "detections.csv"
    boxes = np.array([[1.5, 2, 30.25, 40], [0, 0, 5, 5]], np.float32)
    with CsvWriter(file, CATEGORIES, FINEST) as writer:
        scores, labels = np.array([0.75, 0.5], np.float32), np.array([58, 7])
        writer.add(PictureDetections("a, b\n.jpg", 50, 40, boxes, scores, labels, np.array([0, -1])))
        writer.fail("broken.jpg", "truncated")
        writer.add(PictureDetections("\udcff.jpg", 50, 40, boxes[:1], scores[:1], labels[:1]))
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file_name"] for row in rows] == ["a, b\n.jpg", "a, b\n.jpg", "\\udcff.jpg"]
    assert [float(rows[0][side]) for side in ("x1", "y1", "x2", "y2", "score")] == [1.5, 2, 30.25, 40, 0.75]
    assert [(row["label"], row["wnid"], row["name"]) for row in rows[:2]] == [
        ("58", "n02084071", "dog"),
        ("7", "n7", 'cat, "fat"'),
    ]
    assert [row["finest_name"] for row in rows] == ["dog: Samoyed", 'cat, "fat"', "dog"]
    assert (rows[0]["width"], rows[0]["height"]) == ("50", "40")


def test_an_exception_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("old")
    with pytest.raises(KeyError), CsvWriter(file, CATEGORIES) as writer:
        writer.add(PictureDetections("a.jpg", 5, 5, np.zeros((1, 4)), np.zeros(1), np.array([99])))
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
