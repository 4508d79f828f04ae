"""ONNX files compute what torch computes, in float32 and in 8 bits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.detection.engines.quantisation import QuantisedConv

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from inception_rcnn.detection.onnx_networks import onnx_network, quantise_onnx  # noqa: E402

INPUTS = torch.rand(3, 4, 9, 9, generator=torch.Generator().manual_seed(0)) * 12


class Branches(nn.Module):
    """Convolutions before and after a concatenation, max pooling, and a sum that stays in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = nn.Conv2d(4, 6, 1)
        self.three = nn.Conv2d(4, 5, 3, padding=1)
        self.after = nn.Conv2d(11, 7, 1)
        self.after_pool = nn.Conv2d(11, 7, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.one(x).relu(), self.three(x).relu()], dim=1)
        pooled = nn.functional.max_pool2d(joined, 3, 1, 1)
        return self.after(joined).relu() + self.after_pool(pooled).relu()


RANGES = {"one.weight": 10.0, "three.weight": 10.0, "after.weight": 8.0, "after_pool.weight": 8.0}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return Branches().eval()


@pytest.fixture
def converted(network):
    return onnx_network(network, INPUTS[:2], "x", ["y"])


def run(model, inputs: torch.Tensor, *, optimised: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(["y"], {"x": inputs.numpy()})[0]


def quantised_reference(network: nn.Module, inputs: torch.Tensor) -> np.ndarray:
    rounded = Branches().eval()
    rounded.load_state_dict(network.state_dict())
    for name, largest in RANGES.items():
        layer = name.removesuffix(".weight")
        setattr(rounded, layer, QuantisedConv(rounded.get_submodule(layer), largest))
    with torch.no_grad():
        return rounded(inputs).numpy()


def test_the_float32_network_computes_the_same_for_any_number_of_rows(network, converted):
    onnx.checker.check_model(converted, full_check=True)
    for rows in (1, 3):
        with torch.no_grad():
            expected = network(INPUTS[:rows]).numpy()
        np.testing.assert_allclose(run(converted, INPUTS[:rows]), expected, atol=1e-5)


def test_the_8_bit_network_computes_the_numbers_of_quantised_convolutions(network, converted):
    quantise_onnx(converted, RANGES)
    onnx.checker.check_model(converted, full_check=True)
    expected = quantised_reference(network, INPUTS)
    with torch.no_grad():
        error = np.abs(expected - network(INPUTS).numpy()).max()
    # A sum that lies between two steps may be rounded either way, so a few numbers differ by a step of 8 / 255.
    difference = np.abs(run(converted, INPUTS, optimised=False) - expected)
    assert difference.mean() < 1e-3 < error
    assert difference.max() < 0.05


def test_weights_are_stored_as_integers_and_float32_weights_are_gone(converted):
    before = sum(len(constant.raw_data) for constant in converted.graph.initializer)
    quantise_onnx(converted, RANGES)
    constants = {constant.name: constant for constant in converted.graph.initializer}
    assert not set(RANGES) & set(constants)
    assert constants["three.weight.integers"].data_type == onnx.TensorProto.INT8
    assert constants["three.bias.integers"].data_type == onnx.TensorProto.INT32
    assert sum(len(constants[f"{name}.integers"].raw_data) for name in RANGES) < before / 4


def test_onnx_runtime_computes_with_integers_where_the_output_is_rounded_too(converted, tmp_path):
    quantise_onnx(converted, RANGES)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(converted.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QLinearConv"] == 2  # the outputs of the other two are added in float32
    assert kinds["QLinearConcat"] == 1


def test_convolutions_without_a_range_stay_as_they_are(network, converted):
    quantise_onnx(converted, {})
    with torch.no_grad():
        np.testing.assert_allclose(run(converted, INPUTS), network(INPUTS).numpy(), atol=1e-5)


def test_a_bias_that_is_huge_beside_the_weights_keeps_its_value():
    network = nn.Conv2d(2, 2, 1).eval()
    with torch.no_grad():
        network.weight.zero_()
        network.bias.copy_(torch.tensor([3.5, -2.25]))
    model = onnx_network(network, torch.rand(2, 2, 3, 3), "x", ["y"])
    quantise_onnx(model, {"weight": 1.0})
    expected = np.broadcast_to(np.array([3.5, -2.25])[:, None, None], (1, 2, 3, 3))
    np.testing.assert_allclose(run(model, torch.rand(1, 2, 3, 3)), expected, rtol=1e-6)


def test_layers_with_equal_biases_keep_them_apart():
    layers = [nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)]
    with torch.no_grad():
        layers[0].weight.mul_(7)
        for layer in layers[::2]:
            layer.bias.copy_(torch.tensor([0.5, 0.25]))
    network = nn.Sequential(*layers).eval()
    model = onnx_network(network, INPUTS[:2, :2], "x", ["y"])
    quantise_onnx(model, {"0.weight": 12.0, "2.weight": 100.0})
    with torch.no_grad():
        np.testing.assert_allclose(run(model, INPUTS[:, :2]), network(INPUTS[:, :2]).numpy(), atol=0.5)
    constants = {constant.name for constant in model.graph.initializer}
    assert {"0.bias.integers", "2.bias.integers"} <= constants
