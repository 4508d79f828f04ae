"""COCO files: detections are written and read, annotations are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from inception_rcnn.data.categories import det_categories
from inception_rcnn.data.coco import (
    CocoError,
    DetectionsWriter,
    inclusive_from_xywh,
    open_dataset,
    read_detections,
    read_instances,
)


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    """Detections in two pictures, the second without detections, and a picture that could not be read."""
    with DetectionsWriter(tmp_path / "detections.json", det_categories()) as writer:
        writer.add("photos/a.jpg", 50, 40, np.array([[1, 2, 11, 22], [0, 0, 50, 40]]), np.array([0.9, 0.1]), [58, 1])
        writer.add("photos/ä.jpg", 50, 40, np.empty((0, 4)), np.empty(0), np.empty(0, int))
        writer.fail("photos/c.jpg", "truncated")
    return tmp_path / "detections.json"


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    file = tmp_path / "instances.json"
    content = {
        "images": [{"id": 30, "file_name": "sub/a.jpg"}, {"id": 0, "file_name": "b.jpg"}],
        "categories": [{"id": 90, "name": "tooth brush"}, {"id": 3, "name": "car"}],
        "annotations": [
            {"id": 5, "image_id": 30, "category_id": 3, "bbox": [10.5, 20, 30, 40.25], "area": 700, "iscrowd": 0},
            {"id": 6, "image_id": 30, "category_id": 90, "bbox": [0, 0, 5, 5], "iscrowd": 1},
        ],
    }
    file.write_text(json.dumps(content))
    return file


def test_written_detections_are_read(detections: Path) -> None:
    got = read_detections(detections)
    assert got.file_names == {1: "photos/a.jpg", 2: "photos/ä.jpg"}
    assert got.categories == det_categories()
    assert got.image_ids.tolist() == [1, 1]
    assert got.category_ids.tolist() == [58, 1]
    assert got.scores.tolist() == [0.9, 0.1]
    assert got.xywh.tolist() == [[1, 2, 10, 20], [0, 0, 50, 40]]
    assert (got.failures, got.skipped) == (1, 0)


def test_an_exception_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    file.write_text("old")

    def interrupted() -> None:
        with DetectionsWriter(file, det_categories()) as writer:
            writer.fail("a.jpg", "truncated")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        interrupted()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("detections.json", "old")]


def test_pycocotools_opens_written_detections(detections: Path) -> None:
    coco = COCO(str(detections))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=1))
    assert [annotation["bbox"] for annotation in annotations] == [[1, 2, 10, 20], [0, 0, 50, 40]]


def test_a_list_of_results_has_no_file_names_and_classes(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('[{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    got = read_detections(tmp_path / "r.json")
    assert (got.file_names, got.categories, got.image_ids.tolist()) == (None, None, [7])


@pytest.mark.parametrize(
    "broken",
    [
        {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3], "score": 0.5},
        {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]},
        {"image_id": 1.5, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 1, "category_id": "dog", "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": float("nan")},
        [],
    ],
)
def test_malformed_detections_are_errors_or_skipped(tmp_path: Path, broken: object) -> None:
    good = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}
    (tmp_path / "r.json").write_text(json.dumps([good, broken, good]))
    with pytest.raises(CocoError, match="detection 2 of 3: expected whole numbers image_id"):
        read_detections(tmp_path / "r.json")
    got = read_detections(tmp_path / "r.json", lenient=True)
    assert (len(got.scores), got.skipped) == (2, 1)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not JSON"),
        ("{}", "expected a list 'annotations'"),
        ('{"annotations": [], "images": [{"id": "a", "file_name": "b"}]}', "image 1: expected an id"),
        ('{"annotations": [], "images": [{"id": 1, "file_name": ""}]}', "image 1: expected"),
        (
            '{"annotations": [], "images": [{"id": 1, "file_name": "b"}, {"id": 1, "file_name": "c"}]}',
            "image 2: 'b' has the same id, 1",
        ),
        ('{"annotations": [], "images": [], "categories": [{"id": 0, "name": "x"}]}', "0 is the background"),
        ('{"annotations": [], "images": [], "categories": [{"id": 1}]}', "category 1: expected"),
    ],
)
def test_the_error_for_a_malformed_file_names_the_element(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "d.json").write_text(content)
    with pytest.raises(CocoError, match=problem):
        read_detections(tmp_path / "d.json")


def test_the_error_for_a_missing_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CocoError, match=r"none\.json: cannot read"):
        read_instances(tmp_path / "none.json")


def test_an_annotation_file_is_read_as_ground_truth(instances: Path) -> None:
    truth = read_instances(instances, "pictures")
    assert truth.image_ids == ("sub/a", "b")
    assert truth.image_indices.tolist() == [30, 0]
    assert truth.images.tolist() == [30, 30]
    assert truth.labels.tolist() == [3, 90]
    assert truth.inclusive.tolist() == [[11.5, 21, 40.5, 60.25], [1, 1, 5, 5]]
    assert truth.areas.tolist() == [700, 25]
    assert truth.crowd.tolist() == [False, True]
    assert truth.paths[30] == Path("pictures/sub/a.jpg")


def test_an_annotation_file_is_opened_as_a_data_set(instances: Path) -> None:
    dataset = open_dataset(instances, "pictures")
    assert [sample.image_id for sample in dataset] == ["sub/a", "b"]
    assert dataset[0].boxes.tolist() == [[10.5, 20, 40.5, 60.25], [0, 0, 5, 5]]
    assert dataset[0].difficult.tolist() == [False, True]
    assert dataset[1].boxes.shape == (0, 4)


def test_boxes_of_a_dataset_are_clipped_to_pictures_whose_size_is_known(instances: Path) -> None:
    content = json.loads(instances.read_text())
    content["images"][0].update(width=40, height=50)
    instances.write_text(json.dumps(content))
    sample = open_dataset(instances, "pictures")[0]
    assert sample.boxes.tolist() == [[10.5, 20, 40, 50], [0, 0, 5, 5]]
    assert sample.outside is not None
    assert sample.outside.tolist() == [True, False]


def test_the_error_for_a_malformed_annotation_names_its_number(instances: Path) -> None:
    instances.write_text(instances.read_text().replace("[0, 0, 5, 5]", "[0, 0, 5]"))
    with pytest.raises(CocoError, match="annotation 2 of 2: expected"):
        read_instances(instances)


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("image_id", "annotation 2 of 2: its image_id is 77, but the file contains no image with this id"),
        ("category_id", "annotation 2 of 2: its category_id is 77, but the file contains no category with this id"),
    ],
)
def test_the_error_for_an_unknown_image_or_category_names_the_annotation(
    instances: Path, field: str, problem: str
) -> None:
    content = json.loads(instances.read_text())
    content["annotations"][1][field] = 77
    instances.write_text(json.dumps(content))
    with pytest.raises(CocoError, match=problem):
        open_dataset(instances, "pictures")


def test_inclusive_boxes_have_the_width_of_coco_boxes() -> None:
    xmin, ymin, xmax, ymax = inclusive_from_xywh(np.array([[10.0, 20, 30, 40]]))[0]
    assert (xmin, ymin, xmax - xmin + 1, ymax - ymin + 1) == (11, 21, 30, 40)
