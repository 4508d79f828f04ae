"""warp_regions equals its formula, written here a second time without its code."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from inception_rcnn.detection.warping.warp import MEAN_RGB, WarpMode, warp_regions

MODES: tuple[WarpMode, ...] = ("warp", "square_with_context", "square_without_context")
RED = (255, 0, 0)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Enlarged noise with grain: a picture with about the spectrum of a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 24, width // 24, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float64)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


def boxes_of(*rows: Sequence[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 4)


def reference(
    image: NDArray[np.uint8],
    box: NDArray[np.float32],
    size: int = 224,
    padding: int = 16,
    mode: str = "warp",
    fill: Sequence[int] = MEAN_RGB,
) -> NDArray[np.float64]:
    """The formula of warping/warp.py, not rounded, computed on a copy of the picture that is extended by ``fill``."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in box)
    sx, sy = (x2 - x1) / (size - 2 * padding), (y2 - y1) / (size - 2 * padding)
    if mode != "warp":
        sx = sy = max(sx, sy)
    y = (y1 + y2) / 2 + (np.arange(size) + 0.5 - size / 2) * sy
    x = (x1 + x2) / 2 + (np.arange(size) + 0.5 - size / 2) * sx

    def taps(centres: NDArray[Any], s: float, length: int) -> tuple[int, NDArray[Any]]:
        reach = max(1.0, s) + 1
        before = int(max(0, np.ceil(reach - centres[0])))
        after = int(max(length, np.ceil(centres[-1] + reach)))
        k = np.arange(-before, after)
        t = np.maximum(0, 1 - np.abs(k + 0.5 - centres[:, None]) / max(1.0, s))
        return before, t / t.sum(axis=1, keepdims=True)

    above, u_y = taps(y, sy, height)
    ahead, u_x = taps(x, sx, width)
    extended = np.empty((u_y.shape[1], u_x.shape[1], 3))
    extended[:] = fill
    extended[above : above + height, ahead : ahead + width] = image
    out = np.stack([u_y @ extended[:, :, c] @ u_x.T for c in range(3)], axis=2)
    if mode == "square_without_context":
        position = np.arange(size) + 0.5 - size / 2
        out[np.abs(position) > (y2 - y1) / sy / 2 + padding] = fill
        out[:, np.abs(position) > (x2 - x1) / sx / 2 + padding] = fill
    return out


BOXES = {
    "enlarged": (31.3, 40.2, 71.9, 66.6),
    "shrunk": (5.5, 3.25, 480.0, 371.1),
    "the whole picture": (0, 0, 500, 375),
    "wide: shrunk along x, enlarged along y": (2.2, 100.1, 497.0, 121.7),
    "tall: enlarged along x, shrunk along y": (250.4, 1.0, 262.8, 374.9),
    "half a pixel": (100.2, 100.3, 100.7, 100.8),
    "at the corner": (480, 360, 500, 375),
    "beyond every edge": (-70.5, -33, 560, 444.4),
    "mostly outside": (490, -300, 900, 10),
    "sides of scale 1": (10, 10, 202, 202),
    "sides of a whole scale": (10, 10, 394, 202),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", BOXES)
def test_equals_the_formula(case: str, mode: WarpMode) -> None:
    image, box = noise(375, 500), boxes_of(BOXES[case])
    got = warp_regions(image, box, mode=mode)[0]
    np.testing.assert_allclose(got, reference(image, box[0], mode=mode), rtol=0, atol=0.51)


@pytest.mark.parametrize(("size", "padding"), [(224, 0), (227, 16), (7, 3), (1, 0), (64, 5)])
@pytest.mark.parametrize("mode", MODES)
def test_equals_the_formula_at_other_sizes_and_paddings(size: int, padding: int, mode: WarpMode) -> None:
    image = noise(60, 41)
    boxes = boxes_of((3, 4, 8.5, 9.7), (0, 0, 4, 3), (20.1, 8, 22.9, 13))  # shrinks below 6 at every size
    got = warp_regions(image, boxes, size, padding, mode, fill=RED)
    for n in range(len(boxes)):
        expected = reference(image, boxes[n], size, padding, mode, RED)
        np.testing.assert_allclose(got[n], expected, rtol=0, atol=0.51)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
@pytest.mark.parametrize("mode", MODES)
def test_tiny_pictures_equal_the_formula(shape: tuple[int, int], mode: WarpMode) -> None:
    image = noise(*shape)
    boxes = boxes_of((0, 0, shape[1], shape[0]), (0.25, 0.25, 0.75, 0.5), (-300, -200, 400, 500))
    got = warp_regions(image, boxes, mode=mode)
    for n in range(len(boxes)):
        np.testing.assert_allclose(got[n], reference(image, boxes[n], mode=mode), rtol=0, atol=0.51)


def test_a_window_inside_the_picture_equals_pillows() -> None:
    image, box = smooth(375, 500), boxes_of((60, 50, 405.5, 300))
    w, h = 345.5, 250
    window = (60 - w / 12, 50 - h / 12, 405.5 + w / 12, 300 + h / 12)  # 16 of 192 pixels of context
    peer = Image.fromarray(image).resize((224, 224), Image.Resampling.BILINEAR, box=window)
    difference = warp_regions(image, box)[0].astype(int) - np.asarray(peer, int)
    assert np.abs(difference).max() <= 1


def test_the_box_fills_the_central_pixels_and_the_border_shows_its_surroundings() -> None:
    image = np.zeros((300, 400, 3), np.uint8)
    image[50:242, 100:292] = 255  # 192 x 192: one source pixel per output pixel, no filtering
    expected = np.zeros((224, 224, 3), np.uint8)
    expected[16:208, 16:208] = 255
    np.testing.assert_array_equal(warp_regions(image, boxes_of((100, 50, 292, 242)))[0], expected)


def test_outside_the_picture_is_fill() -> None:
    image = np.full((192, 192, 3), 7, np.uint8)
    expected = np.empty((224, 224, 3), np.uint8)
    expected[:] = RED
    expected[16:208, 16:208] = 7
    np.testing.assert_array_equal(warp_regions(image, boxes_of((0, 0, 192, 192)), fill=RED)[0], expected)


def test_square_modes_keep_the_aspect_and_differ_beyond_the_border() -> None:
    image = np.full((400, 400, 3), 7, np.uint8)
    box = boxes_of((104, 152, 296, 248))  # 192 x 96: one source pixel per output pixel
    assert (warp_regions(image, box, mode="square_with_context") == 7).all()
    expected = np.empty((224, 224, 3), np.uint8)
    expected[:] = RED
    expected[64 - 16 : 160 + 16] = 7
    got = warp_regions(image, box, mode="square_without_context", fill=RED)[0]
    np.testing.assert_array_equal(got, expected)


def test_constant_picture_stays_constant() -> None:
    for value in (0, 1, 128, 255):
        image = np.full((90, 1500, 3), value, np.uint8)
        boxes = boxes_of((0, 0, 1500, 90), (3.3, 4.4, 7.7, 80), (0, 0, 333, 33))
        assert (warp_regions(image, boxes, fill=(value,) * 3) == value).all()


def test_flipping_picture_and_box_flips_the_warp() -> None:
    image, box = noise(120, 170), boxes_of((-4, 10, 120.5, 118))
    flipped = warp_regions(image[:, ::-1], boxes_of((170 - 120.5, 10, 174, 118)))[0]
    difference = flipped[:, ::-1].astype(int) - warp_regions(image, box)[0]
    assert np.abs(difference).max() <= 1  # 1 where rounding falls on a half


@pytest.mark.parametrize("mode", MODES)
def test_box_just_under_six_times_the_inner_size_is_exact(mode: WarpMode) -> None:
    image, box = noise(1170, 1300), boxes_of((10, 5, 1161, 1156))
    got = warp_regions(image, box, mode=mode)[0]
    np.testing.assert_allclose(got, reference(image, box[0], mode=mode), rtol=0, atol=0.51)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 1152, 1152),  # the smallest box with halving has the largest deviation
        (3, 5, 1160.3, 1500.1),
        (0, 0, 2501, 1999),  # odd sides: the last column and row are averaged with the fill
        (0, 900, 2501, 1000),  # halved along x alone
        (-900, -100, 2600, 2700),
    ],
)
def test_huge_box_stays_within_the_stated_deviation(box: tuple[float, ...]) -> None:
    image, boxes = smooth(1999, 2501), boxes_of(box)
    deviation = warp_regions(image, boxes)[0] - reference(image, boxes[0])
    assert np.abs(deviation).max() <= 4
    assert np.sqrt(np.mean(deviation**2)) <= 0.5
    assert np.abs(deviation.mean()) <= 0.02  # halving neither brightens nor darkens


def test_black_and_white_blocks_stay_within_the_stated_deviation() -> None:
    bits = np.random.default_rng(0).integers(0, 2, (300, 250), dtype=np.uint8) * 255
    image = np.ascontiguousarray(np.kron(bits, np.ones((8, 8), np.uint8))[:, :, None].repeat(3, axis=2))
    box = boxes_of((0, 0, 1152, 1152))
    deviation = warp_regions(image, box)[0] - reference(image, box[0])
    assert np.abs(deviation).max() <= 12


def test_the_crop_of_an_astronomical_box_shows_fill() -> None:
    got = warp_regions(noise(30, 40), boxes_of((-3e30, -1e30, 1e30, 2e30), (0, 0, 1e6, 5)))
    assert (np.abs(got[0].astype(int) - MEAN_RGB) <= 1).all()
    assert (got[1, :, 17:] == MEAN_RGB).all()


def test_a_box_gets_the_same_crop_alone_and_among_others() -> None:
    image = noise(375, 500)
    boxes = boxes_of(*BOXES.values())
    together = warp_regions(image, boxes)
    for n in range(len(boxes)):
        np.testing.assert_array_equal(together[n], warp_regions(image, boxes[n : n + 1])[0])


def test_threads_do_not_disturb_each_other() -> None:
    images = [noise(200 + 10 * n, 300 - 7 * n, seed=n) for n in range(8)]
    boxes = boxes_of((10, 10, 150, 130), (0, 0, 200, 200), (50.5, 20, 60, 190))
    expected = [warp_regions(image, boxes) for image in images]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda image: warp_regions(image, boxes), images * 4))
    for n, result in enumerate(got):
        np.testing.assert_array_equal(result, expected[n % len(images)])


def test_out_is_filled_and_returned() -> None:
    image, boxes = noise(50, 60), boxes_of((1, 2, 30, 40), (5, 5, 55, 45))
    batch = np.zeros((5, 224, 224, 3), np.uint8)
    part = batch[1:3]
    assert warp_regions(image, boxes, out=part) is part
    np.testing.assert_array_equal(batch[1:3], warp_regions(image, boxes))
    assert not batch[0].any()
    assert not batch[3:].any()


@pytest.mark.parametrize("boxes", [np.empty((0, 4), np.float32), np.empty((0, 4), np.float64)])
def test_no_boxes_give_no_crops(boxes: NDArray[Any]) -> None:
    crops = warp_regions(noise(5, 5), boxes)
    assert crops.shape == (0, 224, 224, 3)
    assert crops.dtype == np.uint8


def test_a_read_only_strided_picture_is_accepted_and_not_changed() -> None:
    image = noise(100, 120)
    view = image[::2, ::-1]
    view.flags.writeable = False
    before = image.copy()
    box = boxes_of((5, 5, 70, 40))
    np.testing.assert_array_equal(warp_regions(view, box), warp_regions(view.copy(), box))
    np.testing.assert_array_equal(image, before)


NAN = float("nan")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((NAN, 0, 5, 5), r"box 1 \(nan, 0\.0, 5\.0, 5\.0\) is not finite"),
        ((0, 0, float("inf"), 5), "is not finite"),
        ((3, 3, 3, 9), "has no area"),
        ((3, 9, 8, 3), "has no area"),
        ((40, 0, 45, 5), "wholly outside the 40x30 picture"),
        ((0, -5, 5, 0), "wholly outside the 40x30 picture"),
    ],
)
def test_the_error_names_the_wrong_box(box: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        warp_regions(noise(30, 40), boxes_of((0, 0, 5, 5), box))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"image": np.zeros((9, 9, 3), np.float32)}, TypeError, "image must be a uint8 array"),
        ({"image": [[[0, 0, 0]]]}, TypeError, "got list"),
        ({"image": np.zeros((9, 9), np.uint8)}, ValueError, r"\[H, W, 3\].*got \[9, 9\]"),
        ({"image": np.zeros((0, 9, 3), np.uint8)}, ValueError, "at least one pixel"),
        ({"boxes": np.zeros((2, 5), np.float32)}, ValueError, r"boxes must be \[N, 4\].*got \[2, 5\]"),
        ({"boxes": np.zeros((0,), np.float32)}, ValueError, r"got \[0\]"),
        ({"boxes": np.array([["a"] * 4])}, TypeError, "boxes must be numbers"),
        ({"mode": "squash"}, ValueError, "one of warp, square_with_context.*got 'squash'"),
        ({"size": 32}, ValueError, "got padding 16 and size 32"),
        ({"padding": -1}, ValueError, "got padding -1"),
        ({"fill": (0.5, 0, 0)}, ValueError, "fill must be three whole numbers"),
        ({"fill": (0, 256, 0)}, ValueError, "fill must be three whole numbers"),
        ({"out": np.zeros((1, 224, 224, 3), np.float32)}, TypeError, "out must be a uint8 array"),
        ({"out": np.zeros((2, 224, 224, 3), np.uint8)}, ValueError, r"\[1, 224, 224, 3\], got \[2,"),
        ({"out": np.zeros((1, 224, 448, 3), np.uint8)[:, :, ::2]}, ValueError, "C-contiguous"),
    ],
)
def test_wrong_argument_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"image": noise(9, 9), "boxes": boxes_of((1, 1, 5, 5)), **changes}
    with pytest.raises(error, match=message):
        warp_regions(**arguments)


def test_importing_does_not_import_numba() -> None:
    code = "import sys, inception_rcnn.detection.warping.warp as w; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
