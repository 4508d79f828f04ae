"""Packing regions of several pictures into batches, and handing their scores back."""

import numpy as np
import pytest

from inception_rcnn.detection import pipeline
from inception_rcnn.detection.engines.ensemble import FirstScores
from inception_rcnn.detection.pipeline import batch_regions, score_regions


class FirstPixelEnsemble:
    """Stands in for `EnsembleEngine`: the probabilities and the features of a crop are its first pixel.

    Every third crop of the stream may show an object. Notes the size of each batch.
    """

    def __init__(self):
        self.sizes = []
        self.passed = []

    def first(self, crops):
        self.sizes.append(len(crops))
        pixels = crops[:, 0, 0].astype(np.float32)
        objectness = np.where((pixels[:, 0] + 256 * pixels[:, 1]) % 3 == 0, 1, 0).astype(np.float32)
        rows = np.flatnonzero(objectness)
        return FirstScores(pixels, objectness, pixels, rows, crops[rows])

    def mean(self, scores):
        self.passed.append(sum(len(one.rows) for one in scores))
        return [one.probabilities for one in scores]


def warp(picture, boxes, out):
    """Stands in for warping: the first pixel of a crop is the first three coordinates of the box."""
    out[:] = 0
    out[:, 0, 0] = boxes[:, :3]


def pictures(counts):
    """Pictures numbered from 0. The coordinates of a box encode its number in the stream and its picture."""
    first = 0
    for name, count in enumerate(counts):
        numbers = np.arange(first, first + count, dtype=np.float32)
        yield name, np.stack([numbers % 256, numbers // 256, numbers * 0 + name % 256, numbers], axis=1)
        first += count


COUNTS = [[], [0], [5], [3, 0, 0, 4], [10, 1, 0, 25, 7], [1] * 50, [0] * 40 + [9], [8, 8, 8]]


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_scores_come_back_picture_by_picture_whatever_the_batch_size(counts, size):
    ensemble = FirstPixelEnsemble()
    found = list(score_regions(ensemble, batch_regions(pictures(counts), size, warp)))
    expected = list(pictures(counts))
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, scores), (_, boxes) in zip(found, expected, strict=True):
        may_show_objects = np.flatnonzero(boxes[:, 3] % 3 == 0)
        np.testing.assert_array_equal(scores.probabilities, boxes[:, :3])
        np.testing.assert_array_equal(scores.kept, may_show_objects)
        np.testing.assert_array_equal(scores.features, boxes[may_show_objects, :3])
    assert sum(ensemble.sizes) == sum(counts)
    assert max(ensemble.sizes, default=0) <= size


def test_the_other_members_wait_for_enough_passed_regions_but_not_for_many_pictures():
    # Every third region passes. Batches of 6 regions pass 2 each, so three batches reach 5 passed regions.
    ensemble = FirstPixelEnsemble()
    assert len(list(score_regions(ensemble, batch_regions(pictures([60]), 6, warp), passed=5))) == 1
    assert ensemble.passed == [6, 6, 6, 2]
    ensemble = FirstPixelEnsemble()  # 16 pictures do not wait for others
    assert len(list(score_regions(ensemble, batch_regions(pictures([1] * 20), 8, warp), passed=1000))) == 20
    assert ensemble.passed == [1, 5, 1]  # the first picture, 16 pictures, the others


def test_batches_are_full_after_the_first_picture():
    sizes = [len(batch.crops) for batch in batch_regions(pictures([10, 3, 20, 10]), 8, warp)]
    assert sizes == [8, 2, 8, 8, 8, 8, 1]


def test_the_first_picture_comes_before_the_second_is_read():
    read = []

    def reading():
        for name, boxes in pictures([3, 3, 3]):
            read.append(name)
            yield name, boxes

    scored = score_regions(FirstPixelEnsemble(), batch_regions(reading(), 100, warp), passed=1000)
    assert next(scored)[0] == 0
    assert read == [0]


def test_a_picture_does_not_wait_longer_than_ten_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: clock[0])
    read = []

    def reading():  # each picture takes 4 seconds
        for name, boxes in pictures([3] * 8):
            clock[0] += 4
            read.append(name)
            yield name, boxes

    scored = score_regions(FirstPixelEnsemble(), batch_regions(reading(), 1000, warp), passed=1000)
    assert [(name, len(read)) for name, _ in scored] == [
        (0, 1), (1, 4), (2, 4), (3, 4), (4, 7), (5, 7), (6, 7), (7, 8),
    ]  # fmt: skip


def test_batches_for_another_device_are_tensors_there():
    seen = []
    batches = batch_regions(
        pictures([3]), 2, lambda picture, boxes, out: seen.append((out.device.type, tuple(out.shape))), "meta"
    )
    assert [(batch.crops.device.type, len(batch.crops)) for batch in batches] == [("meta", 2), ("meta", 1)]
    assert seen == [("meta", (2, 224, 224, 3)), ("meta", (1, 224, 224, 3))]


def test_pictures_without_regions_do_not_wait_for_a_full_batch():
    def endless():
        while True:
            yield "empty", np.zeros((0, 4), np.float32)

    batches = batch_regions(endless(), 8, warp)
    next(batches)  # the first picture
    batch = next(batches)
    assert len(batch.crops) == 0
    assert [(part.count, part.last) for part in batch.parts] == [(0, True)] * 16
