"""The command `detect`, as a user runs it, on a folder of the files that people have."""

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import SHIPPED, Model, save_model
from inception_rcnn.tools.detect import app, demo_images

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False)
    with torch.no_grad():
        network.classifier.weight.mul_(0.01)
    folder = tmp_path_factory.mktemp("model")
    save_model(Model([network], CATEGORIES), folder)
    return str(folder)


def run(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def drawing(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = np.full((60, 80, 3), 100, np.uint8)
    image[15:45, 20:60] = rng.integers(0, 256, 3)
    return Image.fromarray(image)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    drawing(0).save(folder / "plain.jpg")
    drawing(1).convert("CMYK").save(folder / "cmyk.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    drawing(2).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "one pixel.png")
    drawing(3).save(folder / "größe 写真.png")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:600])
    (folder / "sub").mkdir()
    drawing(4).save(folder / "sub" / "plain.png")
    return folder


@pytest.fixture(scope="module")
def odd_run(odd_folder, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    result = run(odd_folder, "--out", out, "--model", model, "--device", "cpu", "--recursive", "--score-threshold", 0.3)
    return result, out, json.loads((out / "detections.json").read_text(encoding="utf-8"))


def test_all_readable_pictures_are_detected_and_the_others_listed(odd_run, odd_folder):
    result, _, document = odd_run
    assert result.exit_code == 3, result.output
    read = {image["file_name"] for image in document["images"]}
    names = ("plain.jpg", "cmyk.jpg", "turned.jpg", "one pixel.png", "größe 写真.png", "sub/plain.png")
    assert read == {str(odd_folder / name) for name in names}
    failures = {failure["file_name"]: failure["reason"] for failure in document["failures"]}
    assert set(failures) == {str(odd_folder / "text.jpg"), str(odd_folder / "cut.jpg")}
    assert all(failures.values())
    assert "2 of 8" in result.output


def test_sizes_are_those_of_the_upright_picture(odd_run, odd_folder):
    sizes = {image["file_name"]: (image["width"], image["height"]) for image in odd_run[2]["images"]}
    assert sizes[str(odd_folder / "turned.jpg")] == (60, 80)
    assert sizes[str(odd_folder / "plain.jpg")] == (80, 60)


def test_pycocotools_opens_the_detections(odd_run):
    _, out, document = odd_run
    coco = COCO(str(out / "detections.json"))
    assert coco.cats[58] == {"id": 58, "name": "dog", "wnid": "n02084071"}
    assert len(coco.anns) == len(document["annotations"]) > 0
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + width <= image["width"] + 1e-3
        assert y + height <= image["height"] + 1e-3
        assert 0.3 <= annotation["score"] <= 1
        assert annotation["area"] == pytest.approx(width * height, rel=1e-3)


def test_each_picture_is_drawn_under_a_name_of_its_own(odd_run):
    drawn = sorted(path.name for path in (odd_run[1] / "pictures").iterdir())
    assert drawn == sorted(["plain.jpg", "cmyk.jpg", "turned.jpg", "one pixel.jpg", "größe 写真.jpg", "plain-2.jpg"])
    with Image.open(odd_run[1] / "pictures" / "turned.jpg") as picture:
        assert picture.size == (60, 80)


def test_nothing_unfinished_is_left_behind(odd_run):
    assert not list(odd_run[1].rglob("*.partial"))


def test_all_read_is_exit_code_0(odd_folder, model, tmp_path):
    result = run(odd_folder / "plain.jpg", "--out", tmp_path, "--model", model, "--device", "cpu", "--no-pictures")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "pictures").exists()
    assert json.loads((tmp_path / "detections.json").read_text())["failures"] == []


def test_max_detections_bounds_each_picture(odd_folder, model, tmp_path):
    run(odd_folder / "plain.jpg", odd_folder / "cmyk.jpg", "--out", tmp_path, "--model", model, "--max-detections", 2)
    images = [a["image_id"] for a in json.loads((tmp_path / "detections.json").read_text())["annotations"]]
    assert max(images.count(image) for image in set(images)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--demo"),
        (["nowhere.jpg"], "nowhere.jpg: no such file"),
        (["--demo", "--device", "tpu"], "unknown device"),
        (["--demo", "--model", "nowhere"], "no model at"),
        (["--demo", "--score-threshold", "2"], "score-threshold"),
        (["--demo", "a.jpg"], "--demo"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_message(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_an_empty_folder_is_said_with_the_remedy(odd_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "sub").mkdir()
    drawing(0).save(tmp_path / "sub" / "a.png")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "--recursive" in result.output


def test_help_has_an_example():
    assert "detect photos/" in run("--help").output


def test_demo_photographs_are_installed():
    assert all(path.is_file() for path in demo_images())


@pytest.mark.skipif(not (SHIPPED / "default" / "model.json").exists(), reason="no model is shipped")
def test_the_shipped_model_finds_the_cat_and_the_astronaut(tmp_path):
    result = run("--demo", "--out", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "detections.json").read_text())
    names = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"].rsplit("/", 1)[-1] for image in document["images"]}

    def best(file: str, name: str) -> dict:
        found = [
            annotation
            for annotation in document["annotations"]
            if files[annotation["image_id"]] == file and names[annotation["category_id"]] == name
        ]
        return max(found, key=lambda annotation: annotation["score"])

    def iou(bbox, other) -> float:
        (x, y, w, h), (u, v, s, t) = bbox, other
        inside = max(0, min(x + w, u + s) - max(x, u)) * max(0, min(y + h, v + t) - max(y, v))
        return inside / (w * h + s * t - inside)

    cat, person = best("chelsea.png", "domestic cat"), best("astronaut.png", "person")
    assert cat["score"] >= 0.5
    assert person["score"] >= 0.5
    assert iou(cat["bbox"], (0, 0, 400, 300)) >= 0.5
    assert iou(person["bbox"], (22, 15, 345, 497)) >= 0.5


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for number in range(8):
        drawing(number).save(folder / f"{number}.png")
    (folder / "3.png").write_text("no picture")
    return folder


def outputs(out) -> dict[str, bytes]:
    return {
        str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.suffix in (".json", ".jpg")
    }


def test_a_killed_run_resumes_to_the_same_files(many, model, tmp_path):
    whole = run(many, "--out", tmp_path / "whole", "--model", model, "--device", "cpu")
    assert whole.exit_code == 3, whole.output
    command = [sys.executable, "-m", "inception_rcnn.tools.detect", many, "--out", tmp_path / "cut", "--model", model]
    process = subprocess.Popen([*map(str, command), "--device", "cpu"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    state = tmp_path / "cut" / "run.sqlite"
    while process.poll() is None and kept(state) < 2:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert 2 <= kept(state) < 9
    refused = run(many, "--out", tmp_path / "cut", "--model", model, "--device", "cpu")
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    changed = run(many, "--out", tmp_path / "cut", "--model", model, "--device", "cpu", "--resume", "--seed", 1)
    assert changed.exit_code == 2
    assert "--seed was 0, is 1" in " ".join(changed.output.replace("│", " ").split())
    assert not (tmp_path / "cut" / "detections.json").exists()
    resumed = run(many, "--out", tmp_path / "cut", "--model", model, "--device", "cpu", "--resume")
    assert resumed.exit_code == 3, resumed.output
    assert "were done before" in resumed.output
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")
    again = run(many, "--out", tmp_path / "cut", "--model", model, "--device", "cpu", "--resume")
    assert again.exit_code == 3
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")


def kept(state) -> int:
    """How many results a run has committed so far."""
    try:
        with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as database:
            return database.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(many, model, tmp_path, monkeypatch):
    from inception_rcnn.tools import detect

    real, drawn = detect._write_jpeg, []

    def full(file, pixels):
        if len(drawn) == 3:
            raise OSError(28, "No space left on device")
        drawn.append(file)
        real(file, pixels)

    arguments = (many, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    monkeypatch.setattr(detect, "_write_jpeg", full)
    stopped = run(*arguments)
    assert stopped.exit_code == 1
    assert "No space left" in stopped.output
    assert "4 of 8" in stopped.output  # three drawn, and the one that is no picture
    monkeypatch.setattr(detect, "_write_jpeg", real)
    assert run(*arguments, "--resume").exit_code == 3
    assert run(many, "--out", tmp_path / "whole", "--model", model, "--device", "cpu").exit_code == 3
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_members_and_cascade_are_options(odd_folder, model, tmp_path):
    arguments = (odd_folder / "plain.jpg", "--out", tmp_path, "--model", model, "--device", "cpu", "--no-pictures")
    result = run(*arguments, "--cascade", "off", "--members", 1)
    assert result.exit_code == 0
    assert "the fastest engine for CPUs" in " ".join(result.output.split())
    refused = run(*arguments, "--members", 2)
    assert refused.exit_code == 2
    assert "members is 2" in refused.output
