"""The command `detect-train-classifier`, with a tiny network on four pictures."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from inception_rcnn.detection.classifier_files import load_classifier
from inception_rcnn.tools.detect_train_classifier import app


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("train/blue/1", "train/blue/2", "train/red/1", "val/red/1")):
        file = tmp_path / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 60 * number, np.uint8)).save(file)
    return tmp_path


@pytest.mark.usefixtures("tiny_googlenet")
def test_folders_of_pictures_become_a_classifier_with_a_card(root):
    result = run(root, "--out", root / "out", "--epochs", 1, "--batch", 2, "--workers", 0, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "top-1" in result.output
    file = root / "out" / "classifier.safetensors"
    assert load_classifier(file).num_classes == 2
    with safe_open(file, framework="pt") as tensors:
        about = json.loads(tensors.metadata()["classifier"])
    assert about["classes"] == ["blue", "red"]
    assert about["card"]["pictures"] == 3
    assert 0 <= about["card"]["top1"] <= about["card"]["top5"] == 1


@pytest.mark.usefixtures("tiny_googlenet")
def test_members_have_the_same_start_and_other_pictures(root):
    arguments = (root, "--epochs", 1, "--batch", 2, "--workers", 0, "--device", "cpu")
    assert run(*arguments, "--out", root / "one").exit_code == 0
    result = run(*arguments, "--out", root / "two", "--members", 2)
    assert result.exit_code == 0, result.output
    assert "training member 2 of 2" in result.output
    one, first, second = (
        load_file(root / name / file)
        for name, file in (
            ("one", "classifier.safetensors"),
            ("two", "classifier.safetensors"),
            ("two", "classifier_2.safetensors"),
        )
    )
    assert all(first[name].equal(tensor) for name, tensor in one.items())
    assert not all(second[name].equal(tensor) for name, tensor in one.items())
    extended = run(*arguments, "--out", root / "one", "--members", 2)
    assert extended.exit_code == 0, extended.output
    for file in ("classifier.safetensors", "classifier_2.safetensors"):
        assert (root / "one" / file).read_bytes() == (root / "two" / file).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"--batch": 9}, "fewer than a batch"), ({"--device": "tpu"}, "unknown device")],
)
@pytest.mark.usefixtures("tiny_googlenet")
def test_wrong_usage_is_exit_code_2_with_a_message(root, change, message):
    options = {"--out": root / "out", "--batch": 2, "--device": "cpu", "--workers": 0, **change}
    result = run(root, *(word for option in options.items() for word in option))
    assert result.exit_code == 2
    assert message in result.output
    assert not (root / "out" / "classifier.safetensors").exists()


def test_a_folder_without_classes_is_an_error(tmp_path):
    result = run(tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "one for each class" in result.output
