"""The result files of a run, from results that are made by hand."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import typer
from PIL import Image

from inception_rcnn.data import layouts
from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.data.submission import read_submission
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.run_state import Result, RunState
from inception_rcnn.tools.result_files import Also, ResultFiles, parse_also, users_pictures

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))
FINEST = (Subclass("n02111889", "Samoyed", 58),)
BOXES = np.array([[5.25, 5, 40, 50], [50, 10, 80.75, 40]], np.float32)
FOUND = Detections(BOXES, np.array([0.9, 0.4], np.float32), np.array([58, 7]), subclasses=np.array([0, -1]))


def write(tmp_path, also: str, shown_score: float = 0.3, keep: bool = False):
    """Writes the results of a picture with two detections and of a file that is no picture."""
    paths = [tmp_path / "a.png", tmp_path / "text.png"]
    Image.new("RGB", (90, 60)).save(paths[0])
    files = ResultFiles(
        tmp_path / "out", parse_also(also), parquet=False, gallery=False, shown_score=shown_score, keep=keep
    )
    state = RunState(
        tmp_path / "run.sqlite", {}, ["a", "b"], existing="overwrite", categories=CATEGORIES, finest=FINEST
    )
    with state:
        state.add(Result(0, 90, 60, FOUND, None))
        state.add(Result(1, 0, 0, None, "no picture"))
        return files, files.write(paths, [12, 13], state, CATEGORIES, FINEST)


def test_all_formats_hold_the_detections(tmp_path):
    files, (found, failures, notices) = write(tmp_path, "csv,voc,yolo,ilsvrc")
    assert all(file.is_file() for file in files.files())
    names = ["detections.json", "detections.csv", "classes.txt", "data.yaml", "submission.txt"]
    assert [file.name for file in files.files()] == names
    assert (found, [one.failure for one in failures], notices) == ({58: 1, 7: 1}, ["no picture"], [])
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [one.get("finest_name") for one in document["annotations"]] == ["dog: Samoyed", None]
    with (tmp_path / "out" / "detections.csv").open(newline="") as stream:
        assert [row["finest_name"] for row in csv.DictReader(stream)] == ["dog: Samoyed", "domestic cat"]
    submission = read_submission(tmp_path / "out" / "submission.txt")
    assert (submission.image_indices.tolist(), submission.labels.tolist()) == ([12, 12], [58, 7])
    np.testing.assert_array_equal(submission.boxes, BOXES)
    for folder in ("voc", "yolo"):
        dataset = layouts.open_dataset(tmp_path / "out" / folder)
        assert len(dataset) == 1
        by_id = {category.id: category.name for category in dataset.categories}
        assert [by_id[label] for label in dataset[0].labels.tolist()] == ["dog", "domestic cat"]
        assert np.abs(dataset[0].boxes - BOXES).max() <= 0.5


def test_files_of_another_run_or_from_another_score_count_as_missing(tmp_path):
    paths, out = [tmp_path / "a.png"], tmp_path / "out"
    Image.new("RGB", (90, 60)).save(paths[0])

    def of(also: str, shown_score: float) -> ResultFiles:
        return ResultFiles(out, parse_also(also), parquet=False, gallery=False, shown_score=shown_score, keep=True)

    for seed in (0, 1):  # the second run replaces the first
        settings = {"seed": seed}
        with RunState(out / "run.sqlite", settings, paths, existing="overwrite", categories=CATEGORIES) as state:
            assert not of("", 0.3).are_written(state)
            state.add(Result(0, 90, 60, replace(FOUND, subclasses=None), None))
            files = of("csv" if seed == 0 else "", 0.3)
            files.write(paths, [1], state, CATEGORIES, ())
            state.finish(files.outputs())
            assert files.are_written(state)
            assert not of("", 0.5).are_written(state)
            assert of("csv", 0.3).are_written(state) == (seed == 0)
    (out / "detections.json").unlink()
    with RunState(out / "run.sqlite", settings, paths, existing="resume", categories=CATEGORIES) as state:
        assert not files.are_written(state)


def test_labelling_programs_get_the_detections_that_are_shown(tmp_path):
    _, (found, *_) = write(tmp_path, "voc,csv", shown_score=0.5)
    assert found == {58: 1}
    assert len(layouts.open_dataset(tmp_path / "out" / "voc")[0].boxes) == 1
    assert len((tmp_path / "out" / "detections.csv").read_text().splitlines()) == 3


def test_corrected_annotations_are_kept_with_a_notice(tmp_path):
    write(tmp_path, "yolo")
    label = tmp_path / "out" / "yolo" / "labels" / "a.txt"
    label.write_text("1 0.5 0.5 0.1 0.1\n")
    _, (*_, notices) = write(tmp_path, "yolo", keep=True)
    assert label.read_text() == "1 0.5 0.5 0.1 0.1\n"
    assert len(notices) == 1
    assert notices[0].startswith("1 annotation files in ")
    _, (*_, notices) = write(tmp_path, "yolo")
    assert (notices, len(label.read_text().splitlines())) == ([], 2)


def test_formats_are_separated_by_commas():
    assert parse_also(None) == parse_also("") == frozenset()
    assert parse_also(" VOC, csv,") == {Also.voc, Also.csv}
    with pytest.raises(typer.BadParameter, match="unknown format 'coco': expected csv, voc, yolo, ilsvrc"):
        parse_also("csv,coco")


def test_files_of_an_earlier_run_are_no_pictures_of_the_user(tmp_path):
    out = tmp_path / "found"
    for name in ("pictures", "gallery_thumbnails", "voc/JPEGImages"):
        (out / name).mkdir(parents=True)
    (out / "run.sqlite").touch()
    paths = [tmp_path / "a.jpg", out / "b.jpg", "https://a/pictures/c.jpg"]
    made = [out / "pictures" / "a.jpg", out / "gallery_thumbnails" / "1.jpg", out / "voc" / "JPEGImages" / "a.jpg"]
    assert users_pictures([*paths, *made], [str(tmp_path)], out, ["pictures"]) == paths
    with pytest.raises(typer.BadParameter, match="earlier run"):
        users_pictures(made, [str(out)], out, ["pictures"])


def test_pictures_that_the_run_could_overwrite_are_refused(tmp_path):
    picture = tmp_path / "pictures" / "a.jpg"
    picture.parent.mkdir()
    (tmp_path / "link").symlink_to(picture.parent)
    for path in (picture, tmp_path / "link" / "a.jpg"):
        for name in (path, path.parent, tmp_path):
            with pytest.raises(typer.BadParameter, match="could overwrite your picture"):
                users_pictures([path], [str(name)], tmp_path, ["pictures", "gallery_thumbnails"])
    assert users_pictures([picture], [str(picture.parent)], tmp_path, ["gallery_thumbnails"]) == [picture]
    assert users_pictures([picture], [str(picture.parent)], tmp_path / "found", ["pictures"]) == [picture]
    (tmp_path / "run.sqlite").touch()
    with pytest.raises(typer.BadParameter, match="could overwrite your picture"):
        users_pictures([picture], [str(picture.parent)], tmp_path, ["pictures"])
