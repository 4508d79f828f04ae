"""The command `detect-export`, with a tiny network."""

import importlib.util

import pytest
import torch
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.tools import detect_export
from inception_rcnn.tools.detect_export import app

pytestmark = pytest.mark.usefixtures("tiny_googlenet")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.fixture
def model(tmp_path, tiny_googlenet):
    torch.manual_seed(0)
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(58, "n02084071", "dog"),)), tmp_path / "dogs")
    return tmp_path / "dogs"


def test_a_model_folder_is_exported_for_openvino(model, tmp_path):
    result = run(model, "--out", tmp_path / "out", "--format", "openvino", "--int8")
    assert result.exit_code == 0, result.output
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"member_1.xml", "member_1.bin", "classes.json", "README.md"}
    assert (tmp_path / "out" / "README.md").read_text().startswith("# The networks of dogs\n")


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(model, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(detect_export, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    result = run(model, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "needs the package onnxscript: pip install 'inception-rcnn[onnx]'" in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused(model, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    result = run(model, "--out", tmp_path / "out", "--format", "openvino")
    assert result.exit_code == 2
    assert "holds files of another kind" in result.output


def test_an_export_that_stops_does_not_promise_that_work_is_kept(model, tmp_path, monkeypatch):
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inception_rcnn.detection.export.export_model", full)
    result = run(model, "--out", tmp_path / "out", "--format", "openvino")
    assert result.exit_code == 1
    assert "No space left on device" in result.output
    assert "repeat the command: it starts again" in result.output


def test_a_model_that_does_not_exist_is_wrong_usage(tmp_path):
    result = run("nowhere", "--out", tmp_path / "out", "--format", "openvino")
    assert result.exit_code == 2
    assert "no model at" in result.output
