"""Reads the description of a model, model.json, strictly: every field has its right type and range, or is an error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_args

from ..data import json_values
from ..data.categories import Category, Subclass
from ..data.json_values import shown
from ..proposals.multibox import PriorGrid
from ..proposals.screen import ScreenThresholds
from .calibration import ScoreCalibration, ScreenedCalibration
from .networks.googlenet import Stem
from .networks.weights import ModelError
from .warping.warp import WarpMode

FORMAT = "inception-rcnn model 1"
NETWORKS = ("googlenet", "torchvision-googlenet")
# Limits of sizes that the file gives: far above those of any useful model, and small enough for the memory.
_LARGEST_FILE = 1 << 28  # bytes
_LARGEST_ID = 2**53 - 1  # submission files have larger ids rounded
_MOST_BLOCKS = 100
_MOST_MEMBERS = 1000
_LARGEST_LAYER = 1 << 20  # channels or units
_LARGEST_GRID = 64  # cells along a side, or places along a side of a cell
_LARGEST_INPUT = 4096  # pixels

T = TypeVar("T")
_REQUIRED: Any = object()


@dataclass(frozen=True)
class RegionSettings:
    """How regions are proposed and warped. The model stores these settings, because it was trained with them.

    Attributes:
        superpixel_scale, min_side, connectivity: arguments of `selective_search`. Connectivity 8 gives 10 % fewer
            regions than 4 and a slightly higher recall. It takes 20 ms longer for each picture.
        warp_mode, padding: arguments of `warp_regions`, for crops of 224 pixels.

    Raises:
        ValueError: a setting is out of range.
    """

    superpixel_scale: float = 2.0
    min_side: float = 10
    connectivity: int = 8
    warp_mode: WarpMode = "warp"
    padding: int = 16

    def __post_init__(self) -> None:
        if not 0 < self.superpixel_scale < float("inf"):
            raise ValueError(f"superpixel_scale is {self.superpixel_scale!r}, expected a positive number")
        if not (self.min_side >= 0 and isfinite(self.min_side)):
            raise ValueError(f"min_side is {self.min_side!r}, expected 0 or more pixels")
        if self.connectivity not in (4, 8):
            raise ValueError(f"connectivity is {self.connectivity!r}, expected 4 or 8")
        if self.warp_mode not in get_args(WarpMode):
            raise ValueError(f"warp_mode is {self.warp_mode!r:.80}, expected one of {', '.join(get_args(WarpMode))}")
        if not 0 <= self.padding < 112:
            raise ValueError(f"padding is {self.padding!r}, expected 0 to 111 pixels, less than half a crop")


@dataclass(frozen=True)
class Architecture:
    """The kind of a network. `stem` and `batch_norm` are those of `GoogLeNet`; torchvision's network has neither."""

    name: str
    stem: Stem = "plain"
    batch_norm: bool = False


@dataclass(frozen=True)
class MultiBoxDescription:
    """The arguments of `MultiBox`, with the architecture of its trunk."""

    architecture: Architecture
    split: str
    width: int
    sizes: tuple[int, ...]
    grids: tuple[PriorGrid, ...]


@dataclass(frozen=True)
class ScreenDescription:
    """The arguments of `Screen`, the names of its classes, and its thresholds."""

    class_names: tuple[str | None, ...]
    fine_channels: int
    coarse_channels: int
    width: int
    grid: int
    hidden: int
    thresholds: ScreenThresholds


@dataclass(frozen=True)
class Description:
    """The content of model.json. The attributes are those of `Model`, with numbers in place of networks.

    `shared_blocks` is the number of first blocks of the trunk whose weights only the file of the first member holds,
    because all members have the same.
    """

    architecture: Architecture
    members: int
    shared_blocks: int
    categories: tuple[Category, ...]
    regions: RegionSettings
    card: dict[str, Any]
    cascade: float | None
    input_ranges: list[dict[str, float]]
    box_regression: bool
    multibox: MultiBoxDescription | None
    screen: ScreenDescription | None
    subclasses: tuple[Subclass, ...]
    calibration: ScoreCalibration | None


def read_description(file: Path) -> Description:
    """Read model.json.

    Raises:
        ModelError: the file cannot be read or has another format, or a field is missing, unknown, of another type or
            out of range.
    """
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise ModelError(f"{file}: has {file.stat().st_size:,} bytes, expected at most {_LARGEST_FILE:,}")
        content = json_values.load_json(file)
    except OSError as error:
        raise ModelError(f"{file}: cannot read the model: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{file}: not a valid model description: {error}") from error
    fields = _Fields(file, "", content)
    found = fields.read("format", lambda value: value)
    if found != FORMAT:
        raise ModelError(f"{file}: the format is {shown(found)}, this version reads {FORMAT!r}")
    members = fields.read("members", _within(json_values.whole_number, 1, _MOST_MEMBERS))
    categories = _categories(fields)
    return Description(
        architecture=_architecture(fields.object("network")),
        members=members,
        shared_blocks=fields.read("shared_blocks", _within(json_values.whole_number, 0, _MOST_BLOCKS), 0),
        categories=categories,
        regions=_regions(fields.object("regions")),
        card=fields.read("card", _dictionary, {}),
        cascade=fields.read("cascade", _or_none(_within(json_values.number, 0, 1)), None),
        input_ranges=_input_ranges(fields, members),
        box_regression=fields.read("box_regression", _flag, False),
        multibox=_multibox(fields.object("multibox")) if fields.has("multibox") else None,
        screen=_screen(fields.object("screen"), len(categories)) if fields.has("screen") else None,
        subclasses=_subclasses(fields, categories) if fields.has("subclasses") else (),
        calibration=_calibration(fields.object("calibration")) if fields.has("calibration") else None,
    )


class _Fields:
    """The fields of an object in model.json.

    Args:
        file: model.json.
        where: the object's place in the file, with a dot at its end: "multibox."; "" for the whole file.
        content: the object.
    """

    def __init__(self, file: Path, where: str, content: object):
        self._file, self._where = file, where
        if not isinstance(content, dict):
            raise ModelError(
                f"{file}: not a valid model description: {where.rstrip('.') or 'the whole'}: expected an object, got "
                f"{shown(content)}"
            )
        self._content = content

    def error(self, name: str, problem: object) -> ModelError:
        """The error that a field is wrong."""
        return ModelError(f"{self._file}: not a valid model description: {self._where}{name}: {problem}")

    def has(self, name: str) -> bool:
        return self._content.get(name) is not None

    def read(self, name: str, read: Callable[[Any], T], default: T = _REQUIRED) -> T:
        """The value of a field, converted by `read`, which raises a ValueError for a wrong value."""
        if name not in self._content:
            if default is _REQUIRED:
                raise self.error(name, "missing")
            return default
        try:
            return read(self._content[name])
        except ValueError as error:
            raise self.error(name, error) from error

    def object(self, name: str) -> _Fields:
        return _Fields(self._file, f"{self._where}{name}.", self.read(name, lambda value: value))

    def objects(self, name: str) -> list[_Fields]:
        """The objects of a list."""
        return [
            _Fields(self._file, f"{self._where}{name}[{number}].", content)
            for number, content in enumerate(self.read(name, _list))
        ]

    def check_names(self, *known: str) -> None:
        """Raises an error if the object has another field, which this version would not know how to honour."""
        unknown = [name for name in self._content if name not in known]
        if unknown:
            raise self.error(f"{unknown[0]:.80}", f"unknown; expected only {', '.join(known)}")


def _architecture(fields: _Fields) -> Architecture:
    name = fields.read("name", _choice(NETWORKS))
    if name != "googlenet":
        fields.check_names("name")
        return Architecture(name)
    fields.check_names("name", "stem", "batch_norm")
    return Architecture(
        name, fields.read("stem", _choice(get_args(Stem)), "plain"), fields.read("batch_norm", _flag, False)
    )


def _categories(fields: _Fields) -> tuple[Category, ...]:
    categories = []
    for one in fields.objects("categories"):
        one.check_names("id", "wnid", "name")
        categories.append(
            Category(
                one.read("id", _within(json_values.whole_number, 1, _LARGEST_ID)),
                one.read("wnid", json_values.class_name),
                one.read("name", json_values.class_name),
            )
        )
    if not categories:
        raise fields.error("categories", "expected at least one class")
    for field in ("id", "wnid", "name"):
        (value, times), *_ = Counter(getattr(one, field) for one in categories).most_common(1)
        if times > 1:
            raise fields.error("categories", f"the {field} {shown(value)} occurs twice")
    return tuple(categories)


def _subclasses(fields: _Fields, categories: Sequence[Category]) -> tuple[Subclass, ...]:
    """The subclasses; none if the networks tell the categories themselves apart."""
    ids = {category.id for category in categories}
    subclasses = []
    for one in fields.objects("subclasses"):
        one.check_names("wnid", "name", "category")
        category = one.read("category", _or_none(_within(json_values.whole_number, 1, _LARGEST_ID)))
        if category is not None and category not in ids:
            raise one.error("category", f"there is no category with the id {category}")
        name = one.read("name", json_values.class_name)
        subclasses.append(Subclass(one.read("wnid", json_values.class_name), name, category))
    if subclasses and ids - {one.category for one in subclasses}:
        raise fields.error("subclasses", "some categories have no subclass, so they would never be detected")
    return tuple(subclasses)


def _calibration(fields: _Fields) -> ScoreCalibration:
    names = ("probability", "quality", "bias")
    fields.check_names(*names, "screened")
    screened = _screened_calibration(fields.object("screened")) if fields.has("screened") else None
    weights = {name: fields.read(name, json_values.number) for name in names}
    return ScoreCalibration(**weights, screened=screened)


def _screened_calibration(fields: _Fields) -> ScreenedCalibration:
    names = ("probability", "quality", "screen", "bias")
    fields.check_names(*names)
    return ScreenedCalibration(*(fields.read(name, json_values.number) for name in names))


def _regions(fields: _Fields) -> RegionSettings:
    fields.check_names("superpixel_scale", "min_side", "connectivity", "warp_mode", "padding")
    defaults = RegionSettings()
    values = (
        fields.read("superpixel_scale", json_values.number, defaults.superpixel_scale),
        fields.read("min_side", json_values.number, defaults.min_side),
        fields.read("connectivity", json_values.whole_number, 4),  # not stored in older models
        fields.read("warp_mode", _choice(get_args(WarpMode)), defaults.warp_mode),
        fields.read("padding", json_values.whole_number, defaults.padding),
    )
    try:
        return RegionSettings(*values)
    except ValueError as error:
        raise fields.error("", error) from error


def _input_ranges(fields: _Fields, members: int) -> list[dict[str, float]]:
    def read(values: object) -> list[dict[str, float]]:
        largest = _within(json_values.number, 0, float("inf"))
        return [{name: largest(number) for name, number in _dictionary(value).items()} for value in _list(values)]

    ranges: list[dict[str, float]] = fields.read("input_ranges", read, [])
    if len(ranges) not in (0, members):  # older models have none
        raise fields.error("input_ranges", f"expected {members} objects, got {len(ranges)}")
    return ranges


def _multibox(fields: _Fields) -> MultiBoxDescription:
    fields.check_names("network", "split", "width", "sizes", "grids")
    return MultiBoxDescription(
        _architecture(fields.object("network")),
        fields.read("split", _text),
        fields.read("width", _within(json_values.whole_number, 1, _LARGEST_LAYER)),
        fields.read("sizes", lambda value: tuple(_side(side) for side in _list(value, least=1))),
        tuple(_grid(grid) for grid in fields.objects("grids")),
    )


def _grid(fields: _Fields) -> PriorGrid:
    fields.check_names("stride", "division", "shapes")

    def shape(value: object) -> tuple[float, float]:
        width, height = (_positive(side) for side in _list(value, least=2, most=2))
        return width, height

    return PriorGrid(
        fields.read("stride", _choice((16, 32))),
        fields.read("division", _within(json_values.whole_number, 1, _LARGEST_GRID)),
        fields.read("shapes", lambda value: tuple(shape(one) for one in _list(value, least=1))),
    )


def _screen(fields: _Fields, categories: int) -> ScreenDescription:
    """The screen. Older models do not name its classes; without their number, it has those of the detector."""
    layer = _within(json_values.whole_number, 1, _LARGEST_LAYER)
    fields.check_names("classes", "fine_channels", "coarse_channels", "width", "grid", "hidden", "thresholds")
    thresholds = fields.object("thresholds")
    thresholds.check_names("score", "nms")
    return ScreenDescription(
        fields.read("classes", _screen_classes) if fields.has("classes") else (None,) * categories,
        fields.read("fine_channels", layer),
        fields.read("coarse_channels", layer),
        fields.read("width", layer),
        fields.read("grid", _within(json_values.whole_number, 1, _LARGEST_GRID)),
        fields.read("hidden", layer),
        ScreenThresholds(
            thresholds.read("score", _within(json_values.number, 0, 1)),
            thresholds.read("nms", _within(json_values.number, 0, 1)),
        ),
    )


def _screen_classes(value: object) -> tuple[str | None, ...]:
    """The names of the screen's classes, null for a class that it does not know; or their number."""
    if not isinstance(value, list):
        return (None,) * _within(json_values.whole_number, 1, _LARGEST_LAYER)(value)
    names = tuple(_or_none(json_values.class_name)(one) for one in _list(value, least=1, most=_LARGEST_LAYER))
    twice = [name for name, times in Counter(names).items() if name is not None and times > 1]
    if twice:
        raise ValueError(f"the name {shown(twice[0])} occurs twice")
    return names


def _within(read: Callable[[object], T], low: float, high: float) -> Callable[[object], T]:
    def value_within(value: object) -> T:
        found: Any = read(value)
        if not low <= found <= high:
            expected = f"at least {low}" if high == float("inf") else f"{low} to {high}"
            raise ValueError(f"expected {expected}, got {found}")
        return found

    return value_within


def _or_none(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None else read(value)


def _choice(choices: Sequence[T]) -> Callable[[object], T]:
    def chosen(value: object) -> T:
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        raise ValueError(f"expected {' or '.join(map(repr, choices))}, got {shown(value)}")

    return chosen


def _side(value: object) -> int:
    side = _within(json_values.whole_number, 32, _LARGEST_INPUT)(value)
    if side % 32:
        raise ValueError(f"expected a multiple of 32, got {side}")
    return side


def _positive(value: object) -> float:
    found = json_values.coordinate(value)
    if found <= 0:
        raise ValueError(f"expected more than 0, got {shown(value)}")
    return found


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {shown(value)}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {shown(value)}")
    return value


def _dictionary(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {shown(value)}")
    return value


def _list(value: object, least: int = 0, most: int | None = None) -> list[Any]:
    if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
        count = "" if least == 0 else f" of {'' if most else 'at least '}{least}"
        raise ValueError(f"expected a list{count}, got {shown(value)}")
    return value
