"""Detections are read from COCO and submission files with the ids of the ground truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.categories import Category, det_categories
from inception_rcnn.data.coco import DetectionsWriter
from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.picture_detections import PictureDetections
from inception_rcnn.data.predictions import (
    PredictionsError,
    missing_pictures,
    predicted_pictures,
    read_predictions,
)
from inception_rcnn.data.submission import SubmissionError


def truth(image_ids: list[str], **more) -> GroundTruth:
    numbers = range(11, 11 + len(image_ids))
    return GroundTruth.from_arrays(numbers, [11], [1], [[1, 1, 5, 5]], image_ids=image_ids, name="val", **more)


def write(folder: Path, names: list[str], categories: tuple[Category, ...] = det_categories()) -> Path:
    """Writes a detection of the last class in each picture."""
    file = folder / "detections.json"
    with DetectionsWriter(file, categories) as writer:
        for number, name in enumerate(names):
            box = np.array([[number, 0, number + 10, 20]])
            writer.add(PictureDetections(name, 50, 40, box, np.array([0.5]), np.array([categories[-1].id])))
    return file


def test_pictures_are_matched_by_file_name(tmp_path: Path) -> None:
    file = write(tmp_path, ["/photos/b.jpg", "C:\\photos\\a.JPEG"])
    got, notices = read_predictions(file, truth(["a", "b"]))
    assert got.image_indices.tolist() == [12, 11]
    assert got.labels.tolist() == [200, 200]
    assert got.inclusive.tolist() == [[1, 1, 10, 20], [2, 1, 11, 20]]
    assert notices == []


def test_image_ids_with_folders_are_matched_with_the_folders_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, ["/data/n1/x.jpg", "/data/n2/x.jpg", "/data/n2/y.jpg"])
    got, _ = read_predictions(file, truth(["n1/x", "n2/x", "y"]))
    assert got.image_indices.tolist() == [11, 12, 13]


def test_two_file_names_of_the_same_picture_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"'one/a.jpg' and 'two/a.jpg' both match picture 11"):
        read_predictions(write(tmp_path, ["one/a.jpg", "two/a.jpg"]), truth(["a"]))


@pytest.mark.parametrize("order", [1, -1])
def test_a_file_of_exactly_the_name_comes_before_files_of_the_same_stem(tmp_path: Path, order: int) -> None:
    names = ["a.jpg", "a.png", "frame.0001", "frame.0002", "sub/a.jpg", "b.tif"]
    ids = ["a", "a", "frame.0001", "frame.0002", "sub/a", "b"]
    numbers = dict(
        zip(["a.jpg", "a.png", "frame.0001", "frame.0002", "sub/a.jpg", "b.JPG"], range(11, 17), strict=True)
    )
    file = write(tmp_path, [f"/photos/{name}" for name in list(numbers)[::order]])
    got, _ = read_predictions(file, truth(ids, file_names=names))
    assert got.image_indices.tolist() == list(numbers.values())[::order]


def test_the_paths_of_pictures_tell_files_of_one_stem_apart(tmp_path: Path) -> None:
    file = write(tmp_path, ["a.png", "a.jpg"])
    got, notices = read_predictions(file, truth(["a"], paths={11: Path("x/a.jpg")}), lenient=True)
    assert got.inclusive.tolist() == [[2, 1, 11, 20]]
    assert notices == ["1 of 2 pictures are not in val; they are ignored"]


def test_a_file_name_that_matches_two_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"'a.bmp' matches the pictures 11 and 12 of val"):
        read_predictions(write(tmp_path, ["a.bmp"]), truth(["a", "a"], file_names=["a.jpg", "a.png"]))


def test_a_class_id_of_0_in_the_ground_truth_is_matched(tmp_path: Path) -> None:
    zero = GroundTruth.from_arrays([1], [1], [0], [[1, 1, 5, 5]], image_ids=["a"], categories=[Category(0, "x", "x")])
    got, _ = read_predictions(write(tmp_path, ["a.jpg"], (Category(1, "x", "x"),)), zero)
    assert got.labels.tolist() == [0]


def test_unlisted_pictures_are_an_error_or_ignored(tmp_path: Path) -> None:
    file = write(tmp_path, ["a.jpg", "z.jpg"])
    with pytest.raises(PredictionsError, match=r"1 of 2 pictures are not in val, the first is 'z.jpg'.*--lenient"):
        read_predictions(file, truth(["a"]))
    got, notices = read_predictions(file, truth(["a"]), lenient=True)
    assert got.image_indices.tolist() == [11]
    assert notices == ["1 of 2 pictures are not in val; they are ignored"]


def test_pictures_that_were_not_looked_at_are_counted_and_named_if_they_are_most(tmp_path: Path) -> None:
    file, ids = write(tmp_path, ["a.jpg"]), ["a", "b", "c"]
    sentence = "{} of {} pictures of the list are not in the predictions; their objects count as missed"
    for count, expected in (
        (1, None),
        (2, (sentence.format(1, 2), False)),
        (3, (sentence.format(2, 3) + ". --only-predicted measures the other 1", True)),
    ):
        listed = truth(ids[:count])
        detections, notices = read_predictions(file, listed)
        assert notices == []
        assert predicted_pictures(detections).tolist() == listed.image_indices[:1].tolist()
        assert missing_pictures(detections, listed) == expected


def test_a_submission_names_only_the_pictures_with_detections(tmp_path: Path) -> None:
    listed = truth(["a", "b", "c"])
    first, second, _ = listed.image_indices.tolist()
    (tmp_path / "p.txt").write_text(f"{second} 1 0.9 1 1 9 9\n{first} 1 0.8 1 1 9 9\n{first} 1 0.7 1 1 9 9\n")
    detections, _ = read_predictions(tmp_path / "p.txt", listed)
    assert predicted_pictures(detections).tolist() == [first, second]
    assert missing_pictures(detections, listed) is None  # the third picture may have been empty


def test_classes_are_matched_by_wnid_then_by_name(tmp_path: Path) -> None:
    categories = (Category(1, "n02084071", "hound"), Category(2, "x", "zebra"), Category(3, "y", "unicorn"))
    for count, label in ((1, 58), (2, 200)):
        got, _ = read_predictions(write(tmp_path, ["a.jpg"], categories[:count]), truth(["a"]))
        assert got.labels.tolist() == [label]
    got, notices = read_predictions(write(tmp_path, ["a.jpg"], categories), truth(["a"]))
    assert len(got) == 0
    assert notices == ["1 detections of classes that are not in val are ignored: unicorn"]


def test_files_with_another_suffix_are_read_as_submission_files(tmp_path: Path) -> None:
    file = tmp_path / "predictions.txt"
    file.write_text("11 1 0.5 1 2 3 4\n11 1 0.5 1 2 3\n")
    with pytest.raises(SubmissionError, match="line 2: expected seven"):
        read_predictions(file, truth(["a"]))
    got, _ = read_predictions(file, truth(["a"]), lenient=True)
    assert (len(got), got.skipped) == (1, 1)
