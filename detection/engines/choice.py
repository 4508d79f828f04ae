"""Which engine runs a network: kind, device and precision, chosen for the machine or checked against it.

openvino         OpenVINO on the CPU, in bfloat16 where the CPU multiplies it in hardware, else float32
openvino-int8    the same with 8-bit convolutions, see `quantisation`
torch-compiled   torch.compile, and on a GPU a CUDA graph, in bfloat16 or float16 where the device computes with it
torch            torch as it is, in float32, on any device: slow, and what the others are compared with
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from .openvino_cpu import cpu_computes_bfloat16

Kind = Literal["auto", "openvino", "openvino-int8", "torch-compiled", "torch"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class EngineError(RuntimeError):
    """The network cannot run as asked for; the message says what to do."""


def resolve_device(device: str) -> str:
    """The device meant: for "auto" a GPU where there is one, else "cpu".

    Raises:
        EngineError: there is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if device.split(":")[0] == "cuda":
        if not torch.cuda.is_available():
            raise EngineError(
                f"device {device!r} was asked for, but torch finds no GPU here; use --device cpu or --device auto"
            )
        return device
    raise EngineError(f"unknown device {device!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:N'")


def computes_bfloat16(device: str) -> bool:
    """Whether a device multiplies bfloat16 in hardware; elsewhere it is emulated, slower than float32."""
    if device == "cpu":
        return cpu_computes_bfloat16()
    return torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Choice:
    """What runs a network: kind, device and precision, none of them "auto" any more, and why, in words."""

    kind: Kind
    device: str
    precision: Precision
    reason: str


def choose(kind: Kind = "auto", device: str = "auto", precision: Precision = "auto") -> Choice:
    """The fastest way to run a network that fits what was asked for.

    Raises:
        EngineError: there is no such device, or the kind does not run on it.
    """
    if kind not in get_args(Kind):
        raise EngineError(f"unknown engine {kind!r}: expected one of {', '.join(get_args(Kind))}")
    if device == "auto" and kind in ("openvino", "openvino-int8"):
        device = "cpu"
    asked, device = device, resolve_device(device)
    gpu = device != "cpu"
    if gpu and kind in ("openvino", "openvino-int8"):
        raise EngineError(f"engine {kind!r} runs on CPUs, not on {device}; use --engine torch-compiled or --device cpu")
    if kind == "auto":
        kind = "torch-compiled" if gpu else "openvino"
        found = "a GPU is at hand" if gpu else "no GPU is at hand" if asked == "auto" else f"{asked} was asked for"
        reason = f"the fastest engine for {'GPUs' if gpu else 'CPUs'}; {found}"
    else:
        reason = "asked for"
    if precision == "auto":
        bfloat16 = kind != "torch" and computes_bfloat16(device)
        # GPUs without bfloat16 have had float16 since 2016.
        precision = "bfloat16" if bfloat16 else "float16" if gpu and kind != "torch" else "float32"
        if kind != "torch":
            reason += f"; the device computes {'with' if bfloat16 else 'without'} bfloat16"
    return Choice(kind, device, precision, reason)
