import numpy as np
import pytest

from inception_rcnn.detection.pipeline import batch_regions, pooled_features


class CountingEngine:
    """Features of a crop: its first pixel."""

    def __init__(self):
        self.calls = []

    def features(self, crops):
        self.calls.append(len(crops))
        return crops[:, 0, 0].astype(np.float32)


def warp(picture, boxes, out):
    out[:] = 0
    out[:, 0, 0] = boxes[:, :3]


def pictures(counts):
    """Pictures named by their place, whose boxes are numbered through."""
    first = 0
    for name, count in enumerate(counts):
        numbers = np.arange(first, first + count, dtype=np.float32)
        yield name, np.stack([numbers % 256, numbers // 256, numbers * 0 + name % 256, numbers], axis=1)
        first += count


COUNTS = [[], [0], [5], [3, 0, 0, 4], [10, 1, 0, 25, 7], [1] * 50, [0] * 40 + [9], [8, 8, 8]]


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("counts", COUNTS, ids=str)
def test_features_come_back_picture_by_picture_whatever_the_size_of_lots(counts, size):
    engines = [CountingEngine(), CountingEngine()]
    found = list(pooled_features(engines, batch_regions(pictures(counts), size, warp)))
    expected = list(pictures(counts))
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (_, features), (_, boxes) in zip(found, expected, strict=True):
        assert len(features) == 2
        for values in features:
            np.testing.assert_array_equal(values, boxes[:, :3])
    assert engines[0].calls == engines[1].calls


def test_lots_are_full_but_for_the_last():
    sizes = [len(batch.crops) for batch in batch_regions(pictures([10, 3, 20, 9]), 8, warp)]
    assert sizes == [8, 8, 8, 8, 8, 2]


def test_lots_for_a_gpu_are_tensors_there():
    seen = []
    batches = batch_regions(
        pictures([3]), 2, lambda picture, boxes, out: seen.append((out.device.type, tuple(out.shape))), "meta"
    )
    assert [(batch.crops.device.type, len(batch.crops)) for batch in batches] == [("meta", 2), ("meta", 1)]
    assert seen == [("meta", (2, 224, 224, 3)), ("meta", (1, 224, 224, 3))]


def test_pictures_without_regions_do_not_wait_for_ever():
    def endless():
        while True:
            yield "empty", np.zeros((0, 4), np.float32)

    batch = next(batch_regions(endless(), 8, warp))
    assert len(batch.crops) == 0
    assert all(part.last for part in batch.parts)
