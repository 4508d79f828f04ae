"""The command `detect-train-multibox`, with a tiny network on eight pictures."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import Model, load_model, save_model
from inception_rcnn.tools.detect_train_multibox import app


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight pictures with an object each, of different sizes."""
    root = tmp_path_factory.mktemp("data")
    for kind in ("Data/DET/train", "Annotations/DET/train", "ImageSets/DET"):
        (root / kind).mkdir(parents=True)
    for number in range(8):
        image = np.full((60, 80, 3), 100, np.uint8)
        image[10:50, 20 : 40 + 4 * number] = (200, 60, 0)
        Image.fromarray(image).save(root / f"Data/DET/train/{number}.JPEG")
        one = AnnotatedObject("n02084071", (21, 11, 40 + 4 * number, 50))
        write_annotation(root / f"Annotations/DET/train/{number}.xml", Annotation(str(number), 80, 60, (one,)))
    (root / "ImageSets/DET/train.txt").write_text("".join(f"{n} {n + 1}\n" for n in range(8)))
    return root


@pytest.fixture
def start(tmp_path_factory, tiny_googlenet, uncompiled_networks):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("start")
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(58, "n02084071", "dog"),)), folder)
    return folder


def test_a_detector_gets_a_multibox_network(root, start, tmp_path):
    result = run(
        root, "--out", tmp_path / "out", "--model", start, "--device", "cpu",
        "--validation", "train", "--views", 4, "--size", 64, "--iterations", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "step 1: recall" in result.output
    model = load_model(tmp_path / "out")
    assert model.multibox is not None
    assert model.card["multibox"]["settings"]["views"] == 4


def test_a_size_that_the_trunk_cannot_divide_is_refused(root, start, tmp_path):
    result = run(root, "--out", tmp_path, "--model", start, "--size", 100)
    assert result.exit_code == 2
    assert "multiple of 32" in result.output


def test_a_missing_tensorboard_is_an_error_with_the_command_that_installs_it(root, start, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = run(root, "--out", tmp_path, "--model", start, "--tensorboard", tmp_path / "curves")
    assert result.exit_code == 2
    assert "inception-rcnn[train]" in result.output
