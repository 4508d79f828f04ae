import math
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.windows import (
    BACKGROUNDS_PER_IMAGE,
    IGNORED,
    POSITIVES_PER_OBJECT,
    SCREENED_SHARE,
    BatchSampler,
    Windows,
    collect_windows,
    draw_pool,
    label_windows,
    repeat_factors,
    windows_of_image,
)
from inception_rcnn.proposals.proposals import Proposals


def sample(boxes=(), labels=(), difficult=None, index=1) -> Sample:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.array(labels, np.int64)
    difficult = np.zeros(len(labels), bool) if difficult is None else np.array(difficult)
    return Sample(f"image{index}", index, Path(f"image{index}.JPEG"), boxes, labels, difficult)


def random_boxes(rng, count) -> np.ndarray:
    corner = rng.uniform(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 60, (count, 2))], axis=1).astype(np.float32)


def slow_label(box, objects, labels):
    """The rule, computed box by box: the object with the largest IoU gives the class if the IoU is at least 0.5."""
    best, best_iou = None, -1.0
    for position, other in enumerate(objects):
        w = max(0.0, min(box[2], other[2]) - max(box[0], other[0]))
        h = max(0.0, min(box[3], other[3]) - max(box[1], other[1]))
        union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - w * h
        if w * h / union > best_iou:
            best, best_iou = position, w * h / union
    return labels[best] if best is not None and best_iou >= 0.5 else 0


@pytest.mark.parametrize("objects", [0, 1, 5])
def test_windows_are_labelled_by_the_object_that_they_overlap_most(objects):
    rng = np.random.default_rng(objects)
    truth = sample(random_boxes(rng, objects), rng.integers(1, 9, objects))
    boxes = np.concatenate([random_boxes(rng, 300), truth.boxes])
    labels, _, _ = label_windows(boxes, truth)
    assert labels.tolist() == [slow_label(box, truth.boxes, truth.labels) for box in boxes]
    assert objects == 0 or (labels > 0).sum() > objects


def test_an_overlap_of_exactly_a_half_is_positive():
    labels, _, _ = label_windows(np.array([[0, 0, 10, 5], [0, 0, 10, 4.9]], np.float32), sample([[0, 0, 10, 10]], [3]))
    assert labels.tolist() == [3, 0]


def test_difficult_objects_are_neither_positive_nor_background():
    labels, _, _ = label_windows(
        np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32), sample([[0, 0, 10, 10]], [3], [True])
    )
    assert labels.tolist() == [IGNORED, 0]


def a_dataset(count=6):
    rng = np.random.default_rng(0)
    samples = [sample(random_boxes(rng, n % 3), rng.integers(1, 4, n % 3), index=n + 1) for n in range(count)]
    proposals = {
        s.image_id: Proposals(random_boxes(rng, 400), np.linspace(1, 0, 400, dtype=np.float32)) for s in samples
    }
    dataset = Dataset("random", [Category(1, "a", "a")], samples, lambda s: s)
    return dataset, lambda s: proposals[s.image_id]


def test_windows_of_a_picture_are_limited_and_labelled_by_its_objects():
    dataset, proposals = a_dataset()
    windows = collect_windows(dataset, proposals, seed=0)
    assert sorted(set(windows.images.tolist())) == list(range(6))
    for index, truth in enumerate(dataset):
        mine = windows[windows.images == index]
        assert (mine.labels == 0).sum() <= BACKGROUNDS_PER_IMAGE
        assert (mine.labels > 0).sum() <= POSITIVES_PER_OBJECT * len(truth.boxes)
        labels, _, _ = label_windows(mine.boxes, truth)
        np.testing.assert_array_equal(labels, mine.labels)


@pytest.mark.parametrize("count", [0, 5, 200])
def test_most_backgrounds_come_from_the_regions_that_the_screen_keeps(count):
    dataset, proposals = a_dataset()
    everything = proposals(dataset[2])
    rows = np.random.default_rng(1).permutation(len(everything))[:count]
    boxes, labels = windows_of_image(everything, dataset[2], np.random.default_rng(0), everything[rows])
    backgrounds = int((label_windows(everything.boxes[rows], dataset[2])[0] == 0).sum())
    kept = {tuple(box) for box in everything.boxes[rows].tolist()}
    most = int(SCREENED_SHARE * BACKGROUNDS_PER_IMAGE)
    assert sum(tuple(box) in kept for box in boxes[labels == 0].tolist()) >= min(backgrounds, most)
    assert (labels == 0).sum() == BACKGROUNDS_PER_IMAGE
    np.testing.assert_array_equal(label_windows(boxes, dataset[2])[0], labels)
    if not count:
        without, _ = windows_of_image(everything, dataset[2], np.random.default_rng(0))
        np.testing.assert_array_equal(boxes, without)


def test_a_picture_gives_the_same_windows_whatever_comes_after_it():
    dataset, proposals = a_dataset()
    whole = collect_windows(dataset, proposals, seed=0)
    part = collect_windows(dataset[:4], proposals, seed=0)
    np.testing.assert_array_equal(part.boxes, whole.boxes[whole.images < 4])
    other = collect_windows(dataset, proposals, seed=1)
    assert not np.array_equal(other.boxes, whole.boxes)


def test_no_pictures_give_no_windows():
    assert len(collect_windows(a_dataset()[0][:0], a_dataset()[1], seed=0)) == 0


def test_a_pool_is_a_third_positive_in_the_order_of_the_windows():
    labels = np.array([1, 0, 0, 2] * 100)
    windows = Windows(np.arange(400, dtype=np.int32), np.zeros((400, 4), np.float32), labels)
    pool = draw_pool(windows, 90, seed=0)
    assert len(pool) == 90
    assert (pool.labels > 0).sum() == 30
    assert (np.diff(pool.images) > 0).all()
    assert len(draw_pool(windows, 10_000, seed=0)) == 400


def test_a_pool_has_more_windows_of_rare_classes_than_their_share():
    labels = np.array([1] * 9990 + [2] * 10)
    np.testing.assert_allclose(np.unique(repeat_factors(labels)), [1, math.sqrt(0.01 / 0.001)])
    windows = Windows(np.arange(10_000, dtype=np.int32), np.zeros((10_000, 4), np.float32), labels)
    rare = [int((draw_pool(windows, 3000, seed).labels == 2).sum()) for seed in range(200)]
    # A tenth of the positive windows is drawn: 1 of these 10 without factors, 10 * (1 - 0.9^3.16) = 2.8 with them.
    assert np.mean(rare) == pytest.approx(2.8, abs=0.4)


LABELS = np.array([0] * 50 + [3] * 12 + [1] * 8 + [IGNORED] * 5)


def test_a_batch_has_the_given_numbers_of_positives_and_backgrounds():
    batch = BatchSampler(LABELS, seed=0, positives=6, backgrounds=10)(3)
    assert (LABELS[batch[:6]] > 0).all()
    assert (LABELS[batch[6:]] == 0).all()
    assert len(batch) == 16


def test_every_positive_and_every_background_occurs_equally_often():
    sampler = BatchSampler(LABELS, seed=0, positives=6, backgrounds=10)
    met = np.bincount(np.concatenate([sampler(step) for step in range(30)]), minlength=len(LABELS))
    assert met[:50].tolist() == [6] * 50
    assert met[50:70].tolist() == [9] * 20
    assert met[70:].tolist() == [0] * 5


def test_a_batch_is_a_function_of_seed_and_step_alone():
    a, b = BatchSampler(LABELS, seed=0), BatchSampler(LABELS, seed=0)
    forwards = [a(step) for step in range(10)]
    backwards = [b(step) for step in reversed(range(10))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert not np.array_equal(BatchSampler(LABELS, seed=1)(0), forwards[0])


@pytest.mark.parametrize(("labels", "kind"), [([0, 0], "positive"), ([1, 2], "background"), ([], "positive")])
def test_missing_positives_or_backgrounds_are_an_error(labels, kind):
    with pytest.raises(TrainingError, match=kind):
        BatchSampler(np.array(labels, np.int64), seed=0)
