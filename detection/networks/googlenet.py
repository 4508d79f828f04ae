"""GoogLeNet: Table 1 of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 5.

The network takes RGB pixels in 0..255 and normalises them itself, so that no caller can feed it pixels in another
network's range. `GoogLeNet.features` gives the 1024-channel map under the average pooling, for heads other than
the classifier. `table1` counts the parameters and multiply-adds of each row of the paper's table.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

# The mean pixel of ImageNet, RGB, as the BVLC weights want it subtracted.
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
    """What a GoogLeNet with auxiliary heads returns in training mode: each float [N, num_classes], before softmax."""

    main: Tensor
    auxiliary1: Tensor
    auxiliary2: Tensor


class Conv(nn.Sequential):
    """Convolution, batch norm if asked for, ReLU: "all the convolutions [...] use rectified linear activation"."""

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
    """The stem whose cost Table 1 gives (2.7 K parameters, 34 M multiply-adds): a 7x7 depthwise convolution with
    depth multiplier 8 (7*7*3*8 weights, 24 channels), then 1x1 to 64 channels (24*64 weights)."""

    def __init__(self, outputs: int, *, batch_norm: bool = False):
        super().__init__(
            OrderedDict(
                depthwise=nn.Conv2d(3, 24, 7, stride=2, padding=3, groups=3, bias=False),
                pointwise=Conv(24, outputs, 1, batch_norm=batch_norm),
            )
        )


class LocalResponseNorm(nn.Module):
    """x / (1 + alpha/5 * sum over 5 neighbouring channels of x^2) ^ 0.75 (Krizhevsky et al., 2012, section 3.3).

    The same function as `torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)`; the sum over channels is a banded 1x1
    convolution, which every engine runs as the matrix product it is, several times as fast as torch's 3-d pooling.
    """

    band: Tensor

    def __init__(self, channels: int, size: int = 5, alpha: float = 1e-4):
        super().__init__()
        index = torch.arange(channels)
        band = (index[:, None] - index[None, :]).abs() <= size // 2
        self.register_buffer("band", band.float()[:, :, None, None] * (alpha / size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, h, w] -> the same
        if x.dtype == torch.float16:  # which squares of activations overflow
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x.float()).half()
        scale = nn.functional.conv2d(x * x, self.band.to(x.dtype)) + 1.0
        root = torch.rsqrt(scale)
        return x * (root * torch.sqrt(root))  # scale ** -0.75


class Inception(nn.Module):
    """The Inception module with dimension reduction, Figure 2(b); outputs are joined in the figure's order."""

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


class AuxiliaryHead(nn.Sequential):
    """The side classifier of section 5: 5x5/3 average pooling, 128 1x1 filters, 1024 units, 70 % dropout."""

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
        num_classes: outputs of the classifier (a detector counts the background as one).
        stem: "plain", the 7x7 convolution that the public BVLC weights have, or "separable", the one that the
            parameter count of Table 1 belongs to.
        batch_norm: batch normalisation after each convolution, for training from scratch. The paper has none;
            with it the local response normalisation is left out (Ioffe & Szegedy, 2015, section 4.2.1).
        auxiliary: build the two auxiliary heads (used in training mode only).
        dropout: share of the 1024 pooled features dropped before the classifier.

    Attributes:
        trunk: the rows of Table 1 up to inception (5b), an `nn.Sequential` with one named child a row.
        out_channels: channels of `features`, 1024.
        input_ranges: the largest input of convolutions by name, for `quantisation`; empty where nobody measured.
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
        first = (
            Conv(3, width1, 7, stride=2, padding=3, batch_norm=batch_norm)
            if stem == "plain"
            else SeparableStem(width1, batch_norm=batch_norm)
        )
        rows: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=first,
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
            rows[name] = module
            channels = module.out_channels
            if name in _POOL_AFTER:
                rows[_POOL_AFTER[name]] = pool()
            if auxiliary and name in _AUXILIARY_AFTER:
                auxiliary_heads[_AUXILIARY_AFTER[name]] = AuxiliaryHead(channels, num_classes, batch_norm=batch_norm)
        self.trunk = nn.Sequential(rows)
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
        """Pixels, float RGB in 0..255 [N, 3, H, W], as the trunk wants them."""
        return pixels - self.mean

    def features(self, pixels: Tensor) -> Tensor:
        """The map under the average pooling: pixels, float RGB in 0..255 [N, 3, H, W] -> [N, 1024, H/32, W/32]."""
        return self.trunk(self.normalise(pixels))

    def classify(self, features: Tensor) -> Tensor:
        """The rows after the trunk: features [N, 1024, h, w] -> logits [N, num_classes]."""
        return self.classifier(self.dropout(features.mean((2, 3))))

    def forward(self, pixels: Tensor) -> Tensor | Logits:
        """Pixels, float RGB in 0..255 [N, 3, H, W] -> logits [N, num_classes]; in training mode with auxiliary heads
        `Logits` (pixels then 224x224, which the heads' linear layers need)."""
        if not (self.training and self.auxiliary):
            return self.classify(self.features(pixels))
        side = {}
        x = self.normalise(pixels)
        for name, row in self.trunk.named_children():
            x = row(x)
            if name in _AUXILIARY_AFTER:
                side[_AUXILIARY_AFTER[name]] = self.auxiliary[_AUXILIARY_AFTER[name]](x)
        return Logits(self.classify(x), **side)


@dataclass(frozen=True)
class TableRow:
    """One row of Table 1: weights (biases not counted, as in the paper) and multiply-adds for one image."""

    name: str
    output: tuple[int, ...]  # (channels, height, width), or (units,)
    parameters: int
    multiply_adds: int


# Rows of Table 1 as printed: parameters (K = 1024) and multiply-adds in millions. Our counts agree within 1 % or
# half a printed unit, except where the paper contradicts its own columns:
#   inception_4c  463 K printed; its widths give 497 K, and its 100 M multiply-adds belong to 497 K
#   inception_4d  580 K printed; its widths give 590 K (119 M agrees)
#   inception_5a  1072 K and 54 M printed; its widths give 1018 K and 51 M. 54 M belongs to a 5x5 reduction of 48, as in
#                 (5b); the public weights have the 32 of the table's column
#   inception_5b  1388 K printed; its widths give 1409 K (71 M agrees)
PAPER_TABLE_1 = {
    "conv1": (2.7, 34),
    "conv2": (112, 360),
    "inception_3a": (159, 128),
    "inception_3b": (380, 304),
    "inception_4a": (364, 73),
    "inception_4b": (437, 88),
    "inception_4c": (463, 100),
    "inception_4d": (580, 119),
    "inception_4e": (840, 170),
    "inception_5a": (1072, 54),
    "inception_5b": (1388, 71),
    "linear": (1000, 1),
}


def table1(model: GoogLeNet, size: int = 224) -> list[TableRow]:
    """Parameters and multiply-adds of each row of Table 1, counted on `model` for a `size` x `size` image.

    The table's row "convolution 3x3" is `conv2_reduce` and `conv2` together; pooling and normalisation rows,
    which have no weights, are left out.
    """
    counted: dict[str, TableRow] = {}

    def count(row: str, layer: nn.Conv2d | nn.Linear, output: Tensor) -> None:
        positions = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        weights = layer.weight.numel()
        before = counted.get(row)
        counted[row] = TableRow(
            row,
            tuple(output.shape[1:]),
            weights + (before.parameters if before else 0),
            weights * positions + (before.multiply_adds if before else 0),
        )

    handles = []
    for name, module in [*model.trunk.named_children(), ("linear", model.classifier)]:
        row = "conv2" if name == "conv2_reduce" else name
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                handles.append(layer.register_forward_hook(lambda layer, _, output, row=row: count(row, layer, output)))
    outputs: dict[str, Tensor] = {}
    training = model.training
    try:
        model.eval()
        for name, module in model.trunk.named_children():
            handles.append(
                module.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
            )
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size, device=model.classifier.weight.device))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return [
        TableRow(row.name, tuple(outputs[row.name].shape[1:]), row.parameters, row.multiply_adds)
        if row.name in outputs
        else row
        for row in counted.values()
    ]
