"""The networks that can classify regions: GoogLeNet, and torchvision's network of that name behind the same interface.

The interface: `normalise(pixels)`, `features(pixels) -> [N, out_channels, h, w]`, `classify(features) -> logits`, the
blocks under them as the named children of `trunk`, the last layer as `classifier`; pixels are float RGB in 0..255.
`input_ranges` has the largest input of convolutions by name, for `quantisation`; empty where nobody measured.
"""

from typing import TypeAlias

from torch import Tensor, nn

from .googlenet import GoogLeNet


class TorchvisionGoogLeNet(nn.Module):
    """torchvision's `googlenet`: batch norm after every convolution, no LRN, 3x3 where Table 1 has 5x5.

    Args:
        num_classes: outputs of the classifier.
        pretrained: load torchvision's ImageNet weights; torchvision downloads them to its own cache. With
            another `num_classes` than 1000 the classifier starts anew.
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
            self.trunk.add_module(name.replace("inception", "inception_"), block)  # our names of the blocks
        self.dropout = nn.Dropout(0.4)
        self.classifier = network.fc if num_classes == 1000 else nn.Linear(self.out_channels, num_classes)
        if num_classes != 1000:
            nn.init.normal_(self.classifier.weight, std=0.01)
            nn.init.zeros_(self.classifier.bias)

    def normalise(self, pixels: Tensor) -> Tensor:
        """The published weights come from TensorFlow, where pixels were in -1..1."""
        return (pixels - 127.5) / 127.5

    def features(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W] -> [N, 1024, H/32, W/32]."""
        return self.trunk(self.normalise(pixels))

    def classify(self, features: Tensor) -> Tensor:
        """[N, 1024, h, w] -> logits [N, num_classes]."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    def forward(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W] -> logits [N, num_classes]."""
        return self.classify(self.features(pixels))


Backbone: TypeAlias = GoogLeNet | TorchvisionGoogLeNet


def with_classes(backbone: Backbone, num_classes: int) -> Backbone:
    """Give `backbone` a new classifier of `num_classes` outputs (weights N(0, 0.01), biases 0), in place.

    The auxiliary heads, which belong to the old classes, go.
    """
    backbone.num_classes = num_classes
    backbone.classifier = nn.Linear(backbone.out_channels, num_classes)
    nn.init.normal_(backbone.classifier.weight, std=0.01)
    nn.init.zeros_(backbone.classifier.bias)
    if isinstance(backbone, GoogLeNet):
        backbone.auxiliary = nn.ModuleDict()
    return backbone


def headless(backbone: Backbone) -> Backbone:
    """Take the classifier and the auxiliary heads off `backbone`, in place: what is left is a trunk of features."""
    backbone.classifier = nn.Identity()
    if isinstance(backbone, GoogLeNet):
        backbone.auxiliary = nn.ModuleDict()
    return backbone
