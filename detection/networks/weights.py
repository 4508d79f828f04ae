"""Weights read from a file, checked before a network is built for them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class ModelError(ValueError):
    """A model folder or a weights file is missing, damaged or for another network; the message names the file."""


def network_with_weights(
    build: Callable[[], Network],
    tensors: dict[str, Tensor],
    file: Path,
    declared: Mapping[str, tuple[int | None, ...]],
) -> Network:
    """Build a network and load `tensors` into it, converted to the network's data types.

    Args:
        build: makes the network, with any weights.
        tensors: one tensor for each name in the network's `state_dict`.
        file: the file that the tensors were read from, for error messages.
        declared: shapes that follow from the sizes that a description declares, by the tensor's name, with None for
            sizes that are not declared. They are compared before the network is built, so that a description of large
            layers without their weights cannot fill the memory.

    Raises:
        ModelError: a tensor is missing, has an unknown name, another shape than in the network, or a number that is
            not finite.
    """
    for name, shape in declared.items():
        if name not in tensors:
            raise ModelError(f"{file}: the weights do not fit the network: {name} is missing")
        found = list(tensors[name].shape)
        if len(found) != len(shape) or any(size not in (None, given) for size, given in zip(shape, found, strict=True)):
            sizes = ", ".join("any" if size is None else str(size) for size in shape)
            raise ModelError(f"{file}: {name} has shape {found}, the network expects [{sizes}]")
    network = build()
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        raise ModelError(
            f"{file}: the weights do not fit the network: {len(missing)} missing "
            f"(first: {[name[:100] for name in missing[:1]]}), {len(unknown)} unknown "
            f"(first: {[name[:100] for name in unknown[:1]]})"
        )
    weights = {}
    for name, value in expected.items():
        tensor = tensors[name]
        if value.shape != tensor.shape:
            raise ModelError(f"{file}: {name} has shape {list(tensor.shape)}, the network expects {list(value.shape)}")
        if tensor.is_floating_point() != value.is_floating_point() or tensor.is_complex():
            raise ModelError(f"{file}: {name} has the type {tensor.dtype}, the network expects {value.dtype}")
        weights[name] = tensor.to(value.dtype)
        if not weights[name].isfinite().all():
            raise ModelError(f"{file}: {name} has a number that is NaN or infinite; get the file again")
        if name.endswith("running_var") and (weights[name] < 0).any():
            raise ModelError(f"{file}: {name} has a negative variance; get the file again")
    network.load_state_dict(weights)
    return network
