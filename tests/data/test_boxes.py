"""Boxes: invariants of random boxes, and hand-computed values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from inception_rcnn.data.boxes import (
    area,
    clip,
    flip_horizontal,
    from_inclusive,
    from_xywh,
    iou,
    reach_beyond,
    to_inclusive,
    to_xywh,
)

WIDTH, HEIGHT = 640, 480


def random_boxes(count: int, seed: int, whole: bool = False) -> npt.NDArray[np.float32]:
    """Returns boxes inside a 640 x 480 picture."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * (WIDTH, HEIGHT)
    boxes = corners.reshape(count, 4)
    return (np.round(boxes) if whole else boxes).astype(np.float32)


def test_the_box_of_the_whole_picture_has_the_area_of_the_picture() -> None:
    assert area([[0, 0, WIDTH, HEIGHT]]) == WIDTH * HEIGHT


def test_empty_and_inverted_boxes_have_no_area() -> None:
    assert area([[5, 5, 5, 9], [9, 9, 3, 3], [9, 1, 3, 5]]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
        ([0, 0, 10, 10], [2, 2, 6, 6], 0.16),  # inside
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # half-open boxes that touch do not overlap
        ([0, 0, 10, 10], [20, 20, 30, 30], 0.0),
        ([3, 3, 3, 3], [3, 3, 3, 3], 0.0),  # empty: no division by zero
    ],
)
def test_iou_of_hand_made_pairs(a: list[float], b: list[float], expected: float) -> None:
    assert iou([a], [b]) == pytest.approx(expected, abs=1e-6)


def test_iou_is_symmetric_bounded_and_one_with_itself() -> None:
    a, b = random_boxes(50, seed=1), random_boxes(30, seed=2)
    overlaps = iou(a, b)
    assert overlaps.shape == (50, 30)
    assert overlaps.dtype == np.float32
    assert np.array_equal(overlaps, iou(b, a).T)
    assert overlaps.min() >= 0
    assert overlaps.max() <= 1
    assert np.diag(iou(a, a)) == pytest.approx(1)


def test_iou_equals_counting_pixels() -> None:
    a, b = (random_boxes(12, seed, whole=True) // 16 for seed in (3, 4))

    def mask(box: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        x1, y1, x2, y2 = box.astype(int)
        pixels = np.zeros((HEIGHT // 16, WIDTH // 16), np.bool_)
        pixels[y1:y2, x1:x2] = True
        return pixels

    counted = [[(mask(p) & mask(q)).sum() / max((mask(p) | mask(q)).sum(), 1) for q in b] for p in a]
    assert iou(a, b) == pytest.approx(np.array(counted), abs=1e-6)


def test_clipping_keeps_boxes_inside_and_empties_boxes_outside() -> None:
    boxes = [[-5, -5, 700, 500], [10, 20, 30, 40], [700, 10, 800, 20]]
    clipped = clip(boxes, WIDTH, HEIGHT)
    assert clipped.tolist() == [[0, 0, WIDTH, HEIGHT], [10, 20, 30, 40], [WIDTH, 10, WIDTH, 20]]
    assert area(clipped)[2] == 0


def test_clipping_does_not_change_its_argument() -> None:
    boxes = np.array([[-5, -5, 700, 500]], np.float32)
    clip(boxes, WIDTH, HEIGHT)
    assert boxes.tolist() == [[-5, -5, 700, 500]]


def test_flipping_twice_returns_the_boxes() -> None:
    boxes = random_boxes(200, seed=5)
    flipped = flip_horizontal(boxes, WIDTH)
    assert area(flipped) == pytest.approx(area(boxes), rel=1e-3, abs=0.1)
    assert flip_horizontal(flipped, WIDTH) == pytest.approx(boxes, abs=1e-4)


def test_a_flipped_box_covers_the_same_pixels_of_the_flipped_picture() -> None:
    picture = np.arange(5 * 9).reshape(5, 9)
    x1, y1, x2, y2 = flip_horizontal([[1, 2, 4, 5]], 9)[0].astype(int)
    assert picture[:, ::-1][y1:y2, x1:x2].tolist() == picture[2:5, 1:4][:, ::-1].tolist()


def test_inclusive_boxes_count_pixels_from_one() -> None:
    assert from_inclusive([[1, 1, 1, 1], [1, 1, WIDTH, HEIGHT]]).tolist() == [[0, 0, 1, 1], [0, 0, WIDTH, HEIGHT]]


def test_unsigned_coordinates_do_not_wrap() -> None:
    assert from_inclusive(np.array([[0, 0, 4, 4]], np.uint16)).tolist() == [[-1, -1, 4, 4]]
    assert flip_horizontal(np.array([[0, 0, 200, 10]], np.uint8), 100).tolist() == [[-100, 0, 100, 10]]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("to", "back"), [(to_inclusive, from_inclusive), (to_xywh, from_xywh)])
def test_converting_to_a_file_convention_and_back_returns_the_same_boxes(
    to: Callable[..., npt.NDArray[np.float64]], back: Callable[..., npt.NDArray[np.float32]], whole: bool
) -> None:
    boxes = random_boxes(2000, seed=6, whole=whole)
    written = to(boxes)
    assert written.dtype == np.float64
    assert np.array_equal(back(written), boxes)


def test_converting_whole_inclusive_boxes_to_the_program_and_back_returns_the_same_boxes() -> None:
    written = to_inclusive(random_boxes(500, seed=7, whole=True))
    assert np.array_equal(to_inclusive(from_inclusive(written)), written)


def test_xywh_is_corner_and_size() -> None:
    assert to_xywh([[10, 20, 40, 60]]).tolist() == [[10, 20, 30, 40]]


NO_BOXES = [[], np.zeros((0, 4), np.float32), np.zeros((0, 4), np.int64)]


@pytest.mark.parametrize("none", NO_BOXES)
def test_functions_accept_no_boxes(none: npt.ArrayLike) -> None:
    assert area(none).shape == (0,)
    assert iou(none, none).shape == (0, 0)
    assert iou(none, [[0, 0, 1, 1]]).shape == (0, 1)
    assert iou([[0, 0, 1, 1]], none).shape == (1, 0)
    for empty in (clip(none, 5, 5), flip_horizontal(none, 5), from_inclusive(none), from_xywh(none)):
        assert empty.shape == (0, 4)
        assert empty.dtype == np.float32
    assert to_inclusive(none).shape == to_xywh(none).shape == (0, 4)


@pytest.mark.parametrize("wrong", [[1, 2, 3, 4], [[1, 2, 3]], np.zeros((2, 5)), np.zeros((1, 1, 4)), 7])
def test_the_error_for_another_shape_names_the_shape(wrong: npt.ArrayLike) -> None:
    shape = list(np.shape(wrong))
    with pytest.raises(ValueError, match=r"expected an array \[N, 4\]") as caught:
        area(wrong)
    assert str(shape) in str(caught.value)


def test_the_error_of_iou_names_the_argument() -> None:
    with pytest.raises(ValueError, match=r"^b: expected"):
        iou([[0, 0, 1, 1]], [0, 0, 1, 1])


@pytest.mark.parametrize(
    ("box", "beyond"),
    [
        ((0, 0, 60, 40), False),
        ((-1, -1, 61, 41), False),  # one pixel: files that count from 0 extend so far
        ((-1.5, 0, 60, 40), True),
        ((0, -1.5, 60, 40), True),
        ((0, 0, 61.5, 40), True),
        ((0, 0, 60, 41.5), True),
    ],
)
def test_boxes_reach_beyond_a_picture_if_they_extend_more_than_a_pixel(box: tuple, beyond: bool) -> None:
    assert reach_beyond([box], 60, 40).tolist() == [beyond]
    assert reach_beyond([], 60, 40).tolist() == []
