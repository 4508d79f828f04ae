"""GoogLeNet behaves as the paper says. `test_costs` compares it with Table 1."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.networks.googlenet import LocalResponseNorm, Logits, NaiveInception


def test_plain_stem_is_a_7x7_convolution():
    assert GoogLeNet(auxiliary=False).trunk.conv1.convolution.weight.shape == (64, 3, 7, 7)


def test_local_response_normalisation_equals_torchs():
    x = torch.randn(2, 64, 5, 7) * 100
    torch.testing.assert_close(LocalResponseNorm(64)(x), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(x))


def test_local_response_normalisation_does_not_overflow_in_float16():
    x = torch.randn(1, 16, 3, 3) * 1000  # squares are up to about 10^7; the largest float16 is 65,504
    torch.testing.assert_close(LocalResponseNorm(16)(x.half()).float(), LocalResponseNorm(16)(x), rtol=2e-3, atol=0)


def test_inception_branches_are_joined_in_the_order_of_the_figure():
    module = GoogLeNet(auxiliary=False).trunk.inception_3a
    x = torch.rand(1, 192, 6, 6)
    joined = module(x)
    torch.testing.assert_close(joined[:, :64], module.conv1x1(x))
    torch.testing.assert_close(joined[:, 64:192], module.conv3x3(module.conv3x3_reduce(x)))
    torch.testing.assert_close(joined[:, 192:224], module.conv5x5(module.conv5x5_reduce(x)))
    torch.testing.assert_close(joined[:, 224:], module.pool_projection(nn.functional.max_pool2d(x, 3, 1, 1)))


def test_the_naive_module_joins_convolutions_of_the_inputs_and_the_pooled_inputs():
    module = NaiveInception(6, one=2, three=4, five=3)
    x = torch.rand(2, 6, 5, 7)
    joined = module(x)
    assert joined.shape == (2, 2 + 4 + 3 + 6, 5, 7) == (2, module.out_channels, 5, 7)
    torch.testing.assert_close(joined[:, :2], module.conv1x1(x))
    torch.testing.assert_close(joined[:, 2:6], module.conv3x3(x))
    torch.testing.assert_close(joined[:, 6:9], module.conv5x5(x))
    torch.testing.assert_close(joined[:, 9:], nn.functional.max_pool2d(x, 3, 1, 1))


@pytest.mark.usefixtures("tiny_googlenet")
@pytest.mark.parametrize("batch_norm", [False, True])
def test_auxiliary_heads_classify_in_training_mode_only(batch_norm):
    model = GoogLeNet(7, batch_norm=batch_norm)
    pixels = torch.rand(2, 3, 224, 224) * 255
    logits = model(pixels)
    assert isinstance(logits, Logits)
    assert [tuple(of_head.shape) for of_head in logits] == [(2, 7)] * 3
    assert tuple(model.eval()(pixels).shape) == (2, 7)


@pytest.mark.usefixtures("tiny_googlenet")
def test_batch_norm_replaces_biases_and_response_normalisation():
    model = GoogLeNet(batch_norm=True)
    assert not any(isinstance(module, LocalResponseNorm) for module in model.modules())
    assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Conv2d))


@pytest.mark.usefixtures("tiny_googlenet")
def test_dropout_rates_are_those_of_the_paper():
    model = GoogLeNet()
    assert model.dropout.p == 0.4
    assert [head.dropout.p for head in model.auxiliary.values()] == [0.7, 0.7]


@pytest.mark.usefixtures("tiny_googlenet")
def test_an_image_alone_and_in_a_batch_gives_the_same_logits():
    torch.manual_seed(0)
    model = GoogLeNet(5, auxiliary=False).eval()
    pixels = torch.rand(3, 3, 224, 224) * 255
    with torch.no_grad():
        torch.testing.assert_close(model(pixels)[1:2], model(pixels[1:2]), rtol=1e-4, atol=1e-4)


def test_features_have_a_cell_for_32_pixels_at_any_size():
    with torch.no_grad():
        assert GoogLeNet(auxiliary=False).features(torch.zeros(1, 3, 256, 320)).shape == (1, 1024, 8, 10)


def test_unknown_stem_is_refused():
    with pytest.raises(ValueError, match="plain"):
        GoogLeNet(stem="separate")
