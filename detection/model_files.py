"""Saves and loads the model folder of a detector.

A model folder holds

    model.json                   format version, classes, architecture, region settings, card (data, measured figures)
    member_1.safetensors         weights of the first network: int8 kernels, each output with a scale; the rest float16
    member_2.safetensors         weights of the second network, and so on, without first blocks that all members share
    box_regression.safetensors   box regression on features of the first network, float16 (optional)
    multibox.safetensors         weights of the MultiBox network, float16 (optional)
    screen.safetensors           weights of the screen, float16 (optional)

Neither JSON nor safetensors can contain code, so loading a model from an untrusted source runs no code from it.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from ..data.categories import Category, Subclass
from ..data.json_values import class_name, shown
from ..proposals.multibox import MultiBox
from ..proposals.screen import Screen
from ..runtime.atomic_write import atomic_write
from .calibration import ScoreCalibration
from .model_json import (
    FORMAT,
    Architecture,
    MultiBoxDescription,
    RegionSettings,
    ScreenDescription,
    read_description,
)
from .networks.backbones import (
    Backbone,
    TorchvisionGoogLeNet,
    headless,
    shared_blocks,
    with_the_same_tensors,
)
from .networks.googlenet import GoogLeNet
from .networks.weights import SCALE, ModelError, finite, in_8_bits, in_half, network_with_weights, read_weights
from .regression import BoxRegressor

SHIPPED = Path(__file__).parent / "models"
_REGRESSION = "box_regression.safetensors"
_MULTIBOX = "multibox.safetensors"
_SCREEN = "screen.safetensors"


@dataclass
class Model:
    """A detector's networks and settings, as a model folder stores them.

    Attributes:
        members: the networks of the ensemble, in evaluation mode. Output 0 is the background. Output i is
            `categories[i - 1]`, or `subclasses[i - 1]` if there are subclasses.
        categories: the classes that are detected.
        regions: how regions are proposed and warped.
        card: information for people: training data, measured figures.
        cascade: threshold on the object probability (1 - background probability) that the first member gives a region.
            Regions below the threshold count as background, and the other members do not score them. None: every
            member scores every region.
        regressor: box regression on features of the first member; None if the model has no box regression.
        multibox: network that proposes regions in addition to selective search; None if the model has no MultiBox
            network. Its trunk is a backbone without classifier.
        screen: chooses the regions that the members score, from MultiBox's feature maps; None if the model has no
            screen.
        subclasses: the classes that the networks tell apart beneath the categories. The probability of a category is
            the sum over its subclasses. Empty if the networks tell the categories themselves apart.
        calibration: turns class probabilities and what the screen says into scores; None if the scores are the class
            probabilities.
    """

    members: list[Backbone]
    categories: tuple[Category, ...]
    regions: RegionSettings = field(default_factory=RegionSettings)
    card: dict[str, Any] = field(default_factory=dict)
    cascade: float | None = None
    regressor: BoxRegressor | None = None
    multibox: MultiBox | None = None
    screen: Screen | None = None
    subclasses: tuple[Subclass, ...] = ()
    calibration: ScoreCalibration | None = None

    def output_columns(self) -> np.ndarray | None:
        """The column of the probabilities to which each output of a network adds, int64 [outputs].

        Column 0 is the background and whatever is not detected; column c is `categories[c - 1]`. None if each output is
        a column of its own.
        """
        if not self.subclasses:
            return None
        columns = {category.id: column for column, category in enumerate(self.categories, 1)}
        return np.array([0, *(columns.get(one.category or 0, 0) for one in self.subclasses)], np.int64)

    def screen_columns(self) -> np.ndarray:
        """The output of the screen for each category, int64 [categories]; 0 where the screen does not know the class.

        A detector can keep the screen of another model, so classes are compared by name.
        """
        names = () if self.screen is None else self.screen.class_names
        columns = {name: column for column, name in enumerate(names, 1) if name is not None}
        return np.array([columns.get(category.name, 0) for category in self.categories], np.int64)

    def first_members(self, members: int | None) -> list[Backbone]:
        """The first `members` networks of the ensemble, or all networks if `members` is None.

        Raises:
            ValueError: `members` is less than 1 or larger than the ensemble.
        """
        if members is not None and not 1 <= members <= len(self.members):
            raise ValueError(f"members is {members}, expected 1 to {len(self.members)}, the size of the ensemble")
        return self.members[:members]


def save_model(model: Model, folder: str | Path) -> None:
    """Write a model to `folder`; a missing folder is created. Weights are rounded, see the top of this file.

    If `folder` holds an old model, its files stay until all files of the new model are on the disk. `model.json` is
    deleted first and written last, so a folder with a `model.json` is complete.

    Raises:
        ModelError: a member has not an output for the background and for each class, the name of a class is too long
            or has characters that files cannot hold, or a weight or a setting is NaN, infinite or too large for
            float16. An old model stays.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    outputs = 1 + len(model.subclasses or model.categories)
    for number, member in enumerate(model.members, 1):
        if member.num_classes != outputs:
            raise ModelError(
                f"{folder}: member {number} has {member.num_classes} outputs, expected {outputs}: the background and "
                f"{'each subclass' if model.subclasses else 'each category'} of the model"
            )
    _check_names([(one.name, one.wnid) for one in model.categories], folder)
    _check_names([(one.name, one.wnid) for one in model.subclasses], folder)
    folder.mkdir(parents=True, exist_ok=True)
    old = [folder / name for name in ("model.json", _REGRESSION, _MULTIBOX, _SCREEN)]
    old += folder.glob("member_*.safetensors")
    # The ExitStack completes the writes in reverse order: model.json is begun first and gets its name last.
    with ExitStack() as writes:
        partials: list[Path] = []

        def partial(name: str) -> Path:
            partials.append(writes.enter_context(atomic_write(folder / name)))
            return partials[-1]

        partial("model.json").write_text(_description(model), encoding="utf-8")
        shared = shared_blocks(model.members)
        for number, member in enumerate(model.members, 1):
            weights = finite(in_8_bits(member), f"member {number}")
            for name in _names_in_first_blocks(member, shared) if number > 1 else ():
                weights.pop(name, None)
                weights.pop(name + SCALE, None)
            save_file(weights, partial(f"member_{number}.safetensors"))
        if model.regressor is not None:
            if not np.isfinite(model.regressor.weights).all():
                raise ModelError(f"{folder}: the box regression has a weight that is not finite, so it is not saved")
            model.regressor.save(partial(_REGRESSION))
        if model.multibox is not None:
            save_file(finite(in_half(model.multibox), "MultiBox"), partial(_MULTIBOX))
        if model.screen is not None:
            save_file(finite(in_half(model.screen), "the screen"), partial(_SCREEN))
        for file in partials:
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        for file in old:
            file.unlink(missing_ok=True)


def _check_names(names_and_wnids: Sequence[tuple[str, str]], folder: Path) -> None:
    for text in chain.from_iterable(names_and_wnids):
        try:
            is_read_back = class_name(text) == text
        except ValueError as error:
            raise ModelError(f"{folder}: the name of a class: {error}") from error
        if not is_read_back:
            raise ModelError(f"{folder}: the name of a class: expected no blanks around it, got {shown(text)}")


def _description(model: Model) -> str:
    """The content of model.json."""
    document = {
        "format": FORMAT,
        "network": _architecture(model.members[0]),
        "members": len(model.members),
        "shared_blocks": shared_blocks(model.members),
        "box_regression": model.regressor is not None,
        "regions": asdict(model.regions),
        "cascade": model.cascade,
        "input_ranges": [member.input_ranges for member in model.members],
        "categories": [asdict(category) for category in model.categories],
        "subclasses": [asdict(subclass) for subclass in model.subclasses],
        "multibox": None if model.multibox is None else _describe_multibox(model.multibox),
        "screen": None if model.screen is None else _describe_screen(model.screen),
        "calibration": None if model.calibration is None else asdict(model.calibration),
        "card": model.card,
    }
    try:
        return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise ModelError("a number of the model's settings or card is NaN or infinite, so it is not saved") from error


def _architecture(network: nn.Module) -> dict[str, Any]:
    if isinstance(network, GoogLeNet):
        return {"name": "googlenet", "stem": network.stem, "batch_norm": network.batch_norm}
    return {"name": "torchvision-googlenet"}


def _describe_multibox(network: MultiBox) -> dict[str, Any]:
    return {
        "network": _architecture(network.trunk),
        "split": network.split,
        "width": network.width,
        "sizes": network.sizes,
        "grids": [asdict(grid) for grid in network.grids],
    }


def _describe_screen(screen: Screen) -> dict[str, Any]:
    return {
        "classes": screen.class_names,
        "fine_channels": screen.lateral_fine.in_channels,
        "coarse_channels": screen.lateral_coarse.in_channels,
        "width": screen.width,
        "grid": screen.grid,
        "hidden": screen.hidden,
        "thresholds": asdict(screen.thresholds),
    }


def _names_in_first_blocks(member: Backbone, blocks: int) -> list[str]:
    """The names of the tensors of the member's first blocks."""
    prefixes = tuple(f"trunk.{name}." for name, _ in list(member.trunk.named_children())[:blocks])
    return [name for name in member.state_dict() if name.startswith(prefixes)]


def find_model(name_or_folder: str | Path) -> Path:
    """The folder of a model, given by its path or by the name of a shipped model ("default").

    Raises:
        ModelError: there is no model of that name.
    """
    candidate = Path(name_or_folder)
    with suppress(OSError):  # a name that is too long for a file, or a folder that may not be read
        if (candidate / "model.json").is_file():
            return candidate
        if len(candidate.parts) == 1 and (SHIPPED / candidate / "model.json").is_file():
            return SHIPPED / candidate
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/model.json"))
    raise ModelError(
        f"no model at {str(name_or_folder)!r:.300}: expected a folder that holds model.json, as detect-train --out "
        f"writes it, or the name of a shipped model ({', '.join(shipped) or 'no model is shipped'})"
    )


def model_digest(name_or_folder: str | Path) -> str:
    """SHA-256 of a model's files (description and weights), in hexadecimal digits.

    Raises:
        ModelError: there is no model of that name, or a file cannot be read.
    """
    folder = find_model(name_or_folder)
    digest = hashlib.sha256()
    for file in sorted([folder / "model.json", *folder.glob("*.safetensors")]):
        digest.update(f"{file.name}\0".encode())
        try:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise ModelError(f"{file}: cannot read the file: {error.strerror}") from error
    return digest.hexdigest()


def load_model(name_or_folder: str | Path) -> Model:
    """Load a model from a folder, or a shipped model by its name.

    Raises:
        ModelError: there is no model of that name, or one of its files is damaged or contradicts another file.
    """
    folder = find_model(name_or_folder)
    file = folder / "model.json"
    described = read_description(file)
    outputs = len(described.subclasses or described.categories) + 1
    members: list[Backbone] = []
    for number in range(1, described.members + 1):
        known = (members[0], described.shared_blocks) if members else None
        members.append(_load_member(folder / f"member_{number}.safetensors", described.architecture, outputs, known))
    for member, ranges in zip(members, described.input_ranges, strict=False):
        member.input_ranges = ranges
    regressor = None
    if described.box_regression:
        regressor = _load_regressor(folder / _REGRESSION, members, len(described.categories))
    multibox = None if described.multibox is None else _load_multibox(folder / _MULTIBOX, described.multibox)
    screen = None
    if described.screen is not None:
        if multibox is None:
            raise ModelError(
                f"{file}: the model has a screen, but no MultiBox network whose feature maps the screen reads"
            )
        screen = _load_screen(folder / _SCREEN, described.screen, multibox)
    return Model(
        members,
        described.categories,
        described.regions,
        described.card,
        described.cascade,
        regressor,
        multibox,
        screen,
        described.subclasses,
        described.calibration,
    )


def _load_member(
    file: Path, architecture: Architecture, num_classes: int, known: tuple[Backbone, int] | None
) -> Backbone:
    """Load a member.

    Args:
        file: the member's file.
        architecture: of all members.
        num_classes: number of outputs.
        known: the first member and the number of its first blocks that the file leaves out, because this member shares
            them; None for the first member itself.
    """
    weights = read_weights(file)
    if known is not None:
        first, shared = known
        stored = first.state_dict()
        weights |= {name: stored[name] for name in _names_in_first_blocks(first, shared)}

    def build() -> Backbone:
        if known is None:
            return _backbone(architecture, num_classes)
        # A network with the first member's tensors, which the weights replace, is made faster than random weights.
        return with_the_same_tensors(known[0])

    declared = {"classifier.weight": (num_classes, None)}
    return network_with_weights(build, weights, file, declared).eval()


def _load_multibox(file: Path, described: MultiBoxDescription) -> MultiBox:
    trunk = headless(_backbone(described.architecture, 1))
    names = [name for name, _ in trunk.trunk.named_children()]
    if described.split not in names:
        raise ModelError(
            f"{file.parent / 'model.json'}: multibox.split is {described.split!r:.80}, expected one of "
            f"{', '.join(names)}"
        )

    def build() -> MultiBox:
        return MultiBox(
            trunk,
            described.grids,
            split=described.split,
            width=described.width,
            sizes=described.sizes,
        )

    width = described.width
    declared: dict[str, tuple[int | None, ...]] = {"lateral_fine.weight": (width, None, 1, 1)}
    for stride in {grid.stride for grid in described.grids}:
        outputs = sum(grid.channels for grid in described.grids if grid.stride == stride)
        declared[f"heads.{stride}.2.weight"] = (outputs, width, 1, 1)
    return network_with_weights(build, read_weights(file), file, declared).eval()


def _load_screen(file: Path, described: ScreenDescription, multibox: MultiBox) -> Screen:
    channels = described.fine_channels, described.coarse_channels
    given = multibox.lateral_fine.in_channels, multibox.lateral_coarse.in_channels
    if channels != given:
        raise ModelError(
            f"{file.parent / 'model.json'}: the screen reads maps of {channels[0]} and {channels[1]} channels, but "
            f"MultiBox's maps have {given[0]} and {given[1]}"
        )

    classes = len(described.class_names)

    def build() -> Screen:
        return Screen(classes, *channels, width=described.width, grid=described.grid, hidden=described.hidden)

    declared = {
        "classifier.weight": (classes + 1, described.hidden),
        "lateral_fine.weight": (described.width, channels[0], 1, 1),
        "layers.0.weight": (described.hidden, described.width * described.grid**2),
    }
    screen = network_with_weights(build, read_weights(file), file, declared)
    screen.class_names, screen.thresholds = described.class_names, described.thresholds
    return screen.eval()


def _backbone(architecture: Architecture, num_classes: int) -> Backbone:
    if architecture.name == "googlenet":
        return GoogLeNet(num_classes, auxiliary=False, stem=architecture.stem, batch_norm=architecture.batch_norm)
    return TorchvisionGoogLeNet(num_classes)


def _load_regressor(file: Path, members: list[Backbone], classes: int) -> BoxRegressor:
    try:
        regressor = BoxRegressor.load(file, classes)
    except FileNotFoundError:
        raise ModelError(f"{file}: the file is missing, although model.json requires it") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ModelError(f"{file}: damaged safetensors file ({str(error)[:200]})") from None
    expected = (classes, 1 + 5 * members[0].out_channels, 4)  # features with moments, see `Engine`
    if regressor.weights.shape != expected:
        raise ModelError(
            f"{file}: the weights have shape {list(regressor.weights.shape)}, the model needs {list(expected)}"
        )
    return regressor
