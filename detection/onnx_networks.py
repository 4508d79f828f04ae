"""Networks in the ONNX format, in float32 or with 8-bit convolutions. Needs the packages of the extra `[onnx]`.

An 8-bit network computes the numbers of `engines.quantisation.quantised`. Only its biases are rounded too, to multiples
of input step times weight step, because integer arithmetic adds them to the sums of products.

The form is the one that runtimes recognise: QuantizeLinear and DequantizeLinear before each convolution, and weights
stored as int8. ONNX Runtime computes a convolution with integers only if its output is rounded as well. Therefore the
inputs of a concatenation or of max pooling are rounded to the step of the next convolution. Rounding a number twice to
the same step changes nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .engines.quantisation import INPUT_LIMIT, WEIGHT_LIMIT

# The oldest version of the operators in which torch's exporter writes a network: older runtimes read it.
_OPSET = 18
# The largest bias in steps. Sums of products have room beside it in int32.
_BIAS_LIMIT = 1 << 30


def onnx_network(network: nn.Module, example: Tensor, input_name: str, output_names: Sequence[str]) -> Any:
    """Convert a network to ONNX, for any number of rows.

    Args:
        network: takes one tensor, in evaluation mode.
        example: an input of the network, with at least two rows.
        input_name, output_names: names of input and outputs in the file.

    Returns:
        An `onnx.ModelProto`. Weights have their names in `network.state_dict()`.

    Raises:
        ImportError: onnx or onnxscript is not installed.
    """
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=_OPSET,
        input_names=[input_name],
        output_names=list(output_names),
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    assert program is not None  # only torch's older exporter returns None
    return program.model_proto


def quantise_onnx(model: Any, ranges: dict[str, float]) -> None:
    """Give convolutions 8 bits.

    Args:
        model: the `onnx.ModelProto` from `onnx_network`, which changes.
        ranges: the largest input of each convolution that gets 8 bits, by the name of its weights. Larger inputs are
            clipped to it.
    """
    graph = _QuantisedGraph(model.graph, ranges)
    nodes = list(model.graph.node)
    for node in nodes:
        graph.add(node)
    graph.replace(model.graph)


class _QuantisedGraph:
    """The nodes and constants of a graph with 8-bit convolutions. `add` takes the nodes of the float32 graph in order.

    Args:
        graph: the float32 graph, an `onnx.GraphProto`.
        ranges: as for `quantise_onnx`.
    """

    def __init__(self, graph: Any, ranges: dict[str, float]):
        from onnx.numpy_helper import to_array

        self._constants = {constant.name: to_array(constant) for constant in graph.initializer}
        self._nodes: list[Any] = []
        self._rounded: dict[tuple[str, float], str] = {}
        self._consumers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._consumers[name].append(node)
        # The input step of each convolution with 8 bits, by the name of its output.
        self._steps = {
            node.output[0]: ranges[node.input[1]] / INPUT_LIMIT
            for node in graph.node
            if node.op_type == "Conv" and node.input[1] in ranges
        }

    def add(self, node: Any) -> None:
        """Add a node of the float32 graph, which changes, after the nodes that round its inputs."""
        output = node.output[0]
        if output in self._steps:
            step = self._steps[output]
            node.input[0] = self._round(node.input[0], step)
            node.input[1:] = self._round_weights(*node.input[1:], step=step)
        elif node.op_type in ("Concat", "MaxPool"):
            next_step = self._step_of_consumers(output)
            if next_step is not None:
                node.input[:] = [self._round(name, next_step) for name in node.input]
        self._nodes.append(node)

    def replace(self, graph: Any) -> None:
        """Replace the nodes and constants of the float32 graph."""
        from onnx.numpy_helper import from_array

        used = {name for node in self._nodes for name in node.input}
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self._nodes)
        graph.initializer.extend(from_array(value, name) for name, value in self._constants.items() if name in used)
        del graph.value_info[:]  # the types of tensors, which runtimes infer

    def _step_of_consumers(self, name: str) -> float | None:
        """The step to which all consumers round a tensor, directly or after max pooling; None if they differ."""
        steps = {
            self._step_of_consumers(node.output[0]) if node.op_type == "MaxPool" else self._steps.get(node.output[0])
            for node in self._consumers[name]
        }
        return steps.pop() if len(steps) == 1 else None

    def _round(self, name: str, step: float) -> str:
        """Round a tensor to 0, 1 ... 255 steps. Returns the name of the rounded tensor."""
        from onnx.helper import make_node

        if (name, step) not in self._rounded:
            new = f"{name}.rounded_{len(self._rounded)}"
            scale = self._constant(f"{new}.scale", np.array(step, np.float32))
            zero = self._constant("zero_uint8", np.array(0, np.uint8))
            self._nodes.append(make_node("QuantizeLinear", [name, scale, zero], [f"{new}.uint8"]))
            self._nodes.append(make_node("DequantizeLinear", [f"{new}.uint8", scale, zero], [new]))
            self._rounded[name, step] = new
        return self._rounded[name, step]

    def _round_weights(self, weight: str, bias: str = "", *, step: float) -> list[str]:
        """Store the weights of a convolution as int8 and its biases as int32. Returns the names of both, as float32.

        Args:
            weight, bias: the names of the constants; "" for no biases. Layers with equal biases may share a constant.
            step: the step of the convolution's inputs.
        """
        values = self._constants[weight].astype(np.float64)
        steps = np.maximum(np.abs(values).max(axis=(1, 2, 3)), 1e-12) / WEIGHT_LIMIT
        biases = self._constants[bias].astype(np.float64) if bias else np.zeros(len(values))
        steps = np.maximum(steps, np.abs(biases) / step / _BIAS_LIMIT).astype(np.float32)
        integers = np.rint(values / steps[:, None, None, None]).astype(np.int8)
        names = [self._dequantised(weight, integers, steps)]
        if bias:
            products = steps * np.float32(step)
            name = f"{weight.removesuffix('weight')}bias"
            names.append(self._dequantised(name, np.rint(biases / products).astype(np.int32), products))
        return names

    def _dequantised(self, name: str, integers: np.ndarray, steps: np.ndarray) -> str:
        """Add a node that multiplies integers by the step of their output. Returns the name of its result."""
        from onnx.helper import make_node

        inputs = [
            self._constant(f"{name}.integers", integers),
            self._constant(f"{name}.steps", steps),
            self._constant(f"{name}.zeros", np.zeros(len(steps), integers.dtype)),
        ]
        self._nodes.append(make_node("DequantizeLinear", inputs, [f"{name}.dequantised"], axis=0))
        return f"{name}.dequantised"

    def _constant(self, name: str, value: np.ndarray) -> str:
        self._constants[name] = value
        return name
