"""Detections in Parquet files, read with pyarrow."""

import numpy as np
import pytest

from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.data.picture_detections import PictureDetections

parquet = pytest.importorskip("pyarrow.parquet", reason="requires the extra [ray]")

from inception_rcnn.data.parquet import ParquetWriter  # noqa: E402

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))
FINEST = (Subclass("n02111889", "Samoyed", 58),)


def add(writer: ParquetWriter, name: str, count: int) -> np.ndarray:
    boxes = np.arange(4 * count, dtype=np.float32).reshape(-1, 4) / 3
    subclasses = np.array([0, -1, -1])[:count]
    writer.add(
        PictureDetections(name, 40, 30, boxes, np.full(count, 0.3, np.float32), np.resize([58, 7], count), subclasses)
    )
    return boxes


def test_each_picture_is_a_row_with_its_detections(tmp_path):
    with ParquetWriter(tmp_path / "new" / "a.parquet", CATEGORIES, FINEST) as writer:
        boxes = add(writer, "größe.jpg", 3)
        writer.fail("b.jpg", "truncated")
        add(writer, "c.jpg", 0)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.parquet"]
    found, failed, empty = parquet.read_table(tmp_path / "new" / "a.parquet").to_pylist()
    np.testing.assert_array_equal(np.array(found.pop("boxes"), np.float32), boxes)
    assert found == {
        "picture": 0,
        "file_name": "größe.jpg",
        "width": 40,
        "height": 30,
        "failure": None,
        "scores": [np.float32(0.3)] * 3,
        "labels": [58, 7, 58],
        "names": ["dog", "domestic cat", "dog"],
        "finest_names": ["dog: Samoyed", "domestic cat", "dog"],
    }
    assert (failed["picture"], failed["width"], failed["failure"], failed["boxes"]) == (1, None, "truncated", [])
    assert (empty["picture"], empty["width"], empty["failure"], empty["boxes"]) == (2, 40, None, [])


def test_pictures_are_written_in_order_in_several_row_groups(tmp_path):
    with ParquetWriter(tmp_path / "a.parquet", CATEGORIES, FINEST) as writer:
        for number in range(2500):
            add(writer, f"{number}.jpg", number % 2)
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert file.num_row_groups > 1
    assert file.read(["file_name"])["file_name"].to_pylist() == [f"{number}.jpg" for number in range(2500)]


def test_an_exception_leaves_the_old_file(tmp_path):
    (tmp_path / "a.parquet").write_text("old")

    def interrupted() -> None:
        with ParquetWriter(tmp_path / "a.parquet", CATEGORIES, FINEST) as writer:
            add(writer, "a.jpg", 1)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        interrupted()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.parquet", "old")]
