"""The command `detect`, on a folder with the kinds of files that users have."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from io import StringIO

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.data.layouts import open_dataset
from inception_rcnn.data.submission import read_submission
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.networks import googlenet
from inception_rcnn.detection.run_state import Result, RunState
from inception_rcnn.tools import detect, drawings
from inception_rcnn.tools.detect import app, demo_images

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))


@pytest.fixture
def model(tiny_googlenet, tmp_path_factory) -> str:
    """A model folder with one narrow network of random weights."""
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False)
    with torch.no_grad():  # random features are large, and all probabilities would be 0 or 1
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
    exif[0x0112] = 6  # rotated by 90 degrees
    drawing(2).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "one pixel.png")
    drawing(3).save(folder / "größe 写真.png")
    (folder / "text.jpg").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "plain.jpg").read_bytes()[:600])
    (folder / "sub").mkdir()
    drawing(4).save(folder / "sub" / "plain.png")
    return folder


@pytest.fixture(scope="module")
def runs() -> dict:
    """Runs that several tests examine; empty at first."""
    return {}


@pytest.fixture
def odd_run(runs, odd_folder, model, tmp_path_factory):
    """Result, output folder and detections.json of a run over `odd_folder`."""
    if not runs:
        out = tmp_path_factory.mktemp("out")
        arguments = (odd_folder, "--out", out, "--model", model, "--device", "cpu", "--recursive")
        result = run(*arguments, "--draw-score", 0.3)
        runs["odd"] = result, out, json.loads((out / "detections.json").read_text(encoding="utf-8"))
    return runs["odd"]


def test_readable_pictures_get_detections_and_the_others_are_listed_as_failures(odd_run, odd_folder):
    result, _, document = odd_run
    assert result.exit_code == 3, result.output
    read = {image["file_name"] for image in document["images"]}
    names = ("plain.jpg", "cmyk.jpg", "turned.jpg", "one pixel.png", "größe 写真.png", "sub/plain.png")
    assert read == {str(odd_folder / name) for name in names}
    failures = {failure["file_name"]: failure["reason"] for failure in document["failures"]}
    assert set(failures) == {str(odd_folder / "text.jpg"), str(odd_folder / "cut.jpg")}
    assert all(failures.values())
    assert "2 of 8" in result.output


def test_sizes_in_detections_json_are_those_of_the_upright_picture(odd_run, odd_folder):
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


def test_the_gallery_shows_what_detections_json_says(odd_run):
    _, out, document = odd_run
    text = (out / "index.html").read_text(encoding="utf-8")
    pictures = json.loads(text.partition('id="pictures">')[2].partition("</script>")[0])
    assert [picture[:3] for picture in pictures] == [
        [image["file_name"], image["width"], image["height"]] for image in document["images"]
    ]
    assert sum(len(picture[5]) for picture in pictures) == 7 * len(document["annotations"])
    assert all(failure["reason"] in text for failure in document["failures"])


def test_each_drawing_has_a_distinct_name(odd_run):
    drawn = sorted(path.name for path in (odd_run[1] / "pictures").iterdir())
    assert drawn == sorted(["plain.jpg", "cmyk.jpg", "turned.jpg", "one pixel.jpg", "größe 写真.jpg", "plain-2.jpg"])
    with Image.open(odd_run[1] / "pictures" / "turned.jpg") as picture:
        assert picture.size == (60, 80)


def test_no_partial_files_are_left(odd_run):
    assert not list(odd_run[1].rglob("*.partial"))


def test_the_exit_code_is_0_if_all_pictures_are_read(odd_folder, model, tmp_path):
    result = run(odd_folder / "plain.jpg", "--out", tmp_path, "--model", model, "--device", "cpu", "--no-pictures")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "pictures").exists()
    assert json.loads((tmp_path / "detections.json").read_text())["failures"] == []


def test_max_detections_limits_the_detections_of_each_picture(odd_folder, model, tmp_path):
    files = (odd_folder / "plain.jpg", odd_folder / "cmyk.jpg")
    run(*files, "--out", tmp_path, "--model", model, "--max-detections", 2, "--device", "cpu")
    images = [a["image_id"] for a in json.loads((tmp_path / "detections.json").read_text())["annotations"]]
    assert max(images.count(image) for image in set(images)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--demo"),
        (["nowhere.jpg"], "nowhere.jpg: no such file"),
        (["--demo", "--device", "tpu"], "unknown device"),
        (["--demo", "--model", "nowhere"], "no model at"),
        (["--demo", "--min-score", "2"], "min-score"),
        (["--demo", "--min-score", "0.6", "--draw-score", "0.5"], "draw-score"),
        (["--demo", "--also", "csv,coco"], "unknown format 'coco'"),
        (["--demo", "a.jpg"], "--demo"),
    ],
)
def test_wrong_usage_gives_exit_code_2_and_a_message(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_folder_without_pictures_is_an_error_that_names_recursive(odd_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "sub").mkdir()
    drawing(0).save(tmp_path / "sub" / "a.png")
    result = run(tmp_path)
    assert result.exit_code == 2
    assert "--recursive" in result.output


def test_the_help_has_an_example():
    assert "detect photos/" in run("--help").output


def test_demo_photographs_are_installed():
    assert all(path.is_file() for path in demo_images())


def test_demo_detects_in_the_demo_photographs(odd_folder, model, tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "demo_images", lambda: [odd_folder / "plain.jpg"])
    result = run("--demo", "--out", tmp_path, "--model", model, "--device", "cpu")
    assert result.exit_code == 0, result.output
    images = json.loads((tmp_path / "detections.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [str(odd_folder / "plain.jpg")]


@pytest.mark.slow
def test_the_shipped_model_finds_the_cat_and_the_astronaut(tmp_path):
    photographs = [path for path in demo_images() if path.name in ("chelsea.png", "astronaut.png")]
    result = run(*photographs, "--out", tmp_path, "--device", "cpu", "--members", 2)
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
    assert cat["score"] >= 0.3
    assert person["score"] >= 0.3
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
    """The content of the JSON and JPEG files in a folder, by name."""
    return {
        str(file.relative_to(out)): file.read_bytes() for file in out.rglob("*") if file.suffix in (".json", ".jpg")
    }


# Runs `detect` with networks as narrow as here, in a process that kills itself once picture 4 is stored.
KILLED_RUN = """
import os, signal, sys
from inception_rcnn.detection.networks import googlenet
from inception_rcnn.detection.run_state import RunState
from inception_rcnn.tools.detect import app

googlenet._STEM_WIDTHS = {stem}
googlenet._INCEPTION_WIDTHS = {inception}
googlenet.GoogLeNet.out_channels = {channels}
add = RunState.add

def add_and_die(state, result):
    add(state, result)
    if result.picture == 4:
        os.kill(os.getpid(), signal.SIGKILL)

RunState.add = add_and_die
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_files(many, model, tmp_path):
    whole = run(many, "--out", tmp_path / "whole", "--model", model, "--device", "cpu")
    assert whole.exit_code == 3, whole.output
    program = KILLED_RUN.format(
        stem=googlenet._STEM_WIDTHS,
        inception=googlenet._INCEPTION_WIDTHS,
        channels=googlenet.GoogLeNet.out_channels,
    )
    arguments = [str(many), "--out", str(tmp_path / "cut"), "--model", model, "--device", "cpu"]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "cut" / "detections.json").exists()

    refused = run(*arguments)
    assert refused.exit_code == 2
    assert "5 of 8 pictures" in " ".join(refused.output.replace("│", " ").split())
    assert "--resume" in refused.output
    changed = run(*arguments, "--resume", "--seed", 1)
    assert changed.exit_code == 2
    assert "--seed was 0, is now 1" in " ".join(changed.output.replace("│", " ").split())

    resumed = run(*arguments, "--resume")
    assert resumed.exit_code == 3, resumed.output
    assert "5 of 8 pictures are already done" in " ".join(resumed.output.split())
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")
    again = run(*arguments, "--resume")
    assert again.exit_code == 3
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")


# Runs `detect` with networks as narrow as here. It says when a picture is stored, and takes a while for each.
SLOW_RUN = """
import sys, time
from inception_rcnn.detection.networks import googlenet
from inception_rcnn.detection.run_state import RunState
from inception_rcnn.tools import detect

googlenet._STEM_WIDTHS = {stem}
googlenet._INCEPTION_WIDTHS = {inception}
googlenet.GoogLeNet.out_channels = {channels}
add = RunState.add

def add_and_say(state, result):
    add(state, result)
    print("stored", state.done, file=sys.stderr, flush=True)
    time.sleep(0.3)

RunState.add = add_and_say
detect.main()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
def test_a_signal_at_any_moment_loses_no_finished_picture(many, model, tmp_path):
    program = SLOW_RUN.format(
        stem=googlenet._STEM_WIDTHS,
        inception=googlenet._INCEPTION_WIDTHS,
        channels=googlenet.GoogLeNet.out_channels,
    )
    arguments = [str(many), "--out", str(tmp_path / "cut"), "--model", model, "--device", "cpu", "--resume"]
    stored = 0
    moments = [
        ("loading the program", signal.SIGINT),
        ("loading the model", signal.SIGTERM),
        ("stored 1", signal.SIGINT),
        ("stored 4", signal.SIGTERM),
        ("stored 8", signal.SIGINT),
    ]
    for moment, number in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith(moment):
                process.send_signal(number)
        assert process.wait() == 128 + number, "".join(lines)
        text = "".join(lines)
        assert "Traceback" not in text
        name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        assert lines[-1].startswith(f"stopped by {name}: ")
        stored += text.count("stored")
        if stored:
            kept = f"the results of {stored} of 8 pictures are kept in {tmp_path / 'cut' / 'run.sqlite'}; continue with"
            assert kept in lines[-1]
        assert not list(tmp_path.rglob("*.partial"))
        assert not (tmp_path / "cut" / "detections.json").exists()
    assert stored == 8
    assert run(*arguments).exit_code == 3
    assert run(many, "--out", tmp_path / "whole", "--model", model, "--device", "cpu").exit_code == 3
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")


def test_the_rate_counts_the_time_before_the_first_result(tmp_path, monkeypatch):
    """Pictures that share a batch end together. Their rate was once that of the last moment, 149 images/s."""

    class State:
        done = 0

        def add(self, result):
            self.done += 1

    def results():
        time.sleep(0.5)
        for picture in range(5):
            yield Result(picture, 0, 0, None, None)

    stream = StringIO()
    monkeypatch.setattr(detect, "console", Console(file=stream, width=120))
    detect._store_results([tmp_path] * 5, results(), State())
    rate = re.search(r"5 of 5 images \(100 %\), ([\d.]+) images/s", stream.getvalue())
    assert rate
    assert 1 < float(rate[1]) <= 10  # 5 images in at least 0.5 s


def test_a_full_disk_stops_the_run_and_keeps_the_results_so_far(many, model, tmp_path, monkeypatch):
    add = RunState.add

    def full(state, result):
        if state.done == 4:
            raise sqlite3.OperationalError("database or disk is full")
        add(state, result)

    arguments = (many, "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    monkeypatch.setattr(RunState, "add", full)
    stopped = run(*arguments)
    assert stopped.exit_code == 1
    assert "disk is full" in stopped.output
    assert "4 of 8" in stopped.output
    monkeypatch.setattr(RunState, "add", add)
    assert run(*arguments, "--resume").exit_code == 3
    assert run(many, "--out", tmp_path / "whole", "--model", model, "--device", "cpu").exit_code == 3
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_drawings_are_no_part_of_a_run(many, model, tmp_path, monkeypatch):
    arguments = (many, "--out", tmp_path / "out", "--model", model, "--device", "cpu", "--resume")
    write = drawings.atomic_write

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawings, "atomic_write", full)
    result = run(*arguments)
    assert result.exit_code == 3, result.output
    assert result.output.count("its drawing cannot be written") == 1
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 7
    monkeypatch.setattr(drawings, "atomic_write", write)
    monkeypatch.setattr("inception_rcnn.detection.detector.Detector.__init__", None)  # no network is loaded
    assert "is complete" in run(*arguments, "--no-pictures").output
    drawn = run(*arguments, "--draw-score", 0.2)
    assert drawn.exit_code == 3, drawn.output
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 7
    assert "is complete" in run(*arguments, "--draw-score", 0.2).output


def test_further_formats_of_a_finished_run_need_no_network(many, model, tmp_path, monkeypatch):
    arguments = (many, "--out", tmp_path / "out", "--model", model, "--device", "cpu", "--no-pictures")
    assert run(*arguments).exit_code == 3
    monkeypatch.setattr("inception_rcnn.detection.detector.Detector.__init__", None)
    result = run(*arguments, "--also", "csv,voc,yolo,ilsvrc", "--draw-score", 0.05)
    assert result.exit_code == 3, result.output
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len((tmp_path / "out" / "detections.csv").read_text().splitlines()) == 1 + len(document["annotations"])
    assert len(read_submission(tmp_path / "out" / "submission.txt")) == len(document["annotations"])
    shown = sum(one["score"] >= 0.05 for one in document["annotations"])
    for folder in ("voc", "yolo"):
        dataset = open_dataset(tmp_path / "out" / folder)
        assert len(dataset) == 7
        assert sum(len(dataset[number].boxes) for number in range(7)) == shown


def test_chosen_classes_are_reported_only(odd_folder, model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    options = ("--model", model, "--device", "cpu", "--no-pictures", "--min-score", 0)
    assert run(odd_folder / "plain.jpg", *options, "--out", tmp_path / "all").exit_code == 0
    everything = json.loads((tmp_path / "all" / "detections.json").read_text())["annotations"]
    (tmp_path / "classes.txt").write_text("dog\n")
    for out, classes in (("a", "Dog"), ("b", "n02084071"), ("c", tmp_path / "classes.txt")):
        result = run(odd_folder / "plain.jpg", *options, "--classes", classes, "--out", tmp_path / out)
        assert result.exit_code == 0, result.output
        document = json.loads((tmp_path / out / "detections.json").read_text())
        assert [category["name"] for category in document["categories"]] == ["dog"]
        assert {one["category_id"] for one in document["annotations"]} == {58}
        bboxes = [one["bbox"] for one in everything if one["category_id"] == 58]
        assert [one["bbox"] for one in document["annotations"]][: len(bboxes)] == bboxes
    for classes, message in (("cow, cat", "no class 'cow'"), ("cat", "the nearest are domestic cat")):
        refused = run(odd_folder / "plain.jpg", *options, "--classes", classes, "--out", tmp_path / "d")
        assert refused.exit_code == 2
        assert message in refused.output
    refused = run(odd_folder / "plain.jpg", *options, "--classes", "imagenet", "--out", tmp_path / "d")
    assert "tell only its 2 classes apart" in refused.output
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("option", [(), ("--resume",)])
def test_the_same_command_says_that_the_run_is_complete_and_does_nothing(
    odd_folder, model, tmp_path, monkeypatch, option
):
    files = (odd_folder / "plain.jpg", odd_folder / "text.jpg")
    arguments = (*files, "--out", tmp_path / "out", "--model", model, "--device", "cpu", *option)
    first = run(*arguments)
    assert first.exit_code == 3, first.output
    assert "complete" not in first.output
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("*.j*")}
    assert len(written) == 2
    monkeypatch.setattr("inception_rcnn.detection.detector.Detector.__init__", None)  # no network is loaded
    again = run(*arguments)
    assert again.exit_code == 3, again.output
    assert "is complete: 2 pictures with these settings; --overwrite starts it again" in again.output
    assert again.output.endswith(first.output[first.output.index("written:") :])
    assert {file: file.stat().st_mtime_ns for file in written} == written
    (tmp_path / "out" / "detections.json").unlink()  # the results are still stored
    restored = run(*arguments)
    assert restored.exit_code == 3, restored.output
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 1


def test_a_finished_run_is_replaced_by_overwrite_only(odd_folder, model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    options = ("--out", tmp_path, "--model", model, "--device", "cpu", "--no-pictures")
    assert run(odd_folder / "plain.jpg", *options).exit_code == 0
    for arguments in ((odd_folder / "cmyk.jpg", *options), (odd_folder / "plain.jpg", *options, "--seed", 1)):
        refused = run(*arguments)
        assert refused.exit_code == 2
        assert "run.sqlite holds another run" in refused.output
        assert "--overwrite" in refused.output
        (image,) = json.loads((tmp_path / "detections.json").read_text())["images"]
        assert image["file_name"] == str(odd_folder / "plain.jpg")
    assert run(odd_folder / "cmyk.jpg", *options, "--overwrite").exit_code == 0
    (image,) = json.loads((tmp_path / "detections.json").read_text())["images"]
    assert image["file_name"] == str(odd_folder / "cmyk.jpg")
    assert run(odd_folder / "cmyk.jpg", *options, "--overwrite", "--resume").exit_code == 2


def test_overwrite_leaves_no_file_of_the_replaced_run_and_all_files_of_the_user(
    many, odd_folder, model, tmp_path, monkeypatch
):
    monkeypatch.setattr("inception_rcnn.detection.gallery.MOST_EMBEDDED", 0)
    options = ("--model", model, "--device", "cpu")

    def files(out) -> set[str]:
        return {str(file.relative_to(out)) for file in out.rglob("*") if not file.is_dir()}

    out = tmp_path / "out"
    assert run(many, *options, "--out", out, "--also", "csv,voc,yolo,ilsvrc").exit_code == 3
    assert {"pictures/0.jpg", "gallery_thumbnails/8.jpg", "voc/JPEGImages/0.png", "yolo/labels/0.txt"} <= files(out)
    mine = {"notes.txt", "pictures/mine.jpg", "voc/Annotations/mine.xml", "gallery_thumbnails/99.jpg"}
    for name in mine:
        (out / name).write_text("mine")
    (out / "yolo" / "labels" / "1.txt").write_text("0 0.5 0.5 0.25 0.25\n")  # corrected
    arguments = (odd_folder / "plain.jpg", odd_folder / "cmyk.jpg", *options, "--also", "voc")
    again = run(*arguments, "--out", out, "--overwrite")
    assert again.exit_code == 0, again.output
    assert "1 files of the replaced run stay" in " ".join(again.output.split())
    assert run(*arguments, "--out", tmp_path / "alone").exit_code == 0
    assert files(out) == files(tmp_path / "alone") | mine | {"yolo/labels/1.txt"}
    assert all((out / name).read_text() == "mine" for name in mine)
    assert run(odd_folder / "plain.jpg", *options, "--out", out, "--no-pictures", "--overwrite").exit_code == 0
    kept = {"detections.json", "index.html", "gallery_thumbnails/1.jpg", "run.sqlite", "yolo/labels/1.txt"}
    assert files(out) - {"run.sqlite.lock"} == kept | mine


def test_the_last_lines_say_what_was_written_and_why_files_failed(odd_run, odd_folder):
    result, out, document = odd_run
    lines = result.output.splitlines()
    last = lines[lines.index(f"written: {out / 'detections.json'}") :]
    assert last[1:4] == [
        f"written: {out / 'index.html'}", f"drawings: {out / 'pictures'}", "2 of 8 pictures could not be read:",
    ]  # fmt: skip
    assert sorted(last[4:]) == sorted(f"  {one['file_name']}: {one['reason']}" for one in document["failures"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not UTF-8")
def test_names_that_are_not_utf8_reach_detections_json(model, tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9 [b]"
    os.mkdir(folder)
    drawing(0).save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", folder + b"/\xff [red].png")
    with open(folder + b"/\xfe.png", "w") as file:
        file.write("no picture")
    result = run(os.fsdecode(folder), "--out", tmp_path / "out", "--model", model, "--device", "cpu")
    assert result.exit_code == 3, result.output
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [os.fsencode(image["file_name"]) for image in document["images"]] == [folder + b"/\xff [red].png"]
    assert [os.fsencode(failure["file_name"]) for failure in document["failures"]] == [folder + b"/\xfe.png"]
    assert os.listdir(os.fsencode(tmp_path / "out" / "pictures")) == [b"\xff [red].jpg"]


def test_a_web_page_of_the_user_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "index.html").write_text("my page")
    result = run("--demo", "--model", "nowhere", "--out", tmp_path)
    assert result.exit_code == 2
    assert "holds an index.html that no run of detect wrote" in result.output
    assert (tmp_path / "index.html").read_text() == "my page"


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_in_place_of_the_folder_is_refused_before_anything_is_loaded(below, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "file").write_text("text")
    result = run("--demo", "--model", "nowhere", "--out", tmp_path / "file" / below)
    assert result.exit_code == 2
    assert "--out" in result.output
    assert "is not a folder" in result.output
    assert (tmp_path / "file").read_text() == "text"


def test_class_names_are_printed_as_they_are_written(monkeypatch):
    stream = StringIO()
    monkeypatch.setattr(detect, "console", Console(file=stream, width=120, emoji=False))
    names = ("a/b [c]", "[/b]x", "[red] ball", ":dog:")
    detect._print_summary(detect.Counter(dict.fromkeys(names, 1)), 0.5, 1)
    assert all(name in stream.getvalue() for name in names)


def test_members_and_cascade_reach_the_detector(odd_folder, model, tmp_path):
    arguments = (odd_folder / "plain.jpg", "--out", tmp_path, "--model", model, "--device", "cpu", "--no-pictures")
    result = run(*arguments, "--cascade", "off", "--members", 1)
    assert result.exit_code == 0
    assert "the default engine for CPUs" in " ".join(result.output.split())
    refused = run(*arguments, "--members", 2, "--overwrite")
    assert refused.exit_code == 2
    assert "expected at most 1" in refused.output
