"""One full-size GoogLeNet for all tests of engines. Compiling a GoogLeNet takes seconds, so tests share the engines."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.engines.quantisation import measure_input_ranges


@pytest.fixture(scope="session")
def crops() -> NDArray[np.uint8]:
    """Noise, uint8 RGB [5, 224, 224, 3]."""
    return np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)


@pytest.fixture(scope="session")
def model(crops: NDArray[np.uint8]) -> GoogLeNet:
    """A GoogLeNet of four classes whose logits differ by a few units, so that errors of a few per cent show."""
    torch.manual_seed(0)
    network = GoogLeNet(4, auxiliary=False).eval()
    with torch.no_grad():
        features = network.features(torch.from_numpy(crops).permute(0, 3, 1, 2).float()).mean((2, 3))
        network.classifier.weight.mul_(3 / network.classifier(features).std())
    return network


@pytest.fixture(scope="session")
def reference(model: GoogLeNet, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities of plain torch in float32: [5, 4]."""
    with torch.no_grad():
        return torch.softmax(model(torch.from_numpy(crops).permute(0, 3, 1, 2).float()), 1).numpy()


@pytest.fixture(scope="session")
def engine(model: GoogLeNet) -> Engine:
    """The default engine of a CPU."""
    return Engine(model, device="cpu", batch_size=2)


@pytest.fixture(scope="session")
def float32_engine(model: GoogLeNet) -> Engine:
    return Engine(model, kind="openvino", device="cpu", precision="float32", batch_size=2)


@pytest.fixture(scope="session")
def int8_engine(model: GoogLeNet, crops: NDArray[np.uint8]) -> Engine:
    quantisable = copy.deepcopy(model)
    quantisable.input_ranges = measure_input_ranges(model, crops)
    return Engine(quantisable, kind="openvino-int8", batch_size=2)
