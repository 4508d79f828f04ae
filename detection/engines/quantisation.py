"""Convolutions in 8 bits: how wide their inputs are, and a copy of a network whose products are 8-bit integers.

Weights are rounded to 255 levels, symmetric about 0, in each output channel; inputs, which are never negative after
a ReLU, to 256 levels from 0 to the largest value that was measured (Jacob et al., "Quantization and Training of Neural
Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, sections 2.1 and 3). The rounding is written with
torch's `fake_quantize`, which OpenVINO turns into integer arithmetic and plain torch into the same numbers, slowly.

What stays as it is: convolutions with inputs of either sign (the first one, of pixels less their mean, and the second
of the separable stem), local response normalisation, whose squares span too wide a range, and the classifier.

The ranges belong to a model: training measures them on its own crops, and model folders keep them
(`Backbone.input_ranges`). For a model without, they are measured on the photographs that come with scikit-image.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.backbones import Backbone
from ..warping.warp import warp_regions

_INPUT_LIMIT = 255
_WEIGHT_LIMIT = 127
_BATCH = 16


def measure_input_ranges(backbone: Backbone, crops: np.ndarray) -> dict[str, float]:
    """The largest input of each convolution that has no negative ones.

    Args:
        backbone: in float32, on any device; runs in evaluation mode and is left as it was.
        crops: uint8 RGB [N, 224, 224, 3] such as the network will see; some dozens suffice.

    Returns:
        By name of the convolution in `backbone`.
    """
    largest: dict[str, float] = {}
    signed: set[str] = set()

    def see(name: str, inputs: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(inputs.max()))
        if inputs.min() < 0:
            signed.add(name)

    convolutions = [(name, layer) for name, layer in backbone.trunk.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=f"trunk.{name}": see(name, inputs[0]))
        for name, layer in convolutions
    ]
    training, device = backbone.training, backbone.classifier.weight.device
    try:
        backbone.eval()
        with torch.no_grad():
            for start in range(0, len(crops), _BATCH):
                rows = torch.from_numpy(crops[start : start + _BATCH]).to(device)
                backbone.features(rows.permute(0, 3, 1, 2).float())
    finally:
        backbone.train(training)
        for hook in hooks:
            hook.remove()
    return {name: value for name, value in largest.items() if name not in signed and value > 0}


def quantised(backbone: Backbone) -> Backbone:
    """A copy of `backbone` with 8-bit convolutions, where `backbone.input_ranges` tells how wide their inputs are."""
    result = copy.deepcopy(backbone)
    ranges = backbone.input_ranges or measure_input_ranges(backbone, _photograph_crops())
    for name, largest in ranges.items():
        parent, _, child = name.rpartition(".")
        convolution = result.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        setattr(result.get_submodule(parent), child, QuantisedConv(convolution, largest))
    return result


def _photograph_crops() -> np.ndarray:
    """Squares of many sizes of colour photographs that are installed with scikit-image: uint8 RGB [64, 224, 224, 3]."""
    from skimage import data

    rng = np.random.default_rng(0)
    crops = []
    for image in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        height, width = image.shape[:2]
        side = rng.uniform(40, min(height, width), 16)
        left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
        boxes = np.stack([left, top, left + side, top + side], axis=1).astype(np.float32)
        crops.append(warp_regions(np.ascontiguousarray(image), boxes))
    return np.concatenate(crops)


class QuantisedConv(nn.Module):
    """A convolution of 8-bit inputs and 8-bit weights.

    Args:
        convolution: the one to round.
        largest: inputs are in 0..largest; larger ones are cut off.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, convolution: nn.Conv2d, largest: float):
        super().__init__()
        self.convolution = convolution
        self.largest = largest
        weight = convolution.weight.detach()
        self.register_buffer("scale", weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / _WEIGHT_LIMIT)
        self.register_buffer("zero", torch.zeros(len(weight), dtype=torch.int32))

    def extra_repr(self) -> str:
        return f"largest={self.largest!r}"  # so that the cache of compiled networks sees it

    def forward(self, x: Tensor) -> Tensor:
        layer = self.convolution
        inputs = torch.fake_quantize_per_tensor_affine(x, self.largest / _INPUT_LIMIT, 0, 0, _INPUT_LIMIT)
        weight = torch.fake_quantize_per_channel_affine(
            layer.weight, self.scale, self.zero, 0, -_WEIGHT_LIMIT, _WEIGHT_LIMIT
        )
        return nn.functional.conv2d(
            inputs, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
