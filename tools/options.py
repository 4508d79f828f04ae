"""Options that several commands have in common."""

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from .help import INPUT, MODEL, OUTPUT, RUN


class EngineName(str, Enum):
    """The names in `choice.Kind`, repeated here so that `--help` needs no slow import."""

    auto = "auto"
    openvino = "openvino"
    openvino_int8 = "openvino-int8"
    torch_compiled = "torch-compiled"
    torch = "torch"


class Switch(str, Enum):
    """Whether to use a part of a model."""

    on = "on"
    off = "off"


def _device(name: str) -> str:
    """Refuse a misspelt device before torch is imported, which knows the devices of this machine."""
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", name):
        raise typer.BadParameter(f"unknown device {name[:40]!r}: expected auto, cpu, cuda or cuda:N")
    return name


def none_or_text(value: str | None) -> str | None:
    """The value of an option; None for "none"."""
    return None if value == "none" else value


Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        callback=_device,
        help="auto (a GPU if there is one), cpu, cuda or cuda:N.",
        rich_help_panel=RUN,
    ),
]
# torch takes seeds of 64 bits, to which stages of a training add small numbers.
Seed = Annotated[
    int, typer.Option(min=0, max=2**62, metavar="N", help="Seed of all random choices.", rich_help_panel=RUN)
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Search sub-folders too.", rich_help_panel=INPUT)]
MaxPixels = Annotated[
    int, typer.Option(min=1, metavar="N", help="Refuse pictures with more pixels.", rich_help_panel=INPUT)
]
ModelName = Annotated[
    str,
    typer.Option(metavar="FOLDER|NAME", help="Model folder, or the name of a shipped model.", rich_help_panel=MODEL),
]
TensorBoard = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder for the curves of TensorBoard.", rich_help_panel=OUTPUT),
]
