"""Weights in a safetensors file: rounded when they are written, checked before a network is built for them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)

# The kernel "NAME" is stored in 8 bits with a tensor "NAME.scale".
SCALE = ".scale"


class ModelError(ValueError):
    """A model folder or a weights file is missing, damaged or for another network; the message names the file."""


def in_half(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors in float16, without the auxiliary heads, as a file holds them."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if "auxiliary." not in name
    }


def in_8_bits(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors with kernels in int8, from -127 to 127, and the other tensors as in `in_half`.

    Each kernel "NAME" has a tensor "NAME.scale", float32 [outputs]: kernel = int8 values * scale.

    Quantising weights that were loaded from such a file gives the same bytes again, because a scale has only 12
    significant bits, rounded up.
    """
    stored = in_half(network)
    for name, value in network.state_dict().items():
        if name in stored and name.endswith("weight") and value.ndim >= 2:
            rows = value.float().flatten(1)  # [outputs, inputs * height * width]
            fraction, exponent = torch.frexp(rows.abs().amax(1).clamp_min(1e-20) / 127)
            scale = torch.ldexp((fraction * 4096).ceil() / 4096, exponent)
            stored[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            stored[name + SCALE] = scale
    return stored


def finite(tensors: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    """Returns the tensors, if all of their numbers are finite; float16 ends at 65,504.

    Args:
        tensors: from `in_half` or `in_8_bits`.
        network: name of the network in the message.

    Raises:
        ModelError: a number is not finite; the message names the tensor.
    """
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise ModelError(f"{network}: {name} has a number that is not finite in float16, so it is not saved")
    return tensors


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by their names. Kernels in 8 bits are multiplied by their scales.

    Raises:
        ModelError: the file is missing or damaged, or a scale has no kernel that it fits.
    """
    try:
        tensors = load_file(file)
    except FileNotFoundError:
        raise ModelError(f"{file}: the file is missing, although model.json requires it") from None
    except OSError as error:
        raise ModelError(f"{file}: cannot read the file: {error}") from error
    except (SafetensorError, KeyError) as error:  # KeyError: a type that torch does not have
        raise ModelError(f"{file}: damaged safetensors file ({str(error)[:200]})") from None
    for name in [name for name in tensors if name.endswith(SCALE)]:
        scale, whole = tensors.pop(name), name.removesuffix(SCALE)
        if whole not in tensors or scale.ndim != 1 or scale.shape != tensors[whole].shape[:1]:
            raise ModelError(
                f"{file}: {name[:100]} has shape {list(scale.shape)}, but there is no {whole[:100]} with as many "
                "outputs"
            )
        tensors[whole] = tensors[whole] * scale.view(-1, *[1] * (tensors[whole].ndim - 1))
    return tensors


def network_with_weights(
    build: Callable[[], Network],
    tensors: dict[str, Tensor],
    file: Path,
    declared: Mapping[str, tuple[int | None, ...]],
) -> Network:
    """Build a network and load `tensors` into it, converted to the network's data types.

    Args:
        build: makes the network, with any weights. They are replaced, not written to.
        tensors: one tensor for each name in the network's `state_dict`. The network gets copies of them.
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
        # A copy also of the right type: safetensors maps the file, so the tensor would change when the file is changed.
        weights[name] = tensor.to(value.dtype, copy=True)
        # The extremes are found several times faster than each number is tested; a NaN is both of them.
        if not torch.stack(torch.aminmax(weights[name])).isfinite().all():
            raise ModelError(f"{file}: {name} has a number that is NaN or infinite; get the file again")
        if name.endswith("running_var") and (weights[name] < 0).any():
            raise ModelError(f"{file}: {name} has a negative variance; get the file again")
    network.load_state_dict(weights, assign=True)
    return network
