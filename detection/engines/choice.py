"""The choice of an engine: its kind, device and precision.

openvino         OpenVINO on the CPU, in bfloat16 if the CPU multiplies bfloat16 in hardware, else in float32
openvino-int8    OpenVINO on the CPU with 8-bit convolutions, see `quantisation`
torch-compiled   torch.compile on any device, and a CUDA graph on a GPU; in bfloat16 if the device multiplies bfloat16
                 in hardware, else in float16 on a GPU and float32 on a CPU
torch            plain torch on any device, in float32 by default: slow; the other engines are compared with it
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from .openvino_cpu import cpu_computes_bfloat16

Kind = Literal["auto", "openvino", "openvino-int8", "torch-compiled", "torch"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class EngineError(RuntimeError):
    """The network cannot run with the requested engine; the message says what to do."""


def resolve_device(device: str) -> str:
    """Replace "auto" by "cuda" if torch finds a GPU, else by "cpu"; return any other device as it is.

    Raises:
        EngineError: torch does not find the device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    numbered = re.fullmatch(r"cuda(?::(0|[1-9][0-9]{0,3}))?", device)
    if numbered is None:
        raise EngineError(f"unknown device {device[:40]!r}: expected 'auto', 'cpu', 'cuda' or 'cuda:N'")
    if not torch.cuda.is_available():
        raise EngineError(f"device {device!r} was requested, but torch finds no GPU; use --device cpu or --device auto")
    found = torch.cuda.device_count()
    if numbered[1] and int(numbered[1]) >= found:
        raise EngineError(
            f"device {device!r} was requested, but torch finds {found} GPU(s), cuda:0 to cuda:{found - 1}; "
            "use one of these"
        )
    return device


def computes_bfloat16(device: str) -> bool:
    """Whether `device` multiplies bfloat16 in hardware. Emulated bfloat16 is slower than float32."""
    if device == "cpu":
        return cpu_computes_bfloat16()
    with torch.cuda.device(device):  # torch asks the current device
        return torch.cuda.is_bf16_supported(including_emulation=False)


@dataclass(frozen=True)
class Choice:
    """The engine that runs a network: kind, device and precision, none of them "auto", and the reason in words."""

    kind: Kind
    device: str
    precision: Precision
    reason: str

    @property
    def description(self) -> str:
        """Engine, device and precision in words, such as "OpenVINO on CPU, float32"."""
        if self.kind == "openvino-int8":
            return f"OpenVINO on CPU, int8 and {self.precision}"
        if self.kind == "openvino":
            return f"OpenVINO on CPU, {self.precision}"
        device = "CPU" if self.device == "cpu" else torch.cuda.get_device_name(self.device)
        return f"{'compiled torch' if self.kind == 'torch-compiled' else 'torch'} on {device}, {self.precision}"


def cpu_is_faster_with_8_bits() -> bool:
    """Whether this CPU is of a kind on which 8-bit convolutions were measured to be faster: x86 with AVX2 or more."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def choose(
    kind: Kind = "auto",
    device: str = "auto",
    precision: Precision = "auto",
    *,
    ranges: Sequence[Mapping[str, float]] = (),
) -> Choice:
    """Choose an engine. Each "auto" becomes the fastest option that the other arguments allow.

    Args:
        kind, device, precision: see above.
        ranges: the stored input ranges (`Backbone.input_ranges`) of the networks of a detector. If every network has
            some, "auto" may become "openvino-int8". Its probabilities are less exact than those of "openvino", but
            detection loses no mean AP by them (docs/results.md). Other uses were not measured and give no ranges.

    Raises:
        EngineError: torch does not find the device, or this kind of engine does not run on it.
    """
    if kind not in get_args(Kind):
        raise EngineError(f"unknown engine {kind[:40]!r}: expected one of {', '.join(get_args(Kind))}")
    if device == "auto" and kind in ("openvino", "openvino-int8"):
        device = "cpu"
    requested, device = device, resolve_device(device)
    gpu = device != "cpu"
    if gpu and kind in ("openvino", "openvino-int8"):
        raise EngineError(f"engine {kind!r} runs on CPUs, not on {device}; use --engine torch-compiled or --device cpu")
    if kind == "auto":
        int8 = bool(ranges) and all(ranges) and not gpu and cpu_is_faster_with_8_bits()
        kind = "torch-compiled" if gpu else "openvino-int8" if int8 else "openvino"
        why = "torch finds a GPU" if gpu else "torch finds no GPU" if requested == "auto" else "the CPU was requested"
        reason = f"the default engine for {'GPUs' if gpu else 'CPUs'}; {why}"
    else:
        reason = "requested"
    if precision == "auto":
        bfloat16 = kind != "torch" and computes_bfloat16(device)
        # GPUs since 2016 multiply float16 in hardware.
        precision = "bfloat16" if bfloat16 else "float16" if gpu and kind != "torch" else "float32"
        if kind != "torch":
            reason += f"; the device has {'' if bfloat16 else 'no '}bfloat16 in hardware"
    return Choice(kind, device, precision, reason)
