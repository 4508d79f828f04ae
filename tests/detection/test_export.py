"""Exported networks give the numbers of the engines, without this package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.engines.quantisation import measure_input_ranges
from inception_rcnn.detection.export import export_model
from inception_rcnn.detection.model_files import Model, RegionSettings
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.detection.warping.warp import warp_regions
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid, decode

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.usefixtures("tiny_googlenet_in_module", "uncompiled_networks")

CATEGORIES = (Category(58, "n02084071", "dog"), Category(37, "n02119789", 'fox & "hound"'))
SUBCLASSES = (
    Subclass("n02111889", "Samoyed", 58),
    Subclass("n02119022", "red fox", 37),
    Subclass("n03000000", "chain", None),
    Subclass("n02110958", "pug", 58),
)  # fmt: skip
GRIDS = [PriorGrid(16, 2, ((12.0, 12.0), (20.0, 10.0))), PriorGrid(32, 1, ((40.0, 60.0),))]
SIZE = 64


def picture() -> np.ndarray:
    """A picture of smooth colours, uint8 RGB [90, 120, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((120, 90), Image.Resampling.BICUBIC))


BOXES = np.array([[0, 0, 120, 90], [10, 20, 70, 60], [100, 5, 119, 88]], np.float32)


def member(outputs: int, seed: int) -> GoogLeNet:
    """A network whose logits differ by a few units, so that errors show."""
    torch.manual_seed(seed)
    network = GoogLeNet(outputs, auxiliary=False).eval()
    crops = warp_regions(picture(), BOXES)
    with torch.no_grad():
        features = network.features(torch.from_numpy(crops).permute(0, 3, 1, 2).float()).mean((2, 3))
        network.classifier.weight.mul_(2 / network.classifier(features).std())
    network.input_ranges = measure_input_ranges(network, crops)
    return network


@pytest.fixture(scope="module")
def model(tiny_googlenet_in_module) -> Model:
    torch.manual_seed(5)
    multibox = MultiBox(headless(GoogLeNet(1, auxiliary=False)), GRIDS, width=16, sizes=(SIZE,)).eval()
    torch.nn.init.normal_(multibox.heads["16"][2].weight, std=0.2)
    members = [member(len(SUBCLASSES) + 1, seed) for seed in (0, 1)]
    return Model(members, CATEGORIES, cascade=0.25, multibox=multibox, subclasses=SUBCLASSES)


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_model(model, folder, "pets")
    return folder


@pytest.fixture(scope="module")
def exported_int8(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    export_model(model, folder, "pets", int8=True)
    return folder


def run(file, pixels: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(file, options).run(None, {"pixels": pixels})


def mean_of_engines(model: Model, crops: np.ndarray, **settings) -> np.ndarray:
    return np.mean([Engine(one, columns=model.output_columns(), **settings)(crops) for one in model.members], axis=0)


def test_the_folder_holds_every_network_and_the_classes(exported):
    names = {"member_1.onnx", "member_2.onnx", "multibox.onnx", "classes.json", "README.md"}
    assert {file.name for file in exported.iterdir()} == names
    classes = json.loads((exported / "classes.json").read_text(encoding="utf-8"))["classes"]
    assert classes[0] == {"column": 0, "id": None, "wnid": None, "name": "background"}
    assert classes[2] == {"column": 2, "id": 37, "wnid": "n02119789", "name": 'fox & "hound"'}


@pytest.mark.parametrize("rows", [1, 3])
def test_probabilities_are_those_of_the_engine_for_any_number_of_regions(model, exported, rows):
    crops = warp_regions(picture(), BOXES[:rows])
    for number, backbone in enumerate(model.members, 1):
        (found,) = run(exported / f"member_{number}.onnx", crops)
        assert found.shape == (rows, 3)
        expected = Engine(backbone, columns=model.output_columns(), kind="torch")(crops)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_model_without_subclasses_has_its_outputs_as_columns(tmp_path):
    network = member(3, 4)
    export_model(Model([network], CATEGORIES), tmp_path, "plain")
    crops = warp_regions(picture(), BOXES)
    (found,) = run(tmp_path / "member_1.onnx", crops)
    np.testing.assert_allclose(found, Engine(network, kind="torch")(crops), atol=1e-4)
    assert not (tmp_path / "multibox.onnx").exists()


def test_8_bit_networks_are_smaller_and_near_the_8_bit_engine(model, exported, exported_int8):
    crops = warp_regions(picture(), BOXES)
    for number, backbone in enumerate(model.members, 1):
        file = f"member_{number}.onnx"
        assert (exported_int8 / file).stat().st_size < (exported / file).stat().st_size
        (found,) = run(exported_int8 / file, crops)
        expected = Engine(backbone, columns=model.output_columns(), kind="openvino-int8", precision="float32")(crops)
        assert np.abs(found - run(exported / file, crops)[0]).max() > 1e-6
        np.testing.assert_allclose(found, expected, atol=0.1)  # the tolerance of 8 bits
        assert np.abs(found - expected).mean() < 0.05


def test_multibox_gives_decoded_boxes_and_confidences(model, exported):
    pixels = np.asarray(Image.fromarray(picture()).resize((SIZE, SIZE)))[None].repeat(2, axis=0)
    boxes, confidences = run(exported / "multibox.onnx", pixels)
    with torch.no_grad():
        predictions = model.multibox(torch.from_numpy(pixels[:1]).permute(0, 3, 1, 2).float())[0].numpy()
    expected = decode(predictions[:, :4], model.multibox.priors(SIZE)).clip(0, SIZE) / SIZE
    assert boxes.shape == (2, len(expected), 4)
    np.testing.assert_allclose(boxes[1], expected, atol=1e-5)
    np.testing.assert_allclose(confidences[1], 1 / (1 + np.exp(-predictions[:, 4])), atol=1e-5)


@pytest.mark.parametrize("int8", [False, True])
def test_openvino_files_give_the_probabilities_of_the_engine(model, tmp_path, int8):
    import openvino

    export_model(model, tmp_path, "pets", kind="openvino", int8=int8)
    networks = ("member_1", "member_2", "multibox")
    files = {f"{name}{suffix}" for name in networks for suffix in (".xml", ".bin")}
    assert {file.name for file in tmp_path.iterdir()} == {*files, "classes.json", "README.md"}
    crops = warp_regions(picture(), BOXES)
    kind = "openvino-int8" if int8 else "torch"
    expected = Engine(model.members[0], columns=model.output_columns(), kind=kind, precision="float32")(crops)
    # One Core, made after the engine's. A Core installs a stack for signal handlers, and its end restores the stack
    # that it found. Cores that do not end in reverse order leave a stack that is freed: the next signal ends Python.
    core = openvino.Core()
    network = core.compile_model(tmp_path / "member_1.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(network({"pixels": crops})["probabilities"], expected, atol=1e-4)
    boxes = core.compile_model(tmp_path / "multibox.xml", "CPU")
    names = [port.names for port in boxes.outputs]
    assert "boxes" in names[0]
    assert "confidences" in names[1]


def example_of(folder) -> str:
    """The example program of README.md, with the lines about MultiBox."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL))


@pytest.mark.parametrize("int8", [False, True])
def test_the_example_of_the_readme_gives_the_detectors_probabilities_without_this_package(
    model, exported, exported_int8, int8, tmp_path
):
    folder = exported_int8 if int8 else exported
    forbidden = "import sys\nsys.modules['inception_rcnn'] = sys.modules['torch'] = None\n"
    (tmp_path / "example.py").write_text(forbidden + example_of(folder), encoding="utf-8")
    Image.fromarray(picture()).save(tmp_path / "picture.png")
    command = [sys.executable, tmp_path / "example.py", tmp_path / "picture.png", "100", "5", "119", "88"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout.splitlines()
    found = {line[8:]: float(line[:6]) for line in printed[:3]}
    expected = mean_of_engines(model, warp_regions(picture(), BOXES[2:]), kind="torch")[0]
    names = ["background", *(category.name for category in CATEGORIES)]
    # Pillow rounds pixels otherwise than `warp_regions`.
    assert found == pytest.approx(dict(zip(names, expected.tolist(), strict=True)), abs=0.1 if int8 else 0.01)
    assert len(printed) > 3  # the boxes of MultiBox


@pytest.mark.parametrize("mode", ["warp", "square_with_context", "square_without_context"])
@pytest.mark.parametrize("padding", [16, 90])
def test_the_example_crops_regions_as_the_detector_does(model, tmp_path, mode, padding):
    from inception_rcnn.detection import export

    described = Model(model.members, CATEGORIES, RegionSettings(warp_mode=mode, padding=padding))
    text = export._readme(described, "pets", "onnx", False, {})
    lines = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1].split("networks =")[0]
    Image.fromarray(picture()).save(tmp_path / "picture.png")
    box = [10, 20, 70, 60]
    names: dict = {}
    program = lines.replace("sys.argv", repr(["", str(tmp_path / "picture.png"), *map(str, box)]))
    exec(program, names)
    expected = warp_regions(picture(), np.array([box], np.float32), mode=mode, padding=padding)[0]
    found = np.asarray(names["crop"])
    if mode == "square_without_context":
        assert "leaves this step out" in text
        found, expected = found[100:124, 112 - 11 : 112 + 11], expected[100:124, 112 - 11 : 112 + 11]
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < 1
    assert difference.max() <= 3


def test_an_export_replaces_the_files_of_an_earlier_export(model, exported, tmp_path):
    for name in ("member_1.onnx", "member_7.xml", "member_7.bin", "multibox_448.onnx", "mine.txt"):
        (tmp_path / name).write_bytes(b"old")
    shutil.copy(exported / "classes.json", tmp_path)
    export_model(Model(model.members[:1], CATEGORIES, subclasses=SUBCLASSES), tmp_path, "pets")
    assert {file.name for file in tmp_path.iterdir()} == {"member_1.onnx", "classes.json", "README.md", "mine.txt"}
    assert (tmp_path / "member_1.onnx").stat().st_size > 3


@pytest.mark.parametrize("name", ["README.md", "classes.json"])
def test_a_folder_with_other_files_is_refused_and_kept(model, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match="holds files of another kind"):
        export_model(model, tmp_path, "pets")
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
