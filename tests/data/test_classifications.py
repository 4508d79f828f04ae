"""The files of predictions."""

import csv
import json

import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.classifications import ClassificationsWriter

CLASSES = (Category(0, "n01", "dog"), Category(1, "n02", 'cat, "tame"'))


def test_predictions_and_failures_are_written_to_both_files(tmp_path):
    with ClassificationsWriter(tmp_path / "out", CLASSES) as writer:
        writer.add("größe.jpg", [1, 0], [0.75, 0.25])
        writer.add("\udcff.jpg", [0], [1 / 3])
        writer.fail("b.jpg", "truncated")
        writer.measure({"measured": {"images": 2}})
    document = json.loads((tmp_path / "out" / "classes.json").read_text(encoding="utf-8"))
    cat = {"class_id": 1, "wnid": "n02", "name": 'cat, "tame"', "probability": 0.75}
    dog = {"class_id": 0, "wnid": "n01", "name": "dog", "probability": 0.25}
    assert document == {
        "images": [
            {"file_name": "größe.jpg", "predictions": [cat, dog]},
            {"file_name": "\udcff.jpg", "predictions": [{**dog, "probability": 0.333333}]},
        ],
        "failures": [{"file_name": "b.jpg", "reason": "truncated"}],
        "measured": {"images": 2},
    }
    with (tmp_path / "out" / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["file", "rank", "class_id", "wnid", "name", "probability"],
        ["größe.jpg", "1", "1", "n02", 'cat, "tame"', "0.750000"],
        ["größe.jpg", "2", "0", "n01", "dog", "0.250000"],
        ["\\udcff.jpg", "1", "0", "n01", "dog", "0.333333"],
    ]


def test_no_pictures_make_a_valid_file(tmp_path):
    with ClassificationsWriter(tmp_path, CLASSES):
        pass
    assert json.loads((tmp_path / "classes.json").read_text()) == {"images": [], "failures": []}


def test_an_error_leaves_older_files_as_they_were(tmp_path):
    (tmp_path / "classes.json").write_text("old")

    def write() -> None:
        with ClassificationsWriter(tmp_path, CLASSES) as writer:
            writer.add("a.jpg", [0], [1.0])
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.json"]
    assert (tmp_path / "classes.json").read_text() == "old"
