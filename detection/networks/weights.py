"""Weights read from a file, checked before they are loaded into a network."""

from pathlib import Path

from torch import Tensor, nn


class ModelError(ValueError):
    """A model folder or a weights file is missing, damaged or for another network; the message names the file."""


def load_weights(network: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    """Load `tensors` into `network`, converted to the network's data types.

    Args:
        network: the network that receives the weights.
        tensors: one tensor for each name in the network's `state_dict`.
        file: the file that the tensors were read from, for error messages.

    Raises:
        ModelError: a tensor is missing, unknown or of another shape than in the network.
    """
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(
            f"{file}: the weights do not fit the network: "
            f"{len(missing)} missing (first: {missing[:1]}), {len(unknown)} unknown (first: {unknown[:1]})"
        )
    for name, value in expected.items():
        if value.shape != tensors[name].shape:
            raise ModelError(
                f"{file}: {name} has shape {list(tensors[name].shape)}, the network expects {list(value.shape)}"
            )
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})
