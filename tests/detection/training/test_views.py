from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.dataset import Sample
from inception_rcnn.detection.training.views import SHOWN, draw_view, render_view

WIDTH, HEIGHT, SIZE = 120, 80, 96


def sample(*boxes, difficult=None):
    array = np.array(boxes, np.float32).reshape(-1, 4)
    hard = np.zeros(len(array), bool) if difficult is None else np.array(difficult)
    return Sample("a", 1, Path("a.jpg"), array, np.ones(len(array), np.int64), hard)


def draw(of, number, seed):
    return draw_view(of, WIDTH, HEIGHT, SIZE, number, np.random.default_rng(seed))


def test_the_first_view_is_the_whole_picture_with_all_objects():
    objects = sample([0, 0, 60, 40], [30, 20, 120, 80])
    for seed in range(4):
        view = draw(objects, 0, seed)
        expected = np.array([[0, 0, 48, 48], [24, 24, 96, 96]], np.float32)
        if view.mirrored:
            expected = np.array([[48, 0, 96, 48], [0, 24, 72, 96]], np.float32)
        np.testing.assert_allclose(view.boxes, expected, atol=1e-4)
        assert not len(view.ignored)


@pytest.mark.parametrize("seed", range(30))
def test_boxes_lie_on_their_objects_in_the_pixels_that_are_shown(seed):
    # bright objects on dark ground: what is bright in the view must be what the boxes cover, up to a pixel of blur
    image = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    image[10:40, 15:50] = image[50:78, 70:118] = 240
    view = draw(sample([15, 10, 50, 40], [70, 50, 118, 78]), 1, seed)
    pixels = render_view(image, view, SIZE, np.random.default_rng(seed))
    assert pixels.shape == (SIZE, SIZE, 3)
    assert len(view.boxes)
    brightness = pixels.mean(axis=2)
    for x1, y1, x2, y2 in view.boxes:
        left, top, right, bottom = int(np.ceil(x1)) + 2, int(np.ceil(y1)) + 2, int(x2) - 2, int(y2) - 2
        inside = brightness[top:bottom, left:right]
        assert inside.min() > brightness.min() + 60
        for outside in (
            brightness[top:bottom, max(int(x1) - 3, 0) : max(int(x1) - 2, 0)],
            brightness[max(int(y1) - 3, 0) : max(int(y1) - 2, 0), left:right],
        ):
            assert (outside < inside.min() - 20).all()


@pytest.mark.parametrize("seed", range(20))
def test_objects_cut_below_their_share_and_difficult_ones_are_ignored_not_lost(seed):
    objects = sample([5, 5, 45, 45], [50, 10, 110, 70], [60, 60, 80, 75], difficult=[False, False, True])
    view = draw(objects, 1, seed)
    scale = SIZE / (view.window[2:] - view.window[:2])
    found = ignored = 0
    for box, hard in zip(objects.boxes, objects.difficult, strict=True):
        low = np.maximum(box[:2], view.window[:2])
        high = np.minimum(box[2:], view.window[2:])
        share = np.maximum(high - low, 0).prod() / (box[2:] - box[:2]).prod()
        if share >= SHOWN and not hard:
            found += 1
        elif share > 0:
            ignored += 1
    assert (len(view.boxes), len(view.ignored)) == (found, ignored)
    assert view.boxes.min() >= 0
    assert view.boxes.max() <= SIZE
    assert (scale > 0).all()


def test_a_picture_without_objects_is_shown_whole():
    view = draw(sample(), 3, 0)
    assert view.window.tolist() == [0, 0, WIDTH, HEIGHT]
    assert view.boxes.shape == view.ignored.shape == (0, 4)


def test_the_same_seed_draws_the_same_view():
    objects = sample([5, 5, 45, 45])
    first, again = draw(objects, 2, 7), draw(objects, 2, 7)
    np.testing.assert_array_equal(first.window, again.window)
    assert first.mirrored == again.mirrored
