"""Model folders: networks as safetensors, everything else as one JSON file; and importing public weights.

A model folder holds

    model.json              format version, class list, network, region settings, card (data, figures)
    member_1.safetensors    weights of each member of the ensemble, int8 with a scale for each output, biases float16
    member_2.safetensors    ...
    box_regression.safetensors   the box regression fitted to member 1, float16, where the model has one
    multibox.safetensors    the network that proposes regions beside selective search, float16, where there is one

Neither format can carry code: loading a model from anybody is as safe as reading a picture.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..data.categories import Category
from ..proposals.multibox import MultiBox, PriorGrid
from .networks.backbones import Backbone, TorchvisionGoogLeNet, headless
from .networks.caffemodel import read_caffemodel
from .networks.googlenet import GoogLeNet
from .regression import BoxRegressor
from .warping.warp import WarpMode

FORMAT = "inception-rcnn model 1"
SHIPPED = Path(__file__).parent / "models"
_REGRESSION = "box_regression.safetensors"
_MULTIBOX = "multibox.safetensors"
_SCALE = ".scale"

_CAFFE_LAYERS = {
    "1x1": "conv1x1",
    "3x3_reduce": "conv3x3_reduce",
    "3x3": "conv3x3",
    "5x5_reduce": "conv5x5_reduce",
    "5x5": "conv5x5",
    "pool_proj": "pool_projection",
}
_CAFFE_NAMES = {
    "conv1/7x7_s2": "trunk.conv1.convolution",
    "conv2/3x3_reduce": "trunk.conv2_reduce.convolution",
    "conv2/3x3": "trunk.conv2.convolution",
    "loss3/classifier": "classifier",
    **{f"loss{i}/conv": f"auxiliary.auxiliary{i}.reduce.convolution" for i in (1, 2)},
    **{f"loss{i}/fc": f"auxiliary.auxiliary{i}.hidden" for i in (1, 2)},
    **{f"loss{i}/classifier": f"auxiliary.auxiliary{i}.classifier" for i in (1, 2)},
}


class ModelError(ValueError):
    """A model or weights file is missing, damaged, or not what was expected; the message says which and why."""


@dataclass(frozen=True)
class RegionSettings:
    """How regions are proposed and shown to the network: part of the model, since it was trained on such regions.

    Attributes:
        superpixel_scale, min_side, connectivity: as in `selective_search`. With 8-connected pixels there are a tenth
            fewer regions, which cover a little more, at 20 ms more a picture.
        warp_mode, padding: as in `warp_regions`.
    """

    superpixel_scale: float = 2.0
    min_side: float = 10
    connectivity: int = 8
    warp_mode: WarpMode = "warp"
    padding: int = 16


@dataclass
class Model:
    """What a model folder holds.

    Attributes:
        members: the networks of the ensemble, in evaluation mode; output 0 is background, output i category i - 1.
        categories: the classes that the detector knows.
        regions: how regions are proposed and warped.
        card: what it was trained on and what it scored, for people.
        cascade: regions that the first member gives less than this probability of being an object, of whatever class,
            are background; the other members need not look at them. None: they look at all.
        regressor: moves regions to where objects are, from the first member's features; None for none.
        multibox: proposes regions beside selective search; None for none. Its trunk is a backbone without classifier.
    """

    members: list[Backbone]
    categories: tuple[Category, ...]
    regions: RegionSettings = field(default_factory=RegionSettings)
    card: dict[str, Any] = field(default_factory=dict)
    cascade: float | None = None
    regressor: BoxRegressor | None = None
    multibox: MultiBox | None = None

    def first_members(self, members: int | None) -> list[Backbone]:
        """The first networks of the ensemble; None for all.

        Raises:
            ValueError: the model has not that many.
        """
        if members is not None and not 1 <= members <= len(self.members):
            raise ValueError(f"members is {members}, expected 1 to {len(self.members)}, the networks of this model")
        return self.members[:members]


def _architecture(network: nn.Module) -> dict[str, Any]:
    if isinstance(network, GoogLeNet):
        return {"name": "googlenet", "stem": network.stem, "batch_norm": network.batch_norm}
    return {"name": "torchvision-googlenet"}


def save_model(model: Model, folder: str | Path) -> None:
    """Write `model` to `folder` (made if need be), weights rounded, see the top of this file.

    A model that is there stays until all of the new one is on the disk. The JSON file is put there last, so a folder
    with one is complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []

    def partial(name: str) -> Path:
        files.append(folder / name)
        return folder / f"{name}.partial"

    for number, member in enumerate(model.members, 1):
        save_file(_in_8_bits(member), partial(f"member_{number}.safetensors"))
    if model.regressor is not None:
        model.regressor.save(partial(_REGRESSION))
    if model.multibox is not None:
        save_file(_in_half(model.multibox), partial(_MULTIBOX))
    document = {
        "format": FORMAT,
        "network": _architecture(model.members[0]),
        "members": len(model.members),
        "box_regression": model.regressor is not None,
        "regions": asdict(model.regions),
        "cascade": model.cascade,
        "input_ranges": [member.input_ranges for member in model.members],
        "categories": [asdict(category) for category in model.categories],
        "multibox": None if model.multibox is None else _describe_multibox(model.multibox),
        "card": model.card,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    partial("model.json").write_text(text, encoding="utf-8")
    before = [folder / name for name in ("model.json", _REGRESSION, _MULTIBOX)]
    for stale in [*before, *folder.glob("member_*.safetensors")]:
        stale.unlink(missing_ok=True)
    for file in files:
        file.with_name(f"{file.name}.partial").replace(file)


def _in_half(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
        if "auxiliary." not in name
    }


def _in_8_bits(network: nn.Module) -> dict[str, Tensor]:
    """As `_in_half`, but kernels as whole numbers from -127 to 127 and beside each "NAME.scale", float32 [outputs].

    Weights that were stored so before come out as they were, to the last bit: scales have 12 bits, rounded up.
    """
    stored = _in_half(network)
    for name, value in network.state_dict().items():
        if name in stored and name.endswith("weight") and value.ndim >= 2:
            rows = value.float().flatten(1)
            fraction, exponent = torch.frexp(rows.abs().amax(1).clamp_min(1e-20) / 127)
            scale = torch.ldexp((fraction * 4096).ceil() / 4096, exponent)
            stored[name] = (rows / scale[:, None]).round().to(torch.int8).view(value.shape)
            stored[name + _SCALE] = scale
    return stored


def _describe_multibox(network: MultiBox) -> dict[str, Any]:
    return {
        "network": _architecture(network.trunk),
        "split": network.split,
        "width": network.width,
        "sizes": network.sizes,
        "grids": [asdict(grid) for grid in network.grids],
    }


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of a shipped model ("default") or of the user's own."""
    candidate = Path(name_or_folder)
    if (candidate / "model.json").is_file():
        return candidate
    if len(candidate.parts) == 1 and (SHIPPED / candidate / "model.json").is_file():
        return SHIPPED / candidate
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/model.json"))
    raise ModelError(
        f"no model at {str(name_or_folder)!r}: expected a folder with a model.json (detect-train --out makes one) "
        f"or the name of a shipped model ({', '.join(shipped) or 'none is shipped'})"
    )


def model_digest(name_or_folder: str | Path) -> str:
    """SHA-256, in hexadecimal digits, of all that makes up a model: its description and its weights.

    Raises:
        ModelError: no such model.
    """
    folder = find_model(name_or_folder)
    digest = hashlib.sha256()
    for file in sorted([folder / "model.json", *folder.glob("*.safetensors")]):
        digest.update(f"{file.name}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def load_model(name_or_folder: str | Path) -> Model:
    """Load a model folder, or a shipped model by name.

    Raises:
        ModelError: no such model, or a file of it is damaged or does not fit the others.
    """
    folder = find_model(name_or_folder)
    file = folder / "model.json"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ModelError(f"{file}: format is {document['format']!r}, this version reads {FORMAT!r}")
        categories = tuple(Category(**category) for category in document["categories"])
        regions = RegionSettings(**{"connectivity": 4, **document["regions"]})  # in older folders it is not said
        network = dict(document["network"])
        name = network.pop("name")
        members = [
            _load_member(folder / f"member_{number}.safetensors", name, network, len(categories) + 1)
            for number in range(1, document["members"] + 1)
        ]
        regressor = (
            _load_regressor(folder / _REGRESSION, members, len(categories)) if document.get("box_regression") else None
        )
        described = document.get("multibox")
        multibox = None if described is None else _load_multibox(folder / _MULTIBOX, **described)
        for member, ranges in zip(members, document.get("input_ranges", []), strict=False):
            member.input_ranges = {str(name): float(largest) for name, largest in ranges.items()}
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{file}: not a model description ({type(error).__name__}: {error})") from error
    if not members:
        raise ModelError(f"{file}: the model has no members")
    return Model(members, categories, regions, document.get("card", {}), document.get("cascade"), regressor, multibox)


def _load_member(file: Path, name: str, network: dict[str, Any], num_classes: int) -> Backbone:
    tensors = _read_weights(file)
    member = _backbone(file, name, network, num_classes)
    _load_weights(member, tensors, file)
    return member.eval()


def _load_multibox(
    file: Path, network: dict[str, Any], split: str, width: int, sizes: list[int], grids: list[dict[str, Any]]
) -> MultiBox:
    tensors = _read_weights(file)
    architecture = dict(network)
    trunk = headless(_backbone(file, architecture.pop("name"), architecture, 1))
    priors = [
        PriorGrid(grid["stride"], grid["division"], tuple((width, height) for width, height in grid["shapes"]))
        for grid in grids
    ]
    multibox = MultiBox(trunk, priors, split=split, width=width, sizes=sizes)
    _load_weights(multibox, tensors, file)
    return multibox.eval()


def _read_weights(file: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(file)
    except FileNotFoundError:
        raise ModelError(f"{file}: missing, though model.json names it") from None
    except SafetensorError as error:
        raise ModelError(f"{file}: damaged safetensors file ({error})") from None
    for name in [name for name in tensors if name.endswith(_SCALE)]:
        scale, whole = tensors.pop(name), name.removesuffix(_SCALE)
        if whole not in tensors or scale.shape != tensors[whole].shape[:1]:
            raise ModelError(f"{file}: {name} belongs to no weights of {len(scale)} outputs")
        tensors[whole] = tensors[whole] * scale.view(-1, *[1] * (tensors[whole].ndim - 1))
    return tensors


def _backbone(file: Path, name: str, network: dict[str, Any], num_classes: int) -> Backbone:
    if name == "googlenet":
        return GoogLeNet(num_classes, auxiliary=False, **network)
    if name == "torchvision-googlenet":
        return TorchvisionGoogLeNet(num_classes)
    raise ModelError(f"{file.parent / 'model.json'}: unknown network {name!r}")


def _load_regressor(file: Path, members: list[Backbone], classes: int) -> BoxRegressor:
    try:
        regressor = BoxRegressor.load(file)
    except FileNotFoundError:
        raise ModelError(f"{file}: missing, though model.json names it") from None
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"{file}: damaged safetensors file ({error})") from None
    wanted = (classes, 1 + 5 * members[0].out_channels, 4)  # with moments, see Engine
    if regressor.weights.shape != wanted:
        raise ModelError(f"{file}: weights have shape {list(regressor.weights.shape)}, the model wants {list(wanted)}")
    return regressor


def _load_weights(network: nn.Module, tensors: dict[str, Tensor], file: Path) -> None:
    wanted = network.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        raise ModelError(
            f"{file}: weights do not fit the network: "
            f"{len(missing)} missing (first: {missing[:1]}), {len(unknown)} unknown (first: {unknown[:1]})"
        )
    for name, value in wanted.items():
        if value.shape != tensors[name].shape:
            raise ModelError(
                f"{file}: {name} has shape {list(tensors[name].shape)}, the network wants {list(value.shape)}"
            )
    network.load_state_dict({name: value.to(wanted[name].dtype) for name, value in tensors.items()})


def save_classifier(network: GoogLeNet, classes: Sequence[str], file: Path, card: dict[str, Any]) -> None:
    """Write a classifier of whole pictures, from which detectors are trained: weights as float16, its auxiliary heads
    left out, and as metadata the classes of its outputs and what it was trained on."""
    weights = {name: value.half() for name, value in network.state_dict().items() if not name.startswith("auxiliary.")}
    about = {"network": _architecture(network), "classes": list(classes), "card": card}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, file, {"classifier": json.dumps(about)})


def load_classifier(file: str | Path) -> GoogLeNet:
    """What `save_classifier` wrote, in evaluation mode.

    Raises:
        ModelError: there is no such file, it is damaged, or holds something else.
    """
    file = Path(file)
    try:
        with safe_open(file, framework="pt") as tensors:
            about = json.loads((tensors.metadata() or {})["classifier"])
        architecture = {name: value for name, value in about["network"].items() if name != "name"}
        network = GoogLeNet(len(about["classes"]), auxiliary=False, **architecture)
    except FileNotFoundError:
        raise ModelError(f"{file}: there is no such file; detect-train-classifier writes one") from None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{file}: not a classifier of detect-train-classifier ({error})") from error
    _load_weights(network, load_file(file), file)
    return network.eval()


def load_caffemodel(path: str | Path) -> GoogLeNet:
    """GoogLeNet with the weights of a .caffemodel, such as the public `bvlc_googlenet.caffemodel`.

    The first convolution's channels are turned from Caffe's BGR to RGB, which our networks take. Auxiliary heads are
    there if the file has them (the BVLC file comes with and without).

    Returns:
        The network in evaluation mode; as many outputs as the file's classifier has.

    Raises:
        ModelError: the file is another network's. CaffeModelError: it is no caffemodel.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for layer, blobs in read_caffemodel(path).items():
        inception = re.fullmatch(r"(inception_\d[a-e])/(\w+)", layer)
        if inception and inception[2] in _CAFFE_LAYERS:
            name = f"trunk.{inception[1]}.{_CAFFE_LAYERS[inception[2]]}.convolution"
        elif layer in _CAFFE_NAMES:
            name = _CAFFE_NAMES[layer]
        else:
            raise ModelError(f"{path}: layer {layer!r} does not belong to the BVLC GoogLeNet")
        if len(blobs) != 2:
            raise ModelError(f"{path}: layer {layer!r} has {len(blobs)} blobs, expected weights and biases")
        weight, bias = (torch.from_numpy(blob.copy()) for blob in blobs)
        if name == "trunk.conv1.convolution":
            weight = weight.flip(1)
        if weight.dim() == 4 and "convolution" not in name:  # the old format keeps matrices as [1, 1, rows, columns]
            weight = weight[0, 0]
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = bias.flatten()
    if "classifier.bias" not in tensors:
        raise ModelError(f"{path}: layer 'loss3/classifier' is missing: not the BVLC GoogLeNet")
    auxiliary = "auxiliary.auxiliary1.classifier.bias" in tensors
    network = GoogLeNet(len(tensors["classifier.bias"]), auxiliary=auxiliary)
    _load_weights(network, tensors, path)
    return network.eval()
