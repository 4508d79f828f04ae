"""The compiled MultiBox network gives the proposals of the plain one."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.detection.engines.multibox import MultiBoxEngine
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid, multibox_proposals

SIZE = 64


class SmallTrunk(nn.Module):
    """Two convolutions, with feature maps at strides 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        blocks = OrderedDict(inception_4e=nn.Conv2d(3, 8, 16, stride=16), inception_5b=nn.Conv2d(8, 8, 2, stride=2))
        self.trunk = nn.Sequential(blocks)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255 - 0.5


@pytest.fixture(scope="module")
def network() -> MultiBox:
    torch.manual_seed(0)
    grids = [PriorGrid(16, 1, ((12, 12), (20, 10))), PriorGrid(32, 1, ((40, 40),))]
    return MultiBox(SmallTrunk(), grids, width=8, sizes=(SIZE,)).eval()


@pytest.fixture(scope="module")
def engine(network: MultiBox) -> MultiBoxEngine:
    """In float32 on every CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inception_rcnn.detection.engines.choice.cpu_computes_bfloat16", lambda: False)
        return MultiBoxEngine(network, device="cpu")


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def test_a_picture_of_the_input_size_gets_the_proposals_of_the_plain_network(network, engine):
    image = noise(0)
    with torch.no_grad():  # a picture of the input size needs no resizing
        predictions = network(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0].numpy()
    expected = multibox_proposals([predictions], [network.priors(SIZE)], [SIZE], SIZE, SIZE)
    found = engine(image)
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


def test_boxes_are_in_pixels_of_the_picture(engine):
    # Resizing leaves a picture of one colour as it is, so the network sees the same input twice.
    boxes = engine(np.full((SIZE, SIZE, 3), 200, np.uint8)).boxes
    enlarged = engine(np.full((3 * SIZE, 2 * SIZE, 3), 200, np.uint8)).boxes
    assert len(boxes) > 3
    # Many cells have equal confidences, so the order of the boxes depends on rounding: each coordinate is sorted.
    np.testing.assert_allclose(np.sort(enlarged, 0), np.sort(boxes * [2, 3, 2, 3], 0), rtol=1e-4, atol=1e-2)


def test_threads_may_share_an_engine(engine):
    images = [noise(seed) for seed in range(4)]
    expected = [engine(image).boxes for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: engine(image).boxes, images * 3))
    for number, boxes in enumerate(found):
        np.testing.assert_array_equal(boxes, expected[number % len(images)])
