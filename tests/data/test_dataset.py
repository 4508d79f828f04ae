"""A data set is a sequence that reads its samples on first access and can be pickled."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample

CATEGORIES = (Category(1, "n01", "cat"),)
read_records: list[int] = []


def read(record: int) -> Sample:
    read_records.append(record)
    boxes = np.full((record, 4), record, np.float32)
    return Sample(
        f"p{record}", record, Path(f"p{record}.jpg"), boxes, np.ones(record, np.int64), np.zeros(record, bool)
    )


@pytest.fixture
def dataset() -> Dataset:
    read_records.clear()
    return Dataset("numbers", CATEGORIES, [0, 1, 2, 3], read)


def test_a_sample_is_read_on_first_access(dataset: Dataset) -> None:
    assert len(dataset) == 4
    assert dataset[-2].image_id == "p2"
    assert read_records == [2]


def test_a_sample_is_read_once(dataset: Dataset) -> None:
    assert dataset[3] is dataset[3] is dataset[-1]
    assert read_records == [3]


def test_a_data_set_is_a_sequence(dataset: Dataset) -> None:
    assert [sample.index for sample in dataset] == [0, 1, 2, 3]
    assert [sample.index for sample in reversed(dataset)] == [3, 2, 1, 0]
    with pytest.raises(IndexError):
        dataset[4]


def test_a_slice_is_a_dataset_of_the_same_classes(dataset: Dataset) -> None:
    part = dataset[1:3]
    assert isinstance(part, Dataset)
    assert [sample.index for sample in part] == [1, 2]
    assert (part.name, part.categories) == ("numbers", CATEGORIES)
    assert len(dataset[9:]) == 0


def test_a_sample_may_have_no_objects(dataset: Dataset) -> None:
    assert dataset[0].boxes.shape == (0, 4)


def test_the_arrays_of_a_sample_are_read_only(dataset: Dataset) -> None:
    with pytest.raises(ValueError, match="read-only"):
        dataset[1].boxes[0, 0] = 5


def test_a_pickle_does_not_contain_the_samples(dataset: Dataset) -> None:
    fresh = pickle.dumps(dataset)
    assert dataset[2].index == 2
    assert pickle.dumps(dataset) == fresh
    read_records.clear()
    assert np.array_equal(pickle.loads(fresh)[2].boxes, dataset[2].boxes)
    assert read_records == [2]


@pytest.mark.parametrize(("share", "held"), [(0.2, 2), (0.01, 1), (0.99, 9), (0.55, 6)])
def test_a_share_of_the_pictures_is_held_out(share: float, held: int) -> None:
    dataset = Dataset("garden", (Category(1, "n1", "dog"),), range(10), str)  # type: ignore[arg-type]
    trained, measured = dataset.hold_out(share, seed=3)
    assert (len(trained), len(measured)) == (10 - held, held)
    assert (trained.name, measured.name) == ("garden", "garden (held out)")
    assert sorted([*trained._records, *measured._records]) == list(range(10))
    assert dataset.hold_out(share, seed=3)[1]._records == measured._records
    assert {tuple(dataset.hold_out(share, seed=seed)[1]._records) for seed in range(9)} != {tuple(measured._records)}


@pytest.mark.parametrize(("pictures", "share"), [(10, 0.0), (10, 1.0), (1, 0.5), (0, 0.5)])
def test_a_part_that_would_be_empty_is_refused(pictures: int, share: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        Dataset("garden", (), range(pictures), str).hold_out(share, seed=0)  # type: ignore[arg-type]


def test_a_picture_is_left_out_under_the_name_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")

    def opened(*names: str) -> Dataset:
        samples = [Sample.from_annotation(name, 1, tmp_path / name, None, {}) for name in names]
        return Dataset("a", (), samples, lambda sample: sample)

    left = opened("link.jpg", "b.jpg").without(opened("a.jpg"))
    assert [sample.image_id for sample in left] == ["b.jpg"]
