"""Quantised networks stay near the original; input ranges are those of the inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.engines.quantisation import QuantisedConv, measure_input_ranges, quantised


def test_8_bit_engine_stays_within_the_stated_tolerance(crops, reference, int8_engine):
    assert "int8" in int8_engine.description
    difference = np.abs(int8_engine(crops) - reference).max()
    assert 1e-4 < difference < 0.1  # a smaller difference would mean that nothing was rounded


def test_a_quantised_convolution_rounds_inputs_and_weights_to_a_grid():
    layer = nn.Conv2d(1, 2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.27, -0.303]).view(2, 1, 1, 1))
        layer.bias.copy_(torch.tensor([0.0, 1.0]))
    rounded = QuantisedConv(layer, largest=2.55)  # inputs are multiples of 0.01
    inputs = torch.tensor([0.124, 0.126, 5.0]).view(3, 1, 1, 1)
    with torch.no_grad():
        outputs = rounded(inputs).flatten(1)
    # Each weight is the largest of its channel, so it is on the grid; inputs become 0.12, 0.13 and the limit 2.55.
    expected = [[0.1524, 1 - 0.03636], [0.1651, 1 - 0.03939], [3.2385, 1 - 0.77265]]
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_weights_are_rounded_to_127_steps_of_the_largest_in_their_channel():
    layer = nn.Conv2d(1, 1, (1, 3), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.27, 0.006, -0.004]).view(1, 1, 1, 3))  # steps of 0.01
        weights = [float(QuantisedConv(layer, 255.0)(row.view(1, 1, 1, 3))) for row in torch.eye(3)]
    np.testing.assert_allclose(weights, [1.27, 0.01, 0], atol=1e-6)


def test_ranges_are_the_largest_inputs_of_convolutions_without_negative_inputs(model, crops):
    ranges = measure_input_ranges(model, crops[:2])
    convolutions = {name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)}
    assert set(ranges) == convolutions - {"trunk.conv1.convolution"}  # its inputs are pixels minus their mean
    with torch.no_grad():
        pixels = torch.from_numpy(crops[:2]).permute(0, 3, 1, 2).float()
        into_conv2 = model.trunk[:4](model.normalise(pixels))
    assert ranges["trunk.conv2.convolution"] == pytest.approx(float(into_conv2.max()))


@pytest.mark.usefixtures("tiny_googlenet")
def test_both_convolutions_of_the_separable_stem_have_negative_inputs(crops):
    model = GoogLeNet(3, stem="separable", auxiliary=False)
    ranges = measure_input_ranges(model, crops[:1])
    assert model.training  # as before
    assert not any("conv1." in name for name in ranges)
    assert "trunk.conv2_reduce.convolution" in ranges


@pytest.mark.usefixtures("tiny_googlenet")
def test_stored_ranges_decide_which_convolutions_are_quantised():
    model = GoogLeNet(3, auxiliary=False)
    model.input_ranges = {"trunk.conv2.convolution": 7.0}
    layers = {name: layer for name, layer in quantised(model).named_modules() if isinstance(layer, QuantisedConv)}
    assert [(name, layer.largest) for name, layer in layers.items()] == [("trunk.conv2.convolution", 7.0)]
    assert not any(isinstance(layer, QuantisedConv) for layer in model.modules())


@pytest.mark.usefixtures("tiny_googlenet")
def test_without_stored_ranges_they_are_measured_on_photographs():
    model = GoogLeNet(3, auxiliary=False)
    network = quantised(model)
    assert not isinstance(network.trunk.conv1.convolution, QuantisedConv)
    assert isinstance(network.trunk.conv2_reduce.convolution, QuantisedConv)
    assert model.input_ranges == {}
