import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.networks.backbones import TorchvisionGoogLeNet, with_classes
from inception_rcnn.detection.networks.googlenet import PAPER_TABLE_1, LocalResponseNorm, Logits, table1

# Rows whose printed parameters or multiply-adds contradict the widths printed beside them; see PAPER_TABLE_1.
MISPRINTED_PARAMETERS = {
    "inception_4c": 509_440,
    "inception_4d": 604_672,
    "inception_5a": 1_042_432,
    "inception_5b": 1_442_816,
}
MISPRINTED_OPERATIONS = {"inception_5a": 51_079_168}

OUTPUTS = {
    "conv1": (64, 112, 112),
    "conv2": (192, 56, 56),
    "inception_3a": (256, 28, 28),
    "inception_3b": (480, 28, 28),
    "inception_4a": (512, 14, 14),
    "inception_4b": (512, 14, 14),
    "inception_4c": (512, 14, 14),
    "inception_4d": (528, 14, 14),
    "inception_4e": (832, 14, 14),
    "inception_5a": (832, 7, 7),
    "inception_5b": (1024, 7, 7),
    "linear": (1000,),
}


@pytest.fixture(scope="module")
def separable_rows():
    return {row.name: row for row in table1(GoogLeNet(stem="separable", auxiliary=False))}


def test_rows_have_the_output_sizes_of_table_1(separable_rows):
    assert {name: row.output for name, row in separable_rows.items()} == OUTPUTS


@pytest.mark.parametrize("name", PAPER_TABLE_1)
def test_parameters_and_operations_are_those_of_table_1(separable_rows, name):
    kilo, million = PAPER_TABLE_1[name]
    row = separable_rows[name]
    if name in MISPRINTED_PARAMETERS:
        assert row.parameters == MISPRINTED_PARAMETERS[name]
    else:
        assert row.parameters / 1024 == pytest.approx(kilo, rel=0.01, abs=0.06)
    if name in MISPRINTED_OPERATIONS:
        assert row.multiply_adds == MISPRINTED_OPERATIONS[name]
    else:
        assert row.multiply_adds / 1e6 == pytest.approx(million, rel=0.01, abs=0.5)


def test_5a_with_the_5x5_reduction_of_5b_has_the_printed_operations():
    # The misprint's likely cause: 832 -> 48 -> 128 in place of 832 -> 32 -> 128, at 7x7 positions.
    wider = 51_079_168 + 49 * (832 * 16 + 16 * 128 * 25)
    assert round(wider / 1e6) == PAPER_TABLE_1["inception_5a"][1]


def test_separable_stem_has_the_2712_weights_of_the_paper(separable_rows):
    assert separable_rows["conv1"].parameters == 7 * 7 * 3 * 8 + 24 * 64 == 2712


def test_plain_stem_is_a_7x7_convolution():
    row = table1(GoogLeNet(auxiliary=False))[0]
    assert (row.name, row.parameters) == ("conv1", 7 * 7 * 3 * 64)


def test_the_whole_network_costs_one_and_a_half_billion_multiply_adds(separable_rows):
    assert sum(row.multiply_adds for row in separable_rows.values()) == pytest.approx(1.5e9, rel=0.01)


def test_table1_leaves_the_mode_as_it_was_and_no_hooks_behind():
    model = GoogLeNet(10)
    table1(model)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_normalisation_over_channels_is_torchs():
    x = torch.randn(2, 64, 5, 7) * 100
    torch.testing.assert_close(LocalResponseNorm(64)(x), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)(x))


def test_inception_branches_are_joined_in_the_order_of_the_figure():
    model = GoogLeNet(auxiliary=False).eval()
    module = model.trunk.inception_3a
    x = torch.rand(1, 192, 6, 6)
    joined = module(x)
    torch.testing.assert_close(joined[:, :64], module.conv1x1(x))
    torch.testing.assert_close(joined[:, 64:192], module.conv3x3(module.conv3x3_reduce(x)))
    torch.testing.assert_close(joined[:, 192:224], module.conv5x5(module.conv5x5_reduce(x)))
    torch.testing.assert_close(joined[:, 224:], module.pool_projection(nn.functional.max_pool2d(x, 3, 1, 1)))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_auxiliary_heads_speak_in_training_only(batch_norm):
    model = GoogLeNet(7, batch_norm=batch_norm)
    pixels = torch.rand(2, 3, 224, 224) * 255
    trained = model(pixels)
    assert isinstance(trained, Logits)
    assert [tuple(logits.shape) for logits in trained] == [(2, 7)] * 3
    assert tuple(model.eval()(pixels).shape) == (2, 7)


def test_batch_norm_replaces_biases_and_response_normalisation():
    model = GoogLeNet(batch_norm=True)
    assert not any(isinstance(module, LocalResponseNorm) for module in model.modules())
    assert all(module.bias is None for module in model.modules() if isinstance(module, nn.Conv2d))


def test_dropout_rates_are_those_of_the_paper():
    model = GoogLeNet()
    assert model.dropout.p == 0.4
    assert [head.dropout.p for head in model.auxiliary.values()] == [0.7, 0.7]


def test_an_image_alone_and_in_a_batch_gives_the_same_logits():
    torch.manual_seed(0)
    model = GoogLeNet(5, auxiliary=False).eval()
    pixels = torch.rand(3, 3, 224, 224) * 255
    with torch.no_grad():
        torch.testing.assert_close(model(pixels)[1:2], model(pixels[1:2]), rtol=1e-4, atol=1e-4)


def test_features_take_other_sizes_than_224():
    with torch.no_grad():
        assert GoogLeNet(auxiliary=False).features(torch.zeros(1, 3, 256, 320)).shape == (1, 1024, 8, 10)


def test_unknown_stem_is_refused():
    with pytest.raises(ValueError, match="plain"):
        GoogLeNet(stem="separate")


@pytest.mark.parametrize("network", [GoogLeNet, TorchvisionGoogLeNet])
def test_backbones_share_one_interface(network):
    model = with_classes(network(), 4).eval()
    pixels = torch.full((2, 3, 224, 224), 255.0)
    with torch.no_grad():
        features = model.features(pixels)
        assert features.shape == (2, model.out_channels, 7, 7)
        torch.testing.assert_close(model(pixels), model.classify(features))
        torch.testing.assert_close(model.trunk(model.normalise(pixels)), features)
    assert model.num_classes == 4
    assert model.classify(features).shape == (2, 4)


def test_torchvisions_normalisation_is_what_its_transform_input_does():
    # torchvision takes pixels normalised by ImageNet's mean and deviation, and its GoogLeNet undoes that.
    pixels = torch.rand(2, 3, 8, 8) * 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    theirs = (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    from torchvision.models import googlenet

    network = googlenet(weights=None, init_weights=False, transform_input=True, aux_logits=False)
    torch.testing.assert_close(
        TorchvisionGoogLeNet().normalise(pixels), network._transform_input(theirs), rtol=1e-4, atol=1e-4
    )


def test_a_new_classifier_starts_small_and_drops_auxiliary_heads():
    model = with_classes(GoogLeNet(1000), 47)
    assert model.classifier.weight.shape == (47, 1024)
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert np.count_nonzero(model.classifier.bias.detach().numpy()) == 0
    assert len(model.auxiliary) == 0
