"""The description of a model, field by field."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from inception_rcnn.detection.calibration import ScoreCalibration
from inception_rcnn.detection.model_json import RegionSettings, read_description
from inception_rcnn.detection.networks.weights import ModelError

RIGHT: dict[str, Any] = {
    "format": "inception-rcnn model 1",
    "network": {"name": "googlenet", "stem": "plain", "batch_norm": False},
    "members": 2,
    "shared_blocks": 4,
    "box_regression": False,
    "regions": {"superpixel_scale": 2.0, "min_side": 10, "connectivity": 8, "warp_mode": "warp", "padding": 16},
    "cascade": 0.1,
    "input_ranges": [{"trunk.conv2.convolution": 3.5}, {}],
    "categories": [{"id": 58, "wnid": "n02084071", "name": "dog"}, {"id": 7, "wnid": "zèbre", "name": "zèbre"}],
    "multibox": {
        "network": {"name": "torchvision-googlenet"},
        "split": "inception_4e",
        "width": 8,
        "sizes": [64],
        "grids": [{"stride": 16, "division": 1, "shapes": [[12.0, 12]]}],
    },
    "screen": {
        "classes": ["dog", None],
        "fine_channels": 52,
        "coarse_channels": 64,
        "width": 8,
        "grid": 3,
        "hidden": 16,
        "thresholds": {"score": 0.03, "nms": 0.8},
    },
    "subclasses": [
        {"wnid": "n02111889", "name": "Samoyed", "category": 58},
        {"wnid": "n9", "name": "zèbre", "category": 7},
        {"wnid": "n10", "name": "seashore", "category": None},
    ],
    "calibration": {
        "probability": 0.8,
        "quality": 1,
        "bias": -0.5,
        "screened": {"probability": 0.5, "quality": 1.5, "screen": 0.4, "bias": 0.25},
    },
    "card": {"anything": [1, "two"]},
}


def written(folder: Path, content: object) -> Path:
    file = folder / "model.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def changed(path: str, value: object) -> dict[str, Any]:
    """The right description with another value of the field with this path."""
    content = copy.deepcopy(RIGHT)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = content
    for part in parents:
        place = place[part]
    place[last] = value
    return content


WRONG = [
    ("format", 1), ("members", 0), ("members", "2"), ("members", 1.5), ("members", True), ("members", 10**30),
    ("shared_blocks", -1), ("shared_blocks", "4"), ("shared_blocks", 10**9),
    ("network", []), ("network.name", "resnet"), ("network.name", ["googlenet"]), ("network.stem", "x"),
    ("network.batch_norm", "false"), ("network.batch_norm", 0), ("network.dropout", 5), ("network.num_classes", 9),
    ("categories", {}), ("categories", []), ("categories.0", None), ("categories.0.id", 0), ("categories.0.id", -1),
    ("categories.0.id", 7), ("categories.0.id", "58"), ("categories.0.id", True), ("categories.0.id", 1.5),
    ("categories.0.id", 10**30), ("categories.0.id", 2**53), ("categories.0.name", "zèbre"),
    ("categories.0.wnid", "zèbre"), ("categories.0.name", ""), ("categories.0.name", 5), ("categories.0.name", None),
    ("categories.0.name", "x" * 100_000), ("categories.0.other", 1), ("regions", None), ("regions.padding", 112),
    ("regions.padding", -1), ("regions.padding", "16"), ("regions.padding", 1.5), ("regions.connectivity", 6),
    ("regions.connectivity", True), ("regions.superpixel_scale", 0), ("regions.superpixel_scale", -1),
    ("regions.superpixel_scale", float("nan")), ("regions.superpixel_scale", float("inf")),
    ("regions.superpixel_scale", "2"), ("regions.min_side", -1), ("regions.min_side", float("inf")),
    ("regions.min_side", [10]), ("regions.warp_mode", "fold"), ("regions.warp_mode", ["warp"]), ("regions.other", 1),
    ("cascade", 2), ("cascade", -0.1), ("cascade", "0.1"), ("cascade", float("nan")), ("cascade", True),
    ("box_regression", "no"), ("box_regression", 1), ("input_ranges", {}), ("input_ranges", [{}]),
    ("input_ranges.0", [1]), ("input_ranges.0.conv", -1), ("input_ranges.0.conv", float("nan")),
    ("input_ranges.0.conv", "5"), ("card", []), ("card", "text"), ("multibox", []), ("multibox", "text"), ("screen", 1),
]  # fmt: skip


WRONG_PARTS = [
    ("multibox.width", 0), ("multibox.width", 10**12),
    ("multibox.width", "8"), ("multibox.split", 4),
    ("multibox.sizes", []), ("multibox.sizes", [65]), ("multibox.sizes", [0]), ("multibox.sizes", [32_000_000]),
   
    ("multibox.sizes", 64), ("multibox.sizes.0", True), ("multibox.grids.0.stride", 8),
    ("multibox.grids.0.stride", True), ("multibox.grids.0.division", 0), ("multibox.grids.0.division", 10**6),
     ("multibox.grids.0.shapes", []), ("multibox.grids.0.shapes.0", [1]),
    ("multibox.grids.0.shapes.0", [1, 2, 3]), ("multibox.grids.0.shapes.0", [0, 5]),
    ("multibox.other", 1),
    ("multibox.grids.0.shapes.0", [float("nan"), 5]), ("multibox.network.name", "x"),
    ("screen.classes", 0), ("screen.classes", []), ("screen.classes", ["dog", "dog"]), ("screen.classes", ["dog", 5]),
    ("screen.classes", ["dog", ""]), ("screen.width", 10**12), ("screen.grid", 10**6),
    ("screen.thresholds", {}),
    ("screen.thresholds.score", 2), ("screen.thresholds.nms", float("nan")), ("screen.thresholds.nms", "0.5"),
    ("screen.thresholds.nms", 2), ("screen.thresholds.other", 1), ("screen.other", 1),
    ("subclasses.0.category", 5), ("subclasses.0.category", "58"), ("subclasses.0.category", None),
    ("subclasses.0.name", 5), ("subclasses.0.other", 5), ("subclasses", 5), ("subclasses", {}),
    ("calibration.bias", float("nan")), ("calibration.bias", "0"), ("calibration.other", 0), ("calibration", 5),
    ("calibration.screened", 5), ("calibration.screened.screen", None), ("calibration.screened.other", 1),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value"), WRONG + WRONG_PARTS, ids=[f"{path}={value!r:.20}" for path, value in WRONG + WRONG_PARTS]
)
def test_a_wrong_value_is_named(tmp_path: Path, path: str, value: object) -> None:
    with pytest.raises(ModelError, match=r"model\.json") as error:
        read_description(written(tmp_path, changed(path, value)))
    assert path.split(".")[0] in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("cascade", None), ("multibox", None), ("screen", None), ("input_ranges", []), ("card", {}),
        ("regions", {}), ("regions.min_side", 0), ("members", 2.0), ("other", 1),
        ("subclasses", []), ("subclasses", None), ("calibration", None), ("calibration.screened", None),
        ("screen.classes", 2), ("screen.classes", ["zèbre", None, "dog"]),
    ],
)  # fmt: skip
def test_a_right_value_is_read(tmp_path: Path, path: str, value: object) -> None:
    found = read_description(written(tmp_path, changed(path, value)))
    assert found.members == 2
    assert [category.id for category in found.categories] == [58, 7]
    if path in ("cascade", "multibox", "screen", "calibration"):
        assert getattr(found, path) is None
    elif path == "subclasses":
        assert found.subclasses == ()
    elif path == "screen.classes":
        assert found.screen is not None
        assert found.screen.class_names == (tuple(value) if isinstance(value, list) else (None, None))
    elif path == "calibration.screened":
        assert found.calibration == ScoreCalibration(0.8, 1, -0.5)


def test_ids_may_be_large(tmp_path: Path) -> None:
    content = changed("categories.0.id", 2**53 - 1)
    content["subclasses"] = []
    assert read_description(written(tmp_path, content)).categories[0].id == 2**53 - 1


def test_fields_that_older_models_lack_have_defaults(tmp_path: Path) -> None:
    needed = ("format", "network", "members", "categories")
    older = {name: RIGHT[name] for name in needed} | {"regions": {"superpixel_scale": 1.5}}
    found = read_description(written(tmp_path, older))
    assert found.regions == RegionSettings(superpixel_scale=1.5, connectivity=4)
    assert (found.cascade, found.multibox, found.screen, found.input_ranges) == (None, None, None, [])
    assert found.box_regression is False
    for name in (*needed, "regions"):
        with pytest.raises(ModelError, match=f"{name}: missing"):
            read_description(written(tmp_path, {key: value for key, value in older.items() if key != name}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"text"', "[" * 100_000, "\xff", '{"format": 1e999}'])
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"model\.json"):
        read_description(tmp_path / "model.json")


@pytest.mark.parametrize(
    "wrong",
    [
        {"superpixel_scale": 0.0}, {"superpixel_scale": float("nan")}, {"min_side": -1}, {"connectivity": 6},
        {"padding": 112}, {"padding": -1}, {"warp_mode": "fold"},
    ],
)  # fmt: skip
def test_region_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegionSettings(**wrong)
