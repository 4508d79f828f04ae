"""What GoogLeNet costs: weights and multiply-adds of Table 1, and of each Inception module in both forms of Figure 2.

The counts are those of the paper: weights without biases, and the multiply-adds of convolutions and linear layers. The
networks are counted on torch's meta device, so nothing is computed.
"""

import copy
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from .googlenet import GoogLeNet, Inception, NaiveInception


@dataclass(frozen=True)
class Cost:
    """The cost of a part of a network, for one input.

    Attributes:
        output: shape of the output: (channels, height, width), or (units,).
        weights: number of weights, without biases.
        multiply_adds: number of multiply-adds.
    """

    output: tuple[int, ...]
    weights: int
    multiply_adds: int


@dataclass(frozen=True)
class PrintedCost:
    """A row of Table 1 as printed. `kilo_weights` counts in units of 1024, `mega_multiply_adds` in millions."""

    output: tuple[int, ...]
    kilo_weights: float
    mega_multiply_adds: float


# The rows of Table 1 that have weights. The first is that of the separable stem.
TABLE_1 = {
    "conv1": PrintedCost((64, 112, 112), 2.7, 34),
    "conv2": PrintedCost((192, 56, 56), 112, 360),
    "inception_3a": PrintedCost((256, 28, 28), 159, 128),
    "inception_3b": PrintedCost((480, 28, 28), 380, 304),
    "inception_4a": PrintedCost((512, 14, 14), 364, 73),
    "inception_4b": PrintedCost((512, 14, 14), 437, 88),
    "inception_4c": PrintedCost((512, 14, 14), 463, 100),
    "inception_4d": PrintedCost((528, 14, 14), 580, 119),
    "inception_4e": PrintedCost((832, 14, 14), 840, 170),
    "inception_5a": PrintedCost((832, 7, 7), 1072, 54),
    "inception_5b": PrintedCost((1024, 7, 7), 1388, 71),
    "classifier": PrintedCost((1000,), 1000, 1),
}


def layer_costs(network: nn.Module, *input_shape: int) -> dict[str, Cost]:
    """The cost of each convolution and linear layer that runs, by name, in the order in which they run.

    Args:
        network: any network; it stays as it is.
        input_shape: shape of one input, such as 3, 224, 224.
    """
    counted = _on_meta(network)
    costs: dict[str, Cost] = {}

    def count(name: str, layer: nn.Module, output: Tensor) -> None:
        weights = cast(Tensor, layer.weight).numel()
        positions = output.shape[2:].numel() if output.dim() == 4 else 1
        costs[name] = Cost(tuple(output.shape[1:]), weights, weights * positions)

    for name, layer in counted.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(lambda layer, _, output, name=name: count(name, layer, output))
    with torch.no_grad():
        counted(torch.empty(1, *input_shape, device="meta"))
    return costs


def table_1(network: GoogLeNet) -> dict[str, Cost]:
    """The rows of Table 1 for a GoogLeNet and an input of 224x224, by the names of `TABLE_1`."""
    rows = {}
    layers = layer_costs(network, 3, 224, 224)
    for row in TABLE_1:
        blocks = ("conv2_reduce", "conv2") if row == "conv2" else (row,)
        of_row = [cost for name, cost in layers.items() if name.removeprefix("trunk.").split(".")[0] in blocks]
        output = of_row[-1].output
        if row.startswith("inception"):
            output = (cast(Inception, network.trunk.get_submodule(row)).out_channels, *output[1:])
        rows[row] = Cost(output, sum(cost.weights for cost in of_row), sum(cost.multiply_adds for cost in of_row))
    return rows


@dataclass(frozen=True, eq=False)
class ModuleForms:
    """An Inception module of GoogLeNet in both forms of Figure 2.

    Attributes:
        name: such as "inception_3a".
        input_shape: (channels, height, width) of the input in GoogLeNet.
        naive: the form of Figure 2(a) with the same 1x1, 3x3 and 5x5 convolutions, with random weights.
        reduced: the module itself, the form of Figure 2(b).
        stacked_inputs: channels of the input if all modules before it were naive.
        stacked: cost of the naive form on this input.
    """

    name: str
    input_shape: tuple[int, int, int]
    naive: NaiveInception
    reduced: Inception
    stacked_inputs: int
    stacked: Cost


def module_forms(network: GoogLeNet) -> list[ModuleForms]:
    """The Inception modules of a network in both forms, in their order, for an input of 224x224."""
    outputs = layer_costs(network, 3, 224, 224)
    forms: list[ModuleForms] = []
    for name, module in network.trunk.named_children():
        if not isinstance(module, Inception):
            continue
        side = outputs[f"trunk.{name}.conv1x1.convolution"].output[-1]
        inputs = _convolution(module.conv1x1).in_channels
        widths = [_convolution(conv).out_channels for conv in (module.conv1x1, module.conv3x3, module.conv5x5)]
        stacked_inputs = forms[-1].stacked.output[0] if forms else inputs
        with torch.device("meta"):
            stacked = NaiveInception(stacked_inputs, *widths)
        cost = module_cost(stacked, stacked_inputs, side, side)
        forms.append(
            ModuleForms(name, (inputs, side, side), NaiveInception(inputs, *widths), module, stacked_inputs, cost)
        )
    return forms


def module_cost(module: Inception | NaiveInception, *input_shape: int) -> Cost:
    """The cost of an Inception module for an input of (channels, height, width)."""
    layers = layer_costs(module, *input_shape).values()
    weights, multiply_adds = sum(cost.weights for cost in layers), sum(cost.multiply_adds for cost in layers)
    return Cost((module.out_channels, *input_shape[1:]), weights, multiply_adds)


def median_seconds(networks: Sequence[nn.Module], inputs: Tensor, rounds: int) -> list[float]:
    """The median time of a forward pass of each network on one CPU core, in plain torch.

    The time is that of this process. Time in which other programs have the core does not count.

    Args:
        networks: the networks, which run in float32.
        inputs: their input.
        rounds: number of passes of each network that are timed, after one that is not. The networks take turns.
    """
    seconds: list[list[float]] = [[] for _ in networks]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for number in range(rounds + 1):
                for network, times in zip(networks, seconds, strict=True):
                    start = time.process_time()
                    network(inputs)
                    if number:
                        times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return [statistics.median(times) for times in seconds]


def _convolution(conv: nn.Module) -> nn.Conv2d:
    return cast(nn.Conv2d, conv.get_submodule("convolution"))


def _on_meta(network: nn.Module) -> nn.Module:
    """A copy of the network without values, in evaluation mode."""
    return copy.deepcopy(network).to("meta").eval()
