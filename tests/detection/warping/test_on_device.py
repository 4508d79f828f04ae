"""warp_on_device equals warp_regions, with torch on the CPU and on a GPU if torch finds one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from inception_rcnn.detection.warping import on_device
from inception_rcnn.detection.warping.kernels import halve_height, halve_width
from inception_rcnn.detection.warping.on_device import warp_on_device
from inception_rcnn.detection.warping.warp import WarpMode, warp_regions

MODES: tuple[WarpMode, ...] = ("warp", "square_with_context", "square_without_context")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def random_boxes(count: int, width: int, height: int, seed: int) -> NDArray[np.float32]:
    """Boxes with sides from half a pixel to twice the picture's sides; some reach beyond the picture."""
    rng = np.random.default_rng(seed)
    extent = np.array([width, height])
    centres = rng.uniform(0, extent, (count, 2))
    sides = np.exp(rng.uniform(np.log(0.5), np.log(2 * extent), (count, 2)))
    return np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)


def assert_equals_cpu_kernels(image: NDArray[np.uint8], boxes: NDArray[Any], device: str, **settings: Any) -> None:
    got = warp_on_device(torch.from_numpy(image).to(device), boxes, **settings)
    assert got.device.type == device
    assert got.is_contiguous()
    settings.pop("precision", None)
    difference = got.cpu().numpy().astype(int) - warp_regions(image, boxes, **settings)
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_random_boxes_equal_the_cpu_kernels_within_a_grey_level(mode: WarpMode, device: str) -> None:
    assert_equals_cpu_kernels(noise(157, 211), random_boxes(25, 211, 157, seed=MODES.index(mode)), device, mode=mode)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mode", MODES)
def test_huge_shrinks_equal_the_cpu_kernels_within_a_grey_level(mode: WarpMode, device: str) -> None:
    boxes = np.array(
        [(0, 0, 2501, 1999), (-900, -100, 2600, 2700), (0, 900, 2501, 1000), (3, 5, 1160.3, 1500.1), (1, 1, 9, 9)]
    )
    coarse = Image.fromarray(noise(83, 104)).resize((2501, 1999), Image.Resampling.BICUBIC)
    assert_equals_cpu_kernels(np.array(coarse), boxes, device, mode=mode)


def test_float16_the_precision_of_gpus_stays_within_a_grey_level() -> None:
    assert_equals_cpu_kernels(
        noise(157, 211), random_boxes(6, 211, 157, seed=7), "cpu", size=64, precision=torch.float16
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_tiny_pictures_equal_the_cpu_kernels(shape: tuple[int, int]) -> None:
    boxes = np.array([(0, 0, shape[1], shape[0]), (0.25, 0.25, 0.75, 0.5), (-300, -200, 400, 500)])
    for mode in MODES:
        assert_equals_cpu_kernels(noise(*shape), boxes, "cpu", mode=mode, fill=(255, 0, 9))


def test_an_astronomical_box_equals_the_cpu_kernels() -> None:
    assert_equals_cpu_kernels(
        noise(30, 40), np.array([(-3e30, -1e30, 1e30, 2e30), (0, 0, 1e6, 5)]), "cpu", size=32, padding=2
    )


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 9), (1, 1), (5, 4)])
def test_halving_gives_the_same_bits_as_the_cpu_kernels(height: int, width: int) -> None:
    image, fill = noise(height, width), np.array([255, 0, 9], np.uint8)
    planes = torch.from_numpy(image).permute(2, 0, 1)
    for ours, kernel in ((on_device._halve_height, halve_height), (on_device._halve_width, halve_width)):
        got = ours(planes, torch.from_numpy(fill)).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(got, kernel(image, fill))


def test_regions_resized_alone_equal_those_resized_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    image, boxes = torch.from_numpy(noise(157, 211)), random_boxes(12, 211, 157, seed=3)
    together = warp_on_device(image, boxes, size=48)
    monkeypatch.setattr(on_device, "_MAX_ELEMENTS", 1)  # one region a group
    difference = warp_on_device(image, boxes, size=48).int() - together.int()
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 0.001


def test_no_boxes_give_no_crops() -> None:
    crops = warp_on_device(torch.from_numpy(noise(5, 5)), np.empty((0, 4), np.float32))
    assert crops.shape == (0, 224, 224, 3)
    assert crops.dtype == torch.uint8


@pytest.mark.parametrize(
    ("image", "box", "error", "message"),
    [
        (torch.zeros(9, 9, 3), (1, 1, 5, 5), TypeError, "image must be a uint8 tensor.*float32"),
        (torch.zeros(9, 9, dtype=torch.uint8), (1, 1, 5, 5), ValueError, r"\[H, W, 3\].*got \[9, 9\]"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), (5, 5, 5, 9), ValueError, "has no area"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), (20, 5, 25, 9), ValueError, "wholly outside the 9x9 picture"),
    ],
)
def test_wrong_arguments_are_refused(
    image: torch.Tensor, box: tuple[float, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        warp_on_device(image, np.array([box], np.float32))
