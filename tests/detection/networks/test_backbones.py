"""GoogLeNet and torchvision's GoogLeNet have one interface."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.networks.backbones import TorchvisionGoogLeNet, headless, with_classes


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


def test_torchvisions_normalisation_is_that_of_its_own_network():
    # torchvision takes pixels normalised by ImageNet's mean and deviation, which its GoogLeNet undoes.
    pixels = torch.rand(2, 3, 8, 8) * 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    standardised = (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    from torchvision.models import googlenet

    network = googlenet(weights=None, init_weights=False, transform_input=True, aux_logits=False)
    torch.testing.assert_close(
        TorchvisionGoogLeNet().normalise(pixels), network._transform_input(standardised), rtol=1e-4, atol=1e-4
    )


def test_a_new_classifier_has_small_weights_and_no_auxiliary_heads():
    model = with_classes(GoogLeNet(1000), 47)
    assert model.classifier.weight.shape == (47, 1024)
    assert float(model.classifier.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not model.classifier.bias.any()
    assert len(model.auxiliary) == 0


@pytest.mark.usefixtures("tiny_googlenet")
def test_a_headless_backbone_keeps_its_trunk_only():
    model = headless(GoogLeNet(10))
    assert isinstance(model.classifier, nn.Identity)
    assert {name.split(".")[0] for name in model.state_dict()} == {"trunk"}
