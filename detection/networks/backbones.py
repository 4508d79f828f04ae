"""The backbones: GoogLeNet, and torchvision's GoogLeNet behind the same interface.

The interface, for pixels that are float RGB in 0..255 [N, 3, H, W]:

- `normalise(pixels)` returns the input of `trunk`;
- `trunk` is an `nn.Sequential` of named blocks;
- `features(pixels)` returns the feature map of the last block, [N, out_channels, h, w];
- `classify(features)` pools the feature map and returns logits [N, num_classes]; its last layer is `classifier`;
- `input_ranges` maps the name of each convolution whose inputs are never negative to its largest measured input.
  `quantisation` uses these ranges. The dict is empty if the ranges were not measured.
"""

import copy
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from torch import Tensor, nn

from .googlenet import GoogLeNet


class TorchvisionGoogLeNet(nn.Module):
    """torchvision's `googlenet`: batch norm after every convolution, no LRN, 3x3 in place of Table 1's 5x5.

    Args:
        num_classes: outputs of the classifier.
        pretrained: load torchvision's ImageNet weights, which torchvision downloads to its own cache. Unless
            `num_classes` is 1000, the classifier gets random weights.
    """

    out_channels = 1024

    def __init__(self, num_classes: int = 1000, *, pretrained: bool = False):
        super().__init__()
        from torchvision.models import GoogLeNet_Weights, googlenet

        weights = GoogLeNet_Weights.IMAGENET1K_V1 if pretrained else None
        network = googlenet(weights=weights, init_weights=False, aux_logits=pretrained)
        blocks = [
            (name, block)
            for name, block in network.named_children()
            if name.startswith(("conv", "maxpool", "inception"))
        ]
        self.num_classes = num_classes
        self.input_ranges: dict[str, float] = {}
        self.trunk = nn.Sequential()
        for name, block in blocks:
            self.trunk.add_module(name.replace("inception", "inception_"), block)  # GoogLeNet's block names
        self.dropout = nn.Dropout(0.4)
        self.classifier = network.fc if num_classes == 1000 else nn.Linear(self.out_channels, num_classes)
        if num_classes != 1000:
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Scale pixels to -1..1, the range of the TensorFlow network that the published weights come from."""
        return (pixels - 127.5) / 127.5

    def features(self, pixels: Tensor) -> Tensor:
        """Feature map before average pooling: float RGB in 0..255 [N, 3, H, W] -> [N, 1024, H/32, W/32]."""
        return self.trunk(self.normalise(pixels))

    def classify(self, features: Tensor) -> Tensor:
        """Average pooling, dropout and classifier: features [N, 1024, h, w] -> logits [N, num_classes]."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    def forward(self, pixels: Tensor) -> Tensor:
        """Classify pixels: float RGB in 0..255 [N, 3, H, W] -> logits [N, num_classes]."""
        return self.classify(self.features(pixels))


Backbone: TypeAlias = GoogLeNet | TorchvisionGoogLeNet


def with_classes(backbone: Backbone, num_classes: int) -> Backbone:
    """Give `backbone` a new classifier of `num_classes` outputs and return it; `backbone` itself changes.

    The classifier's weights are drawn from a normal distribution with standard deviation 0.01; its biases are 0. The
    auxiliary heads classify the old classes, so they are removed.
    """
    backbone.num_classes = num_classes
    backbone.classifier = nn.Linear(backbone.out_channels, num_classes)
    nn.init.normal_(backbone.classifier.weight, std=0.01)
    nn.init.zeros_(backbone.classifier.bias)
    if isinstance(backbone, GoogLeNet):
        backbone.auxiliary = nn.ModuleDict()
    return backbone


def headless(backbone: Backbone) -> Backbone:
    """Remove the classifier and the auxiliary heads from `backbone` and return it; `backbone` itself changes."""
    backbone.classifier = nn.Identity()
    if isinstance(backbone, GoogLeNet):
        backbone.auxiliary = nn.ModuleDict()
    return backbone


def with_the_same_tensors(backbone: Backbone) -> Backbone:
    """A copy of `backbone` whose parameters and buffers are those of `backbone`: its layers can be replaced."""
    return copy.deepcopy(backbone, {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())})


class FirstBlocks(nn.Module):
    """Normalisation and the first blocks of a backbone's trunk: float RGB in 0..255 [N, 3, H, W] -> [N, C, h, w].

    Args:
        backbone: the network, which is not copied.
        count: number of blocks.
    """

    def __init__(self, backbone: Backbone, count: int):
        super().__init__()
        self.backbone = backbone
        self.blocks = backbone.trunk[:count]

    def forward(self, pixels: Tensor) -> Tensor:
        return self.blocks(self.backbone.normalise(pixels))


def shared_blocks(backbones: Sequence[Backbone]) -> int:
    """The number of first blocks that all `backbones` have in common, with equal weights.

    Members of an ensemble that was trained with frozen lower blocks share these blocks.
    """
    first, *others = backbones
    for number, (name, block) in enumerate(first.trunk.named_children()):
        for other in others:
            if type(other) is not type(first) or not _equal(block, other.trunk.get_submodule(name)):
                return number
    return len(first.trunk)


def _equal(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    # numpy compares 10 million weights in a hundredth of a second, torch 2.14 in half a second.
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name].numpy(force=True), theirs[name].numpy(force=True)) for name in ours
    )
