"""What a region classifier's network must be, and torchvision's GoogLeNet behind the same interface."""

from typing import Protocol

from torch import Tensor, nn

from .googlenet import GoogLeNet


class Backbone(Protocol):
    """A classifier of regions with its trunk reachable.

    Attributes:
        trunk: `nn.Sequential` of named blocks; the lower ones can be frozen in training.
        out_channels: channels of `features`.
        num_classes: outputs of the classifier.
    """

    trunk: nn.Sequential
    out_channels: int
    num_classes: int

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W] -> the trunk's input."""
        ...

    def features(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W] -> [N, out_channels, h, w]."""
        ...

    def classify(self, features: Tensor) -> Tensor:
        """[N, out_channels, h, w] -> logits [N, num_classes]."""
        ...


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
        self.trunk = nn.Sequential()
        for name, block in blocks:
            self.trunk.add_module(name, block)
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


def with_classes(backbone: GoogLeNet | TorchvisionGoogLeNet, num_classes: int) -> GoogLeNet | TorchvisionGoogLeNet:
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
