"""GoogLeNet: Table 1 of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 5.

The network takes RGB pixels in 0..255 and normalises them itself, so callers need not know the range that its weights
expect. `GoogLeNet.features` returns the 1024-channel feature map before average pooling, for heads other than the
classifier.
"""

from collections import OrderedDict
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

# ImageNet's mean pixel, RGB. The BVLC weights expect pixels minus this mean.
IMAGENET_MEAN = (123.0, 117.0, 104.0)

Stem = Literal["plain", "separable"]

# Table 1: convolution 7x7, 3x3 reduce, 3x3.
_STEM_WIDTHS = (64, 64, 192)
# Table 1: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
_INCEPTION_WIDTHS = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
_POOL_AFTER = {"inception_3b": "pool3", "inception_4e": "pool4"}
_AUXILIARY_AFTER = {"inception_4a": "auxiliary1", "inception_4d": "auxiliary2"}


class Logits(NamedTuple):
    """Logits of a GoogLeNet with auxiliary heads in training mode: float [N, num_classes] from each classifier."""

    main: Tensor
    auxiliary1: Tensor
    auxiliary2: Tensor


class Conv(nn.Sequential):
    """Convolution, optional batch norm, ReLU: "all the convolutions [...] use rectified linear activation"."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        batch_norm: bool = False,
    ):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=not batch_norm)
        layers: list[tuple[str, nn.Module]] = [("convolution", convolution)]
        if batch_norm:
            layers.append(("batch_norm", nn.BatchNorm2d(outputs, eps=1e-3)))
        layers.append(("relu", nn.ReLU(inplace=True)))
        super().__init__(OrderedDict(layers))


class SeparableStem(nn.Sequential):
    """The first convolution, split into a depthwise and a 1x1 convolution.

    Table 1 gives the cost of this stem: 2.7 K parameters and 34 M multiply-adds. The 7x7 depthwise convolution has
    depth multiplier 8 (24 channels, 7*7*3*8 weights). The 1x1 convolution turns them into 64 channels (24*64 weights).
    """

    def __init__(self, outputs: int, *, batch_norm: bool = False):
        super().__init__(
            OrderedDict(
                depthwise=nn.Conv2d(3, 24, 7, stride=2, padding=3, groups=3, bias=False),
                pointwise=Conv(24, outputs, 1, batch_norm=batch_norm),
            )
        )


class LocalResponseNorm(nn.Module):
    """x / (1 + alpha/5 * sum over 5 neighbouring channels of x^2) ^ 0.75 (Krizhevsky et al., 2012, section 3.3).

    The function is that of `torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)`. Here a banded 1x1 convolution computes the
    sum over channels: every engine runs it as a matrix product, several times as fast as torch's 3-d pooling.
    """

    band: Tensor

    def __init__(self, channels: int, size: int = 5, alpha: float = 1e-4):
        super().__init__()
        index = torch.arange(channels)
        band = (index[:, None] - index[None, :]).abs() <= size // 2
        self.register_buffer("band", band.float()[:, :, None, None] * (alpha / size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, h, w] -> the same
        if x.dtype == torch.float16:  # squares of activations overflow float16
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x.float()).half()
        scale = nn.functional.conv2d(x * x, self.band.to(x.dtype)) + 1.0
        root = torch.rsqrt(scale)
        return x * (root * torch.sqrt(root))  # scale ** -0.75


class Inception(nn.Module):
    """The Inception module with dimension reduction, Figure 2(b). Branches are joined in the order of the figure."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int], *, batch_norm: bool = False):
        super().__init__()
        one, three_reduce, three, five_reduce, five, projection = widths
        self.conv1x1 = Conv(inputs, one, 1, batch_norm=batch_norm)
        self.conv3x3_reduce = Conv(inputs, three_reduce, 1, batch_norm=batch_norm)
        self.conv3x3 = Conv(three_reduce, three, 3, padding=1, batch_norm=batch_norm)
        self.conv5x5_reduce = Conv(inputs, five_reduce, 1, batch_norm=batch_norm)
        self.conv5x5 = Conv(five_reduce, five, 5, padding=2, batch_norm=batch_norm)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.pool_projection = Conv(inputs, projection, 1, batch_norm=batch_norm)
        self.out_channels = one + three + five + projection

    def forward(self, x: Tensor) -> Tensor:  # [N, inputs, h, w] -> [N, out_channels, h, w]
        return torch.cat(
            [
                self.conv1x1(x),
                self.conv3x3(self.conv3x3_reduce(x)),
                self.conv5x5(self.conv5x5_reduce(x)),
                self.pool_projection(self.pool(x)),
            ],
            dim=1,
        )


class NaiveInception(nn.Module):
    """The naive Inception module, Figure 2(a): no dimension reduction, and the pooled inputs are outputs.

    GoogLeNet does not use it. `costs` compares its cost with that of `Inception`.

    Args:
        inputs: channels of the input.
        one, three, five: channels of the 1x1, the 3x3 and the 5x5 convolution.
    """

    def __init__(self, inputs: int, one: int, three: int, five: int):
        super().__init__()
        self.conv1x1 = Conv(inputs, one, 1)
        self.conv3x3 = Conv(inputs, three, 3, padding=1)
        self.conv5x5 = Conv(inputs, five, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.out_channels = one + three + five + inputs

    def forward(self, x: Tensor) -> Tensor:  # [N, inputs, h, w] -> [N, out_channels, h, w]
        return torch.cat([self.conv1x1(x), self.conv3x3(x), self.conv5x5(x), self.pool(x)], dim=1)


class AuxiliaryHead(nn.Sequential):
    """The auxiliary classifier of section 5: 5x5/3 average pooling, 128 1x1 filters, 1024 units, 70 % dropout."""

    def __init__(self, inputs: int, num_classes: int, *, batch_norm: bool = False):
        super().__init__(
            OrderedDict(
                pool=nn.AvgPool2d(5, stride=3),
                reduce=Conv(inputs, 128, 1, batch_norm=batch_norm),
                flatten=nn.Flatten(),
                hidden=nn.Linear(128 * 4 * 4, 1024),
                relu=nn.ReLU(inplace=True),
                dropout=nn.Dropout(0.7),
                classifier=nn.Linear(1024, num_classes),
            )
        )


class GoogLeNet(nn.Module):
    """GoogLeNet with a classifier of `num_classes` outputs.

    Args:
        num_classes: outputs of the classifier. In a detector the background is one of the classes.
        stem: "plain" is the 7x7 convolution of the public BVLC weights. "separable" is the stem whose parameters
            Table 1 counts.
        batch_norm: add batch normalisation after each convolution, for training from scratch. The paper has none.
            A network with batch normalisation has no local response normalisation (Ioffe & Szegedy, 2015, section
            4.2.1).
        auxiliary: build the two auxiliary heads. They run in training mode only.
        dropout: share of the 1024 pooled features that are dropped before the classifier.

    Attributes:
        trunk: an `nn.Sequential` of named blocks, from `conv1` to `inception_5b`: Table 1 without average pooling and
            classifier, plus the pooling and normalisation layers.
        out_channels: channels of `features`, 1024.
        input_ranges: for `quantisation`: maps the name of each convolution whose inputs are never negative to its
            largest measured input. Empty if the ranges were not measured.
    """

    out_channels = 1024
    mean: Tensor

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        stem: Stem = "plain",
        batch_norm: bool = False,
        auxiliary: bool = True,
        dropout: float = 0.4,
    ):
        super().__init__()
        if stem not in ("plain", "separable"):
            raise ValueError(f"stem is {stem!r}, expected 'plain' or 'separable'")
        self.num_classes = num_classes
        self.stem: Stem = stem
        self.batch_norm = batch_norm
        self.input_ranges: dict[str, float] = {}
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)

        def local_response_norm(channels: int) -> nn.Module:
            return nn.Identity() if batch_norm else LocalResponseNorm(channels)

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        width1, width2_reduce, width2 = _STEM_WIDTHS
        conv1 = (
            Conv(3, width1, 7, stride=2, padding=3, batch_norm=batch_norm)
            if stem == "plain"
            else SeparableStem(width1, batch_norm=batch_norm)
        )
        blocks: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=conv1,
            pool1=pool(),
            norm1=local_response_norm(width1),
            conv2_reduce=Conv(width1, width2_reduce, 1, batch_norm=batch_norm),
            conv2=Conv(width2_reduce, width2, 3, padding=1, batch_norm=batch_norm),
            norm2=local_response_norm(width2),
            pool2=pool(),
        )
        channels = width2
        auxiliary_heads = {}
        for name, widths in _INCEPTION_WIDTHS.items():
            module = Inception(channels, widths, batch_norm=batch_norm)
            blocks[name] = module
            channels = module.out_channels
            if name in _POOL_AFTER:
                blocks[_POOL_AFTER[name]] = pool()
            if auxiliary and name in _AUXILIARY_AFTER:
                auxiliary_heads[_AUXILIARY_AFTER[name]] = AuxiliaryHead(channels, num_classes, batch_norm=batch_norm)
        self.trunk = nn.Sequential(blocks)
        self.auxiliary = nn.ModuleDict(auxiliary_heads)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.normal_(self.classifier.weight, std=0.01)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Subtract the mean pixel: float RGB in 0..255 [N, 3, H, W] -> the input of `trunk`, the same shape."""
        return pixels - self.mean

    def features(self, pixels: Tensor) -> Tensor:
        """Feature map before average pooling: float RGB in 0..255 [N, 3, H, W] -> [N, 1024, H/32, W/32]."""
        return self.trunk(self.normalise(pixels))

    def classify(self, features: Tensor) -> Tensor:
        """Average pooling, dropout and classifier: features [N, 1024, h, w] -> logits [N, num_classes]."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    def forward(self, pixels: Tensor) -> Tensor | Logits:
        """Classify pixels, float RGB in 0..255 [N, 3, H, W].

        Returns:
            Logits [N, num_classes]. In training mode with auxiliary heads, `Logits` of all three classifiers; the
            pixels must then be 224x224, since the auxiliary heads have linear layers.
        """
        if not (self.training and self.auxiliary):
            return self.classify(self.features(pixels))
        auxiliary_logits = {}
        x = self.normalise(pixels)
        for name, block in self.trunk.named_children():
            x = block(x)
            if name in _AUXILIARY_AFTER:
                head = _AUXILIARY_AFTER[name]
                auxiliary_logits[head] = self.auxiliary[head](x)
        return Logits(self.classify(x), **auxiliary_logits)
