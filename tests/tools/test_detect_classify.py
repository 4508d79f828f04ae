"""The command `detect-classify`, on the kinds of files that users have."""

import csv
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.classifier_files import save_classifier
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.networks import googlenet
from inception_rcnn.tools.detect_classify import app

pytestmark = pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")

COLOURS = ("red", "green", "blue", "grey", "black", "white")


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def words(result) -> str:
    return " ".join(result.output.split())


def colour_network(seed: int) -> GoogLeNet:
    torch.manual_seed(seed)
    network = GoogLeNet(len(COLOURS), auxiliary=False)
    nn.init.normal_(network.classifier.weight, std=0.001)  # random features are large
    return network


@pytest.fixture
def classifier(tmp_path_factory) -> str:
    """A folder with an ensemble of two narrow networks of random weights."""
    folder = tmp_path_factory.mktemp("classifier")
    for name, seed in (("classifier.safetensors", 0), ("classifier_2.safetensors", 1)):
        save_classifier(colour_network(seed), COLOURS, folder / name, {})
    return str(folder)


def drawing(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((80, 60))


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    drawing(0).save(folder / "plain.jpg")
    drawing(1).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    drawing(2).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "one pixel.png")
    drawing(3).save(folder / "größe 写真.png")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:600])
    (folder / "sub").mkdir()
    drawing(4).save(folder / "sub" / "plain.png")
    return folder


def test_odd_files_are_classified_or_listed_as_failures(odd_folder, classifier, tmp_path):
    arguments = (odd_folder, "--recursive", "--model", classifier, "--device", "cpu", "--out", tmp_path)
    result = run(*arguments, "--crops", 10, "--top", 2)
    assert result.exit_code == 3, result.output
    document = json.loads((tmp_path / "classes.json").read_text(encoding="utf-8"))
    names = ("cmyk.jpg", "größe 写真.png", "one pixel.png", "plain.jpg", "sub/plain.png", "turned.jpg")
    assert [image["file_name"] for image in document["images"]] == [str(odd_folder / name) for name in names]
    for image in document["images"]:
        first, second = image["predictions"]
        assert 1 > first["probability"] >= second["probability"] > 0
        assert COLOURS[first["class_id"]] == first["name"] == first["wnid"]
    failures = {failure["file_name"]: failure["reason"] for failure in document["failures"]}
    assert set(failures) == {str(odd_folder / "text.jpg"), str(odd_folder / "cut.jpg")}
    assert all(failures.values())
    assert "2 of 8 pictures could not be read:" in words(result)
    assert all(f"{name}: {reason}" in words(result) for name, reason in failures.items())
    assert "größe 写真.png" in result.output
    assert "measured" not in document
    with (tmp_path / "classes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows[::2]] == [str(odd_folder / name) for name in names]
    assert [row["rank"] for row in rows] == ["1", "2"] * 6
    best = document["images"][0]["predictions"][0]
    assert (rows[0]["name"], float(rows[0]["probability"])) == (best["name"], best["probability"])


def test_more_crops_and_the_number_of_classes_change_the_predictions_as_they_should(odd_folder, classifier, tmp_path):
    sums, first = {}, {}
    for crops in (1, 10, 144):
        out = tmp_path / str(crops)
        result = run(odd_folder / "plain.jpg", "--model", classifier, "--crops", crops, "--top", 99, "--out", out)
        assert result.exit_code == 0, result.output
        (image,) = json.loads((out / "classes.json").read_text())["images"]
        sums[crops] = sum(one["probability"] for one in image["predictions"])
        first[crops] = image["predictions"][0]["probability"]
        assert len(image["predictions"]) == 6
    assert list(sums.values()) == pytest.approx([1, 1, 1], abs=1e-5)
    assert len(set(first.values())) == 3


def test_a_detector_says_what_whole_pictures_show(odd_folder, tmp_path):
    categories = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))
    torch.manual_seed(0)
    save_model(Model([GoogLeNet(3, auxiliary=False)], categories), tmp_path / "model")
    result = run(odd_folder / "plain.jpg", "--model", tmp_path / "model", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    (image,) = json.loads((tmp_path / "classes.json").read_text())["images"]
    assert {(one["class_id"], one["wnid"], one["name"]) for one in image["predictions"]} == {
        (58, "n02084071", "dog"),
        (7, "n02121808", "domestic cat"),
    }


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Six pictures in folders that are named after classes, and a file with the same labels."""
    root = tmp_path_factory.mktemp("labelled")
    lines = []
    for number in range(6):
        colour = COLOURS[number % 3]
        (root / "val" / colour).mkdir(parents=True, exist_ok=True)
        drawing(number).save(root / "val" / colour / f"{number}.png")
        lines.append(f"{number} {colour}\n")
    (root / "labels.txt").write_text("".join(lines))
    return root


def test_folders_and_a_file_of_labels_give_the_same_errors(labelled, classifier, tmp_path):
    arguments = (labelled / "val", "--recursive", "--model", classifier, "--device", "cpu")
    by_folder = run(*arguments, "--out", tmp_path / "folders")
    by_file = run(*arguments, "--labels", labelled / "labels.txt", "--out", tmp_path / "file")
    assert by_folder.exit_code == by_file.exit_code == 0, by_folder.output + by_file.output
    assert outputs(tmp_path / "folders") == outputs(tmp_path / "file")
    document = json.loads((tmp_path / "file" / "classes.json").read_text())
    wrong1 = sum(image["predictions"][0]["name"] != image["file_name"].split("/")[-2] for image in document["images"])
    wrong5 = sum(
        image["file_name"].split("/")[-2] not in [one["name"] for one in image["predictions"]]
        for image in document["images"]
    )
    measured = document["measured"]
    assert (measured["images"], measured["top1_error"], measured["top5_error"]) == (6, wrong1 / 6, wrong5 / 6)
    low, high = measured["top1_interval"]
    assert low <= wrong1 / 6 <= high
    assert f"top-1 error {wrong1 / 6:.2%}" in words(by_file)


@pytest.mark.slow
def test_table_3_has_the_classifications_of_all_crops_and_networks(labelled, classifier, tmp_path):
    arguments = (labelled / "val", "--recursive", "--model", classifier, "--device", "cpu")
    result = run(*arguments, "--table3", "--out", tmp_path / "table")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "table" / "classes.json").read_text())
    rows = {(row["networks"], row["crops"]): row for row in document["table3"]}
    assert list(rows) == [*((n, crops) for n in (1, 2) for crops in (1, 10, 144)), (7, 1), (7, 10), (7, 144)]
    assert (rows[7, 144]["paper_top5_error"], rows[1, 1]["paper_top5_error"]) == (0.0667, 0.1007)
    for networks, crops in ((1, 1), (1, 10), (2, 144)):
        models = ["--model", f"{classifier}/classifier.safetensors"] if networks == 1 else ["--model", classifier]
        out = tmp_path / f"{networks}-{crops}"
        single = run(*arguments[:2], *models, "--device", "cpu", "--crops", crops, "--out", out)
        assert single.exit_code == 0, single.output
        alone = json.loads((out / "classes.json").read_text())
        assert alone["measured"]["top1_error"] == rows[networks, crops]["top1_error"]
        assert alone["measured"]["top5_interval"] == rows[networks, crops]["top5_interval"]
        if crops == 144:
            assert alone["images"] == document["images"]
            assert alone["measured"] == document["measured"]
    assert re.search(r"7 \S* 144 \S* 1008 \S* \S* \S* 6.67% \S* -3.45%", words(result))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jpg"], "nowhere.jpg: no such file"),
        (["PICTURE", "--model", "nowhere"], "no model at 'nowhere'"),
        (["PICTURE", "--model", "nowhere.caffemodel"], "nowhere.caffemodel"),
        (["PICTURE", "--crops", "5"], "--crops"),
        (["PICTURE", "--device", "tpu"], "unknown device"),
        (["PICTURE", "--engine", "steam"], "'steam' is not one of"),
        (["PICTURE", "--labels", "nowhere.txt"], "nowhere.txt: cannot read the labels"),
        (["PICTURE", "--table3"], "needs --labels, or folders that are named after classes"),
        (["PICTURE", "--table3", "--crops", "10"], "leave out --crops"),
        (["PICTURE", "--classes", "classes.txt"], "--classes"),
        (["PICTURE", "--top", "0"], "--top"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_a_message(odd_folder, classifier, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    arguments = [str(odd_folder / "plain.jpg") if word == "PICTURE" else word for word in arguments]
    if "--model" not in arguments:
        arguments += ["--model", classifier]
    result = run(*arguments, "--out", "out")
    assert result.exit_code == 2, result.output
    assert message in words(result)
    assert not (tmp_path / "out").exists()


def test_folders_that_are_partly_classes_are_a_warning(labelled, odd_folder, classifier, tmp_path):
    pictures = (labelled / "val" / "red" / "0.png", odd_folder / "plain.jpg")
    result = run(*pictures, "--model", classifier, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "the errors are not measured: 1 folders do not have the name of a class" in words(result)


def outputs(out) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("classes.json", "classes.csv")}


# Runs `detect-classify` with networks as narrow as here, in a process that kills itself once picture 3 is stored.
KILLED_RUN = """
import os, signal, sys
from inception_rcnn.detection.networks import googlenet
from inception_rcnn.detection.run_state import RunState
from inception_rcnn.tools.detect_classify import app

googlenet._STEM_WIDTHS = {stem}
googlenet._INCEPTION_WIDTHS = {inception}
googlenet.GoogLeNet.out_channels = {channels}
add = RunState.add

def add_and_die(state, result):
    add(state, result)
    if result.picture == 3:
        os.kill(os.getpid(), signal.SIGKILL)

RunState.add = add_and_die
app(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["--crops", "10"], ["--table3"]])
def test_a_killed_run_resumes_to_the_same_files(labelled, classifier, tmp_path, mode):
    arguments = [str(labelled / "val"), "-r", "--model", classifier, "--device", "cpu", "--engine", "openvino", *mode]
    whole = run(*arguments, "--out", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    program = KILLED_RUN.format(
        stem=googlenet._STEM_WIDTHS,
        inception=googlenet._INCEPTION_WIDTHS,
        channels=googlenet.GoogLeNet.out_channels,
    )
    cut = [*arguments, "--out", str(tmp_path / "cut")]
    killed = subprocess.run([sys.executable, "-c", program, *cut], cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "cut" / "classes.json").exists()
    refused = run(*cut)
    assert refused.exit_code == 2
    assert "4 of 6 pictures" in words(refused)
    assert "--top was 5, is now 3" in words(run(*cut, "--resume", "--top", 3))
    resumed = run(*cut, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert "4 of 6 pictures are already done" in words(resumed)
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")
    again = run(*cut, "--resume")
    assert again.exit_code == 0
    assert "is complete: 6 pictures with these settings" in words(again)
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")


def test_the_same_command_on_a_finished_run_loads_no_network(labelled, classifier, tmp_path, monkeypatch):
    arguments = (labelled / "val", "-r", "--model", classifier, "--device", "cpu", "--out", tmp_path)
    first = run(*arguments)
    assert first.exit_code == 0, first.output
    written = outputs(tmp_path)
    monkeypatch.setattr("inception_rcnn.detection.classification.load_classifier", None)
    monkeypatch.setattr("inception_rcnn.detection.classification.Classifier.__init__", None)
    again = run(*arguments)
    assert again.exit_code == 0, again.output
    assert "is complete: 6 pictures with these settings; --overwrite starts it again" in words(again)
    assert outputs(tmp_path) == written
    assert first.output.endswith(again.output[again.output.index("written:") :])
    other = run(*arguments, "--crops", 10)
    assert "--crops was 1, is now 10" in words(other)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    assert "not a classifier" in words(run(*arguments, "--model", damaged, "--overwrite"))


def test_a_full_disk_stops_the_run_and_keeps_the_results_so_far(labelled, classifier, tmp_path, monkeypatch):
    from inception_rcnn.detection.run_state import RunState

    real, stored = RunState.add, []

    def full(state, result):
        if len(stored) == 3:
            raise OSError(28, "No space left on device")
        stored.append(result)
        real(state, result)

    arguments = (labelled / "val", "-r", "--model", classifier, "--device", "cpu")
    monkeypatch.setattr(RunState, "add", full)
    stopped = run(*arguments, "--out", tmp_path / "out")
    assert stopped.exit_code == 1, stopped.output
    assert "No space left" in stopped.output
    assert "the results of 3 of 6 pictures" in words(stopped)
    monkeypatch.setattr(RunState, "add", real)
    assert run(*arguments, "--out", tmp_path / "out", "--resume").exit_code == 0
    assert run(*arguments, "--out", tmp_path / "whole").exit_code == 0
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_names_that_are_not_utf8_reach_the_files(classifier, tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9 [b]"
    os.mkdir(folder)
    drawing(0).save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", folder + b"/\xff [red].png")
    result = run(os.fsdecode(folder), "--out", tmp_path / "out", "--model", classifier)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert [os.fsencode(image["file_name"]) for image in document["images"]] == [folder + b"/\xff [red].png"]


@pytest.mark.slow
def test_the_bvlc_network_has_its_published_accuracy_on_imagenet(shared, tmp_path, monkeypatch):
    monkeypatch.undo()  # the full network
    pictures = sorted((shared / "data" / "imagenet-samples").glob("*.JPEG"))
    (tmp_path / "labels.txt").write_text("".join(f"{path.name} {path.name.split('_')[0]}\n" for path in pictures))
    model = shared / "weights" / "bvlc_googlenet.caffemodel"
    arguments = (pictures[0].parent, "--model", model, "--labels", tmp_path / "labels.txt", "--out", tmp_path)
    result = run(*arguments, "--engine", "openvino", "--device", "cpu")
    assert result.exit_code == 0, result.output
    measured = json.loads((tmp_path / "classes.json").read_text())["measured"]
    assert measured["images"] == 400
    assert 1 - measured["top1_error"] == pytest.approx(0.7875, abs=0.015)
    assert 1 - measured["top5_error"] == pytest.approx(0.945, abs=0.015)
