"""The command `detect-train`, with a tiny network on three pictures."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import Model, load_model, save_model
from inception_rcnn.tools.detect_train import app


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two training pictures and a validation picture, with classes of the user."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("Data/DET", "Annotations/DET"):
        for split in ("train", "val"):
            (root / kind / split).mkdir(parents=True)
    (root / "ImageSets/DET").mkdir(parents=True)
    for number in range(3):
        split = "train" if number < 2 else "val"
        image = np.full((60, 80, 3), 100, np.uint8)
        image[10:50, 20:60] = (200, 60 * number, 0)
        Image.fromarray(image).save(root / f"Data/DET/{split}/{number}.JPEG")
        gnome, bird = (AnnotatedObject(name, (21, 11, 60, 50)) for name in ("garden gnome", "flamingo"))
        objects = (gnome,) if number < 2 else (gnome, bird)
        write_annotation(root / f"Annotations/DET/{split}/{number}.xml", Annotation(str(number), 80, 60, objects))
    (root / "ImageSets/DET/train.txt").write_text("0 1\n1 2\n")
    (root / "ImageSets/DET/val.txt").write_text("2 1\n")
    (root / "classes.txt").write_text("garden gnome\nflamingo\n")
    return root


@pytest.fixture
def start(tmp_path_factory, tiny_googlenet, uncompiled_networks):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),)), folder)
    return folder


def test_a_users_own_classes_become_a_model(root, start, tmp_path):
    result = run(
        root, "--out", tmp_path, "--classes", root / "classes.txt", "--init", start, "--device", "cpu",
        "--freeze-trunk", "--pool", 12, "--iterations", 1, "--no-multibox",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path)
    assert [category.name for category in model.categories] == ["garden gnome"]
    assert model.card["objects"] == {"garden gnome": 2}
    assert model.card["pictures"] == 2
    assert model.card["settings"]["freeze_below"] == "classifier"
    assert "fewer than 20 boxes" in result.output
    assert "1 of 2 classes have no boxes, so the detector will not know them: flamingo" in result.output
    figures = model.card["evaluation"]
    assert (figures["data"].split()[-1], figures["pictures"]) == ("val", 1)
    assert list(figures["classes"]) == ["garden gnome"]  # The training pictures have no flamingo.
    assert f"measured: mAP {figures['mAP']:.3f}" in result.output
    assert model.multibox is None
    lines = result.output.splitlines()
    plan = next(number for number, line in enumerate(lines) if line.startswith("plan for 2 pictures"))
    planned = [re.match(r"  \d\. ([\w ]+): .*, about \d", line) for line in lines[plan + 1 : plan + 6]]
    assert [stage and stage[1] for stage in planned] == [
        "proposals", "frozen blocks", "training", "box regression", "evaluation",
    ]  # fmt: skip
    assert "  3. training: 1 steps of 128 windows" in result.output
    outcomes = [
        line for line in lines[plan:] if line.startswith(("MultiBox:", "networks:", "box regression:", "screen:"))
    ]
    assert outcomes[0] == f"MultiBox: none, {start} has none and none was to be trained"
    assert outcomes[1] == "networks: 1 trained in 1 steps"
    assert outcomes[-2:] == [
        "box regression: not kept, no gain on held-out boxes",
        "screen: none, it needs a MultiBox network",
    ]
    with (tmp_path / "training" / "log.csv").open(newline="") as file:
        log = list(csv.DictReader(file))
    assert [(row["stage"], row["step"]) for row in log] == [("training", "1")]
    assert float(log[0]["loss"]) > 0
    assert float(log[0]["learning rate"]) == 0.002


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    """Five pictures with VOC XML files beside them: a layout without splits. Two names differ in case."""
    folder = tmp_path_factory.mktemp("plain")
    for number in range(5):
        image = np.full((60, 80, 3), 100, np.uint8)
        image[10:50, 20:60] = (200, 50 * number, 0)
        Image.fromarray(image).save(folder / f"{number}.png")
        objects = tuple(AnnotatedObject(name, (21, 11, 60, 50)) for name in ("gnome", "Gnome"))
        write_annotation(folder / f"{number}.xml", Annotation(f"{number}.png", 80, 60, objects))
    return folder


def test_a_part_of_a_folder_without_splits_is_held_out_for_figures(plain_folder, start, tmp_path):
    options = (
        "--init", start, "--device", "cpu", "--freeze-trunk", "--pool", 12, "--iterations", 1, "--no-multibox",
        "--no-box-regression",
    )  # fmt: skip
    result = run(plain_folder, "--out", tmp_path / "held", *options, "--hold-out", 0.4)
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "held")
    assert model.card["pictures"] == 3
    assert model.card["evaluation"]["pictures"] == 2
    assert model.card["evaluation"]["data"].endswith("(held out)")
    assert "names of classes differ in case or spaces only: 'Gnome' with 3, 'gnome' with 3 boxes" in result.output
    assert "box regression: none" in result.output
    result = run(plain_folder, "--out", tmp_path / "all", *options)
    assert result.exit_code == 0, result.output
    assert load_model(tmp_path / "all").card["pictures"] == 5
    assert "not measured: no val list; --hold-out 0.2 would measure on a fifth" in result.output


@pytest.mark.parametrize("init", ["nowhere", "nowhere.caffemodel", "nowhere.safetensors"])
def test_a_missing_initial_network_is_said_before_annotations_are_read(init, tmp_path):
    result = run(tmp_path / "no data", "--out", tmp_path / "model", "--init", init)
    assert result.exit_code == 2
    assert init in result.output
    assert "no data" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hold-out", "1.5"], "above 0 and below 1"),
        (["--hold-out", "0.2", "--validation", "val"], "either --hold-out or --validation"),
        (["--no-multibox", "--multibox-iterations", "5"], "--no-multibox trains no MultiBox network"),
        (["--multibox-iterations", "0"], "--multibox-iterations"),
        (["--measured", "0"], "--measured"),
        (["--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(arguments, message, tmp_path):
    result = run(tmp_path / "nowhere", "--out", tmp_path / "model", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "nowhere" not in result.output


def test_unknown_classes_are_named_with_the_remedy(root, start, tmp_path):
    result = run(root, "--out", tmp_path, "--init", start, "--device", "cpu")
    assert result.exit_code == 2
    assert "garden gnome" in result.output
    assert "--classes" in result.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--split": "test"}, "test"),
        ({"--init": "nowhere"}, "no model at"),
        ({"--device": "tpu"}, "unknown device"),
        ({"--freeze-below": "inception_9"}, "inception_9"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_message(root, start, tmp_path, change, message):
    options = {"--init": start, "--device": "cpu", "--classes": root / "classes.txt", "--out": tmp_path, **change}
    result = run(root, *(word for option in options.items() for word in option))
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "model.json").exists()


def test_a_folder_that_is_no_data_set_is_an_error(tmp_path):
    result = run(tmp_path, "--out", tmp_path / "model")
    assert result.exit_code == 2
    assert "ImageSets" in result.output


def test_help_has_an_example():
    assert "detect-train ILSVRC/" in run("--help").output


def test_a_folder_that_cannot_be_written_gives_a_message(root, start, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "model"
    result = run(root, "--out", out, "--classes", root / "classes.txt", "--init", start, "--device", "cpu")
    assert result.exit_code == 2
    assert "is not a folder" in " ".join(result.output.split())
