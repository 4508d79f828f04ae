"""Writes a model's networks for other programs, as ONNX files or in OpenVINO's representation (IR).

The folder holds

    classes.json     the class of each column of the probabilities
    README.md        input and output of the networks, with an example program
    member_1.onnx    the first network: pixels of regions in, probabilities out, normalisation inside
    multibox.onnx    MultiBox, if the model has it: pixels of a picture in, boxes and confidences out, decoding inside

OpenVINO's files are member_1.xml, member_1.bin and so on. Each network takes any number of rows.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..proposals.multibox import COUNT, NMS_THRESHOLD, DecodedMultiBox
from ..runtime.atomic_write import atomic_write, temporary_folder
from .engines.engine import CROP_SIZE
from .engines.openvino_cpu import converted
from .engines.quantisation import input_ranges, quantised
from .model_files import Model
from .networks.backbones import Backbone
from .onnx_networks import onnx_network, quantise_onnx
from .warping.warp import MEAN_RGB

Format = Literal["onnx", "openvino"]

_INPUT = "pixels"
_CLASSES = "classes.json"


class RegionProbabilities(nn.Module):
    """A member of a detector, from the pixels of regions to the probabilities of the categories.

    Args:
        backbone: the network, which is not copied.
        columns: `Model.output_columns()`.
    """

    sums: Tensor | None

    def __init__(self, backbone: Backbone, columns: np.ndarray | None):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("sums", None)
        if columns is not None:
            self.sums = torch.eye(int(columns.max()) + 1)[torch.from_numpy(columns)]  # [outputs, C]

    def forward(self, pixels: Tensor) -> Tensor:
        """Uint8 RGB [N, 224, 224, 3] -> float [N, C]; column 0 is the background and whatever is not detected."""
        probabilities = self.backbone(_channels_first(pixels)).softmax(dim=1)
        return probabilities if self.sums is None else probabilities @ self.sums


class PictureBoxes(nn.Module):
    """`DecodedMultiBox` for pixels that are uint8 RGB [N, size, size, 3]."""

    def __init__(self, multibox: DecodedMultiBox):
        super().__init__()
        self.multibox = multibox

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.multibox(_channels_first(pixels))


def _channels_first(pixels: Tensor) -> Tensor:
    return pixels.permute(0, 3, 1, 2).float()


def export_model(
    model: Model,
    folder: str | Path,
    name: str,
    *,
    kind: Format = "onnx",
    int8: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the networks of a model for other programs.

    Args:
        model: the model.
        folder: the folder to write, see `check_export_folder`.
        name: name of the model, for README.md.
        kind: the format of the networks.
        int8: give the convolutions of the members 8 bits, with the input ranges that the model stores, as the engine
            "openvino-int8" does. MultiBox has no stored ranges and stays in float32.
        report: is called with the number of networks that are written, and the number of all networks.

    Raises:
        ValueError: the folder holds other files.
        ImportError: kind is "onnx", and onnx or onnxscript is not installed.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    check_export_folder(folder)
    sizes = model.multibox.sizes if model.multibox is not None else ()
    pictures = {("multibox" if len(sizes) == 1 else f"multibox_{size}"): size for size in sizes}
    columns = model.output_columns()
    done, total = 0, len(model.members) + len(pictures)

    _delete_networks(folder)
    _write_text(folder / _CLASSES, _classes(model))
    report(done, total)
    for number, member in enumerate(model.members, 1):
        backbone = quantised(member) if int8 and kind == "openvino" else member
        network = RegionProbabilities(backbone, columns).eval()
        if kind == "openvino":
            _write_openvino(folder / f"member_{number}", network, CROP_SIZE, ["probabilities"])
        else:
            ranges = input_ranges(member) if int8 else {}
            by_weights = {f"backbone.{layer}.weight": largest for layer, largest in ranges.items()}
            _write_onnx(folder / f"member_{number}", network, CROP_SIZE, ["probabilities"], by_weights)
        done += 1
        report(done, total)
    for file, size in pictures.items():
        assert model.multibox is not None
        boxes = PictureBoxes(DecodedMultiBox(model.multibox, size)).eval()
        write = _write_onnx if kind == "onnx" else _write_openvino
        write(folder / file, boxes, size, ["boxes", "confidences"])
        done += 1
        report(done, total)
    _write_text(folder / "README.md", _readme(model, name, kind, int8, pictures))


def check_export_folder(folder: Path) -> None:
    """Check that a folder is missing, empty or from an earlier export, whose files an export replaces.

    Raises:
        ValueError: the folder holds other files.
    """
    classes = folder / _CLASSES
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    # detect-classify writes a classes.json too, which has no columns.
    if not classes.is_file() or '"column": 0,' not in classes.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(
            f"{folder}: holds files of another kind, expected a new or empty folder, or a folder that detect-export "
            "wrote"
        )


def _delete_networks(folder: Path) -> None:
    """Delete the networks of an earlier export, which may have more members or another format."""
    for suffix in (".onnx", ".xml", ".bin"):
        for pattern in ("member_*", "multibox*"):
            for file in folder.glob(pattern + suffix):
                file.unlink()


def _write_text(file: Path, text: str) -> None:
    with atomic_write(file) as partial:
        partial.write_text(text, encoding="utf-8")


def _classes(model: Model) -> str:
    """The content of classes.json."""
    background = {"column": 0, "id": None, "wnid": None, "name": "background"}
    classes = [{"column": column, **asdict(one)} for column, one in enumerate(model.categories, 1)]
    return json.dumps({"classes": [background, *classes]}, indent=1, ensure_ascii=False) + "\n"


def _write_onnx(
    file: Path, network: nn.Module, size: int, outputs: Sequence[str], ranges: dict[str, float] | None = None
) -> None:
    """Write a network whose input has `size` pixels a side. `ranges` are the arguments of `quantise_onnx`."""
    written = onnx_network(network, torch.zeros(2, size, size, 3, dtype=torch.uint8), _INPUT, outputs)
    if ranges:
        quantise_onnx(written, ranges)
    with atomic_write(file.with_suffix(".onnx")) as partial:
        partial.write_bytes(written.SerializeToString())


def _write_openvino(file: Path, network: nn.Module, size: int, outputs: Sequence[str]) -> None:
    """Write a network whose input has `size` pixels a side."""
    import openvino

    written = converted(network, torch.zeros(2, size, size, 3, dtype=torch.uint8), [-1, size, size, 3])
    written.inputs[0].tensor.set_names({_INPUT})
    for port, name in zip(written.outputs, outputs, strict=True):
        port.tensor.set_names({name})
    with temporary_folder(file.parent) as temporary:
        openvino.save_model(written, temporary / "network.xml", compress_to_fp16=False)
        for suffix in (".bin", ".xml"):
            with atomic_write(file.with_suffix(suffix)) as partial:
                (temporary / f"network{suffix}").replace(partial)


def _readme(model: Model, name: str, kind: Format, int8: bool, pictures: dict[str, int]) -> str:
    """The content of README.md."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    inner = CROP_SIZE - 2 * model.regions.padding
    return environment.get_template("export_readme.md.j2").render(
        name=name,
        model=model,
        members=len(model.members),
        columns=len(model.categories) + 1,
        kind=kind,
        int8=int8,
        pictures={
            file: {"size": size, "boxes": len(model.multibox.priors(size)) if model.multibox is not None else 0}
            for file, size in pictures.items()
        },
        size=CROP_SIZE,
        inner=inner,
        # The crop may reach this many times the picture's longer side beyond the picture.
        border=ceil(CROP_SIZE / 2 / inner),
        fill=MEAN_RGB,
        count=COUNT,
        nms_threshold=NMS_THRESHOLD,
    )
