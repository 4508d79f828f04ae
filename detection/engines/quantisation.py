"""Quantisation: replaces convolutions by 8-bit convolutions, and measures the ranges of their inputs.

The weights of each output channel are rounded to 255 levels, symmetric about 0. Inputs that come from a ReLU are never
negative; they are rounded to 256 levels from 0 to the largest measured input (Jacob et al., "Quantization and Training
of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, sections 2.1 and 3). The rounding uses
torch's `fake_quantize`: OpenVINO turns it into integer arithmetic, and plain torch computes the same numbers, slowly.

Three kinds of layers are not quantised: convolutions with negative inputs (the first convolution, whose inputs are
pixels minus their mean, and the second convolution of the separable stem), local response normalisation, whose squares
span too wide a range, and the classifier.

Training measures the ranges on its own crops, and model folders store them (`Backbone.input_ranges`). For a model
without stored ranges, `input_ranges` measures them on the photographs of scikit-image.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.backbones import Backbone, with_the_same_tensors
from ..warping.warp import warp_regions

# Largest integers of inputs, which begin at 0, and of weights, which begin at -WEIGHT_LIMIT.
INPUT_LIMIT = 255
WEIGHT_LIMIT = 127
_BATCH = 16


def measure_input_ranges(backbone: Backbone, crops: np.ndarray) -> dict[str, float]:
    """Measure the largest input of each convolution that has no negative inputs.

    Args:
        backbone: a float32 network on any device. It runs in evaluation mode and then returns to its own mode.
        crops: uint8 RGB [N, 224, 224, 3], typical inputs of the network. A few dozen crops are enough.

    Returns:
        The largest input of each of these convolutions, by its name in `backbone`, such as "trunk.conv2.convolution".
    """
    largest: dict[str, float] = {}
    signed: set[str] = set()

    def record(name: str, inputs: Tensor) -> None:
        largest[name] = max(largest.get(name, 0.0), float(inputs.max()))
        if inputs.min() < 0:
            signed.add(name)

    convolutions = [(name, layer) for name, layer in backbone.trunk.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=f"trunk.{name}": record(name, inputs[0]))
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


def input_ranges(backbone: Backbone) -> dict[str, float]:
    """The stored input ranges of `backbone`. If it has none, they are measured on photographs of scikit-image."""
    return backbone.input_ranges or measure_input_ranges(backbone, _photograph_crops())


def quantised(backbone: Backbone) -> Backbone:
    """A network with the tensors of `backbone`, in which the convolutions named in `input_ranges` have 8 bits."""
    result = with_the_same_tensors(backbone)
    for name, largest in input_ranges(backbone).items():
        parent, _, child = name.rpartition(".")
        convolution = result.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        setattr(result.get_submodule(parent), child, QuantisedConv(convolution, largest))
    return result


def _photograph_crops() -> np.ndarray:
    """Random squares from colour photographs that scikit-image installs: uint8 RGB [64, 224, 224, 3]."""
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
    """A convolution with 8-bit inputs and 8-bit weights.

    Args:
        convolution: the convolution to quantise.
        largest: the upper end of the input range. Larger inputs are clipped to it.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, convolution: nn.Conv2d, largest: float):
        super().__init__()
        self.convolution = convolution
        self.largest = largest
        weight = convolution.weight.detach()
        self.register_buffer("scale", weight.abs().amax((1, 2, 3)).clamp(min=1e-12) / WEIGHT_LIMIT)
        self.register_buffer("zero", torch.zeros(len(weight), dtype=torch.int32))

    def extra_repr(self) -> str:
        return f"largest={self.largest!r}"  # `compiled_cache.cache_key` contains this text

    def forward(self, x: Tensor) -> Tensor:
        layer = self.convolution
        inputs = torch.fake_quantize_per_tensor_affine(x, self.largest / INPUT_LIMIT, 0, 0, INPUT_LIMIT)
        weight = torch.fake_quantize_per_channel_affine(
            layer.weight, self.scale, self.zero, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT
        )
        return nn.functional.conv2d(
            inputs, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
