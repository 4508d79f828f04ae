"""Exports of Label Studio: shapes, names of pictures, and malformed files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.annotation import AnnotationError
from inception_rcnn.data.ilsvrc import LayoutError
from inception_rcnn.data.label_studio import is_label_studio_file, open_dataset

BOX = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["gnome"]}
RESULT = {"type": "rectanglelabels", "value": BOX, "original_width": 200, "original_height": 100, "image_rotation": 0}


def result(**value: Any) -> dict[str, Any]:
    return {**RESULT, "value": {**BOX, **value}}


def polygon(*points: Any) -> dict[str, Any]:
    return {**RESULT, "type": "polygonlabels", "value": {"points": list(points), "polygonlabels": ["gnome"]}}


def ellipse(rotation: float) -> dict[str, Any]:
    value = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": rotation, "ellipselabels": ["gnome"]}
    return {**RESULT, "type": "ellipselabels", "value": value}


def task(*results: Any, image: str = "a.jpg", **annotation: Any) -> dict[str, Any]:
    return {"data": {"image": image}, "annotations": [{"result": list(results), **annotation}]}


def write(folder: Path, *tasks: Any, pictures: tuple[str, ...] = ("a.jpg",)) -> Path:
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100)).save(folder / name)
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


@pytest.mark.parametrize(
    ("one", "box"),
    [
        (RESULT, [20, 20, 80, 60]),
        ({"type": "rectanglelabels", "value": BOX}, [20, 20, 80, 60]),  # without the size of the picture
        (result(x=-1e-14, width=100.00000001), [0, 20, 200, 60]),
        (result(rotation=90), [0, 20, 20, 80]),  # clockwise around the upper left corner; clipped to the picture
        (result(x=50, y=50, width=10, height=10, rotation=-90), [100, 30, 110, 50]),
        (result(x=50, y=50, width=10, height=20, rotation=45), [85.8579, 50, 114.1421, 78.2843]),
        (polygon([10, 20], [30, 5], [50, 90]), [20, 5, 100, 90]),
        (ellipse(0), [80, 40, 120, 60]),
        (ellipse(90), [90, 30, 110, 70]),
    ],
)
def test_shapes_count_by_their_bounding_boxes(tmp_path: Path, one: dict[str, Any], box: list[float]) -> None:
    (sample,) = open_dataset(write(tmp_path, task(one)))
    assert sample.boxes == pytest.approx(np.array([box]), abs=1e-3)
    assert sample.size == (200, 100)


def test_a_shape_with_two_labels_is_two_objects(tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path, task(result(rectanglelabels=["gnome", "cart"]))))
    assert [one.name for one in dataset.categories] == ["cart", "gnome"]
    assert dataset[0].labels.tolist() == [2, 1]
    assert dataset[0].boxes.tolist() == [[20, 20, 80, 60]] * 2


@pytest.mark.parametrize(
    ("image", "picture"),
    [
        ("a.jpg", "a.jpg"),
        ("/data/upload/12/1f2e3d4c-my%20photo.jpg", "images/1f2e3d4c-my photo.jpg"),
        ("/data/upload/12/1f2e3d4c-photo.jpg", "photo.jpg"),
        ("/data/upload/12/1f2e3d4c-photo.jpg", "upload/12/1f2e3d4c-photo.jpg"),
        ("/data/local-files/?d=north%2Fphoto.jpg", "north/photo.jpg"),
        ("https://example.com/tool/data/local-files/?d=home/me/photo.jpg", "images/photo.jpg"),
        ("https://example.com/p/photo.jpg?X-Signature=abc%2Fdef", "photo.jpg"),
        ("s3://bucket/north/photo.jpg", "north/photo.jpg"),
        ("C:\\pictures\\photo.jpg", "photo.jpg"),
        ("100% sure?.jpg", "100% sure?.jpg"),
    ],
)
def test_pictures_are_found_by_paths_urls_and_names_of_uploads(tmp_path: Path, image: str, picture: str) -> None:
    (sample,) = open_dataset(write(tmp_path, task(RESULT, image=image), pictures=(picture,)))
    assert sample.path == tmp_path / picture


def test_pictures_of_the_same_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    names = ("north/a.jpg", "south/a.jpg")
    tasks = [task(RESULT, image=f"/data/local-files/?d=x/{name}") for name in names]
    dataset = open_dataset(write(tmp_path, *tasks, pictures=names))
    assert [sample.path for sample in dataset] == [tmp_path / name for name in names]
    assert [sample.image_id for sample in dataset] == ["north/a", "south/a"]
    tasks = [task(RESULT, image=f"/data/upload/1/{name}") for name in ("a.jpg", "b/a.jpg")]
    with pytest.raises(LayoutError, match="tasks 1 and 2 have the same picture"):
        open_dataset(write(tmp_path, *tasks))


def test_the_picture_may_have_another_key(tmp_path: Path) -> None:
    one = {**task(RESULT), "data": {"title": "x", "photo": "a.jpg"}}
    assert len(open_dataset(write(tmp_path, one))) == 1
    two = {**one, "data": {"left": "a.jpg", "right": "a.jpg"}}
    with pytest.raises(AnnotationError, match="task 1: data: expected the name of one picture under 'image'"):
        open_dataset(write(tmp_path, two))


def test_tasks_that_were_not_annotated_are_left_out_and_the_ground_truth_counts(tmp_path: Path) -> None:
    several = task(result(rectanglelabels=["wrong"]))
    several["annotations"].append({"result": [RESULT], "ground_truth": True})
    tasks = [{**task(), "annotations": []}, task(RESULT, was_cancelled=True), several]
    file = write(tmp_path, *tasks)
    dataset = open_dataset(file)
    assert [one.name for one in dataset.categories] == ["gnome"]
    assert len(dataset) == 1
    del several["annotations"][1]["ground_truth"]
    with pytest.raises(AnnotationError, match=r"task 3: has 2 annotations.* mark one as ground truth"):
        open_dataset(write(tmp_path, *tasks))
    with pytest.raises(LayoutError, match="contains no annotated task"):
        open_dataset(write(tmp_path, *tasks[:2]))


@pytest.mark.parametrize(
    ("one", "problem"),
    [
        (result(x="10"), "x: expected a number, got '10'"),
        (result(x=None), "x: expected a number"),
        (result(y=True), "y: expected a number"),
        (result(x=350), "x: expected per cent of the picture, from 0 to 100, got 350"),
        (result(width=-5), "width: expected per cent"),
        (result(width=-0.5), "width, height: expected at least 0"),
        (result(height=float("nan")), "height: expected a finite number"),
        (result(rotation="90"), "rotation: expected a number"),
        (result(rectanglelabels=[]), "rectanglelabels: expected a list of labels"),
        (result(rectanglelabels="gnome"), "rectanglelabels: expected a list of labels"),
        (result(rectanglelabels=[5]), "rectanglelabels: expected a text"),
        (polygon([1, 2], [3, 4]), "points: expected a list of at least three points"),
        (polygon([1, 2], [3, 4], 5), "points: expected points of two numbers"),
        (polygon([1, 2], [3, 4], [5, 1000]), "points: expected per cent"),
        ({**RESULT, "value": None}, "value: expected an object"),
        ({**RESULT, "type": "brushlabels"}, "type: expected one of rectanglelabels, polygonlabels, ellipselabels"),
        ({**RESULT, "type": None}, "expected an object with a text 'type'"),
        ({**RESULT, "original_width": "200"}, "original_width: expected a whole number"),
        ({**RESULT, "original_height": None}, "original_height: expected a whole number"),
        ({**RESULT, "image_rotation": 90}, "image_rotation: expected 0"),
        (5, "expected an object with a text 'type'"),
    ],
)
def test_the_error_for_a_malformed_result_names_the_field(tmp_path: Path, one: Any, problem: str) -> None:
    file = write(tmp_path, task(one))
    with pytest.raises(AnnotationError, match=problem) as caught:
        open_dataset(file)
    assert str(caught.value).startswith(f"{file}: task 1, result 1: ")


@pytest.mark.parametrize(
    "content",
    ["[", "[5]", "[{}]", '[{"data": {}}]', '[{"data": 5, "annotations": []}]', '[{"image": "a.jpg"}]', "[" * 100_000],
)
def test_other_lists_are_errors(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    assert is_label_studio_file(tmp_path / "a.json")
    with pytest.raises((AnnotationError, LayoutError), match=r"a\.json"):
        open_dataset(tmp_path / "a.json")


def test_coco_files_are_not_taken_for_exports(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": []}')
    assert not is_label_studio_file(tmp_path / "a.json")


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, task(RESULT, image="/data/upload/1/0123abcd-a.jpg"), pictures=())
    with pytest.raises(LayoutError, match=r"task 1: its picture .* does not exist; expected 'a\.jpg' beside the file"):
        open_dataset(file)
