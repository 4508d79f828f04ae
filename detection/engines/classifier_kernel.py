"""The kernel of a linear layer whose result for a row does not depend on the other rows or on the number of threads."""

import numpy as np

from ...runtime.compilation import fused_kernel

# Rows that are computed together: their outputs stay in the first cache while a row of the weights is added to each.
_ROWS = 4


@fused_kernel
def linear(features: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """Writes features @ weight + bias to `out`, adding the products of a row in the order of the inputs.

    Args:
        features: float32 [N, D].
        weight: float32 [D, C].
        bias: float32 [C].
        out: float32 [N, C].
    """
    inputs, outputs = weight.shape
    in_fours = inputs - inputs % 4  # four products are added at once: a quarter of the traffic to `out`
    for first in range(0, len(features), _ROWS):
        last = min(first + _ROWS, len(features))
        for row in range(first, last):
            out[row] = bias
        for number in range(0, in_fours, 4):
            weights = weight[number : number + 4]
            for row in range(first, last):
                a, b, c, d = (
                    features[row, number],
                    features[row, number + 1],
                    features[row, number + 2],
                    features[row, number + 3],
                )
                target = out[row]
                for column in range(outputs):
                    target[column] += (
                        a * weights[0, column]
                        + b * weights[1, column]
                        + c * weights[2, column]
                        + d * weights[3, column]
                    )
        for number in range(in_fours, inputs):
            for row in range(first, last):
                for column in range(outputs):
                    out[row, column] += features[row, number] * weight[number, column]
