from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.dataset import Sample
from inception_rcnn.detection.training import views
from inception_rcnn.detection.training.views import draw_view, render_view

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
def test_boxes_cover_their_objects_in_the_rendered_pixels(seed):
    # The objects are bright and the ground is dark: boxes must cover the bright pixels, up to two pixels of blur.
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


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_object_is_found_if_at_least_half_of_it_is_shown_and_else_ignored(monkeypatch, mirrored):
    # The window is 60 pixels wide and high, the view 96: one pixel of the picture is 1.6 pixels of the view.
    monkeypatch.setattr(views, "_draw_window", lambda width, height, rng: np.array([30.0, 10.0, 90.0, 70.0]))
    objects = sample(
        [50, 10, 110, 70],  # x 50 to 90 of 50 to 110 is shown: two thirds
        [5, 5, 45, 45],  # 15 of 40 columns and 35 of 40 rows: a third
        [60, 60, 80, 75],  # 10 of 15 rows: two thirds, but difficult
        [95, 5, 110, 9],  # nothing
        difficult=[False, False, True, False],
    )
    seed = next(seed for seed in range(9) if (np.random.default_rng(seed).random() < 0.5) == mirrored)
    view = draw(objects, 1, seed)
    assert view.mirrored == mirrored
    if mirrored:
        found, ignored = [[0, 0, 64, 96]], [[72, 0, 96, 56], [16, 80, 48, 96]]
    else:
        found, ignored = [[32, 0, 96, 96]], [[0, 0, 24, 56], [48, 80, 80, 96]]
    np.testing.assert_allclose(view.boxes, found, atol=1e-4)
    np.testing.assert_allclose(view.ignored, ignored, atol=1e-4)


def test_windows_lie_in_the_picture_with_a_fifth_of_its_area_or_more_except_one_in_five():
    windows = np.array([views._draw_window(WIDTH, HEIGHT, np.random.default_rng(seed)) for seed in range(500)])
    sides = (windows[:, 2:] - windows[:, :2]) / (WIDTH, HEIGHT)
    reduced = (sides > 1).any(axis=1)
    assert 0.15 < reduced.mean() < 0.25
    assert (sides[reduced] <= 2).all()
    np.testing.assert_allclose(sides[reduced][:, 0], sides[reduced][:, 1])
    inside, areas = windows[~reduced], sides[~reduced].prod(axis=1)
    assert inside.min() >= 0
    assert (inside[:, 2:] <= np.array([WIDTH, HEIGHT]) + 1e-9).all()
    assert 0.2 <= areas.min() < 0.25
    assert areas.max() > 0.9
    aspects = sides[~reduced][:, 0] / sides[~reduced][:, 1]
    assert 0.74 < aspects.min() < 0.8
    assert 1.25 < aspects.max() < 1.34


def test_a_picture_without_objects_is_shown_whole():
    view = draw(sample(), 3, 0)
    assert view.window.tolist() == [0, 0, WIDTH, HEIGHT]
    assert view.boxes.shape == view.ignored.shape == (0, 4)


def test_the_same_seed_draws_the_same_view():
    objects = sample([5, 5, 45, 45])
    first, again = draw(objects, 2, 7), draw(objects, 2, 7)
    np.testing.assert_array_equal(first.window, again.window)
    assert first.mirrored == again.mirrored
