"""Which pictures are trained on, fitted on and measured on."""

from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.training.split import seen_and_unseen, untrained_pictures


def read(number: int) -> Sample:
    """A picture with ten objects, half of which are difficult."""
    difficult = np.arange(10) % 2 == 1
    boxes, labels = np.tile(np.array([0, 0, 5, 5], np.float32), (10, 1)), np.ones(10, np.int64)
    return Sample(str(number), number, Path(f"{number}.png"), boxes, labels, difficult)


def pictures(*numbers: int) -> Dataset:
    return Dataset("drawings", (Category(1, "a", "a"),), numbers, read)


def names(dataset: Dataset) -> list[int]:
    return [int(sample.image_id) for sample in dataset]


@pytest.mark.parametrize(("count", "unseen"), [(0, 0), (149, 0), (150, 10), (300, 20), (3000, 80)])
def test_a_fifteenth_of_the_pictures_but_at_most_80_is_not_trained_on(count, unseen):
    # 149 pictures: nine would be left out, and they have 45 objects that are not difficult.
    seen, others = (names(part) for part in seen_and_unseen(pictures(*range(count)), seed=0))
    assert len(others) == unseen
    assert sorted(seen + others) == list(range(count))
    assert (seen, others) == (sorted(seen), sorted(others))


def test_the_seed_decides_which_pictures_are_not_trained_on():
    everything = pictures(*range(300))
    first, again, other = (names(seen_and_unseen(everything, seed)[1]) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_detector_is_measured_only_on_pictures_that_are_not_trained_on():
    warnings: list[str] = []
    untrained = untrained_pictures(pictures(1, 2, 3), pictures(2, 5), warnings.append)
    assert untrained is not None
    assert names(untrained) == [1, 3]
    assert not warnings
    assert untrained_pictures(pictures(1, 2), pictures(2, 1), warnings.append) is None
    assert warnings == ["drawings: all of its pictures are trained on, so the detector is not measured"]
