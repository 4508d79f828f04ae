"""COCO files: detections are written and read, annotations are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from inception_rcnn.data.categories import Subclass, det_categories
from inception_rcnn.data.coco import (
    CocoError,
    DetectionsWriter,
    inclusive_from_xywh,
    open_dataset,
    read_detections,
    read_instances,
)
from inception_rcnn.data.picture_detections import PictureDetections


@pytest.fixture
def detections(tmp_path: Path) -> Path:
    """Detections in two pictures, the second without detections, and a picture that could not be read."""
    with DetectionsWriter(tmp_path / "detections.json", det_categories()) as writer:
        writer.add(
            PictureDetections(
                "photos/a.jpg",
                50,
                40,
                np.array([[1, 2, 11, 22], [0, 0, 50, 40]]),
                np.array([0.9, 0.1]),
                np.array([58, 1]),
            )
        )
        writer.add(PictureDetections("photos/ä.jpg", 50, 40, np.empty((0, 4)), np.empty(0), np.empty(0, int)))
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


def test_a_known_subclass_gives_the_finest_name(tmp_path: Path) -> None:
    finest = (Subclass("n02111889", "Samoyed", 58), Subclass("n02672831", "accordion", 1))
    with DetectionsWriter(tmp_path / "detections.json", det_categories(), finest) as writer:
        boxes, scores = np.tile([1, 2, 11, 22], (3, 1)), np.array([0.9, 0.5, 0.1])
        writer.add(PictureDetections("a.jpg", 50, 40, boxes, scores, np.array([58, 58, 1]), np.array([0, -1, 1])))
    annotations = json.loads((tmp_path / "detections.json").read_text())["annotations"]
    assert [one.get("finest_name") for one in annotations] == ["dog: Samoyed", None, "accordion"]
    assert [one.get("finest_wnid") for one in annotations] == ["n02111889", None, "n02672831"]
    assert read_detections(tmp_path / "detections.json").category_ids.tolist() == [58, 58, 1]


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
        ('{"annotations": [], "images": [], "categories": [{"id": -1, "name": "x"}]}', "expected at least 0"),
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


def change(file: Path, part: str, number: int, **fields: object) -> Path:
    """Changes fields of an entry of a COCO file."""
    content = json.loads(file.read_text())
    content[part][number].update(fields)
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        *[("annotations", "area", value) for value in ("x", "12", None, float("nan"), -5, {}, [1], 10**400, True)],
        *[("annotations", "iscrowd", value) for value in ("no", "0", 2, None, [])],
        *[("annotations", "bbox", value) for value in ([1, 2, -3, 4], [1] * 11, [], "1234", ["1", 2, 3, 4], None)],
        *[("annotations", "bbox", value) for value in ([True, 2, 3, 4], [1, 2, 1e300, 4], [1, 2, 10**400, 4])],
        *[("annotations", "image_id", value) for value in ("30", True, 10**400, 1e300, 30.5, None)],
        *[("annotations", "category_id", value) for value in ("3", True, None)],
        *[("images", "width", value) for value in (0, -5, float("nan"), float("inf"), 10**400, True, "640")],
        *[("images", "file_name", value) for value in (".", "/", 5, [1], None)],
        *[("images", "id", value) for value in (2**64, True, None)],
        *[("categories", "id", value) for value in (-1, "x", True, None)],
        *[("categories", "name", value) for value in (5, "", None, "z" * 300_000)],
    ],
)
def test_the_error_for_a_malformed_value_names_file_element_and_field(
    instances: Path, part: str, field: str, value: object
) -> None:
    change(instances, part, 1 if part == "annotations" else 0, height=10, **{field: value})
    for read in (lambda: read_instances(instances), lambda: open_dataset(instances, "pictures")):
        with pytest.raises(CocoError, match=field) as caught:
            read()
        assert str(instances) in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("part", ["score", "image_id", "category_id", "bbox"])
@pytest.mark.parametrize("value", ["1", True, None, [1, 2, 3, 4, 5], [], {}, float("inf"), 10**400])
def test_malformed_values_of_detections_are_errors_or_skipped(detections: Path, part: str, value: object) -> None:
    change(detections, "annotations", 1, **{part: value})
    with pytest.raises(CocoError, match=f"detection 2 of 2: .*{part}"):
        read_detections(detections)
    got = read_detections(detections, lenient=True)
    assert (got.scores.tolist(), got.skipped) == ([0.9], 1)


def test_boxes_of_other_lengths_do_not_become_other_boxes(tmp_path: Path) -> None:
    result = {"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4, 5], "score": 0.5}
    (tmp_path / "r.json").write_text(json.dumps([result] * 7))
    assert read_detections(tmp_path / "r.json", lenient=True).skipped == 7


@pytest.mark.parametrize("first_id", [2**53 + 1, 2**61 + 1, 2**63 - 2])
def test_large_image_ids_are_exact(tmp_path: Path, first_id: int) -> None:
    ids = [first_id, first_id + 1]
    results = [{"image_id": one, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5} for one in ids]
    (tmp_path / "r.json").write_text(json.dumps(results))
    assert read_detections(tmp_path / "r.json").image_ids.tolist() == ids


@pytest.mark.parametrize("write", [str, float])
def test_ids_may_be_text_or_float_in_the_whole_file(instances: Path, write: type) -> None:
    content = json.loads(instances.read_text())
    for image in content["images"]:
        image["id"] = write(image["id"])
    for annotation in content["annotations"]:
        annotation["image_id"] = write(annotation["image_id"])
    instances.write_text(json.dumps(content))
    assert read_instances(instances).images.tolist() == [30, 30]


def test_two_categories_of_one_name_are_an_error(instances: Path) -> None:
    change(instances, "categories", 0, name="car")
    with pytest.raises(CocoError, match=r"category 2 \('car'\): category 1 has the same name"):
        read_instances(instances)


@pytest.mark.parametrize("group", ["cars", "car"])
def test_a_category_that_only_groups_others_is_left_out(instances: Path, group: str) -> None:
    content = json.loads(instances.read_text())
    content["categories"].insert(0, {"id": 0, "name": group, "supercategory": "none"})
    content["categories"][2]["supercategory"] = group
    instances.write_text(json.dumps(content))
    assert [category.name for category in read_instances(instances).categories] == ["tooth brush", "car"]


def test_category_ids_may_begin_at_0_and_are_numbered_from_1_for_training(instances: Path) -> None:
    change(instances, "categories", 1, id=0)
    change(instances, "annotations", 0, category_id=0)
    assert read_instances(instances).labels.tolist() == [0, 90]
    dataset = open_dataset(instances, "pictures")
    assert [(category.id, category.name) for category in dataset.categories] == [(1, "tooth brush"), (2, "car")]
    assert dataset[0].labels.tolist() == [2, 1]


def test_boxes_without_area_are_noticed(instances: Path) -> None:
    change(instances, "annotations", 1, bbox=[1, 2, 0, 4])
    (notice,) = read_instances(instances).notices
    assert "instances.json: 1 annotations have a box without area" in notice
    assert "annotation 2 of 2" in notice


def test_backslashes_separate_folders_unless_the_file_has_them(instances: Path, tmp_path: Path) -> None:
    change(instances, "images", 0, file_name="sub\\a.jpg")
    truth = read_instances(instances, tmp_path)
    assert (truth.image_ids[0], truth.paths[30]) == ("sub/a", tmp_path / "sub" / "a.jpg")
    (tmp_path / "sub\\a.jpg").touch()
    assert read_instances(instances, tmp_path).paths[30].exists()


def test_only_picture_suffixes_are_left_out_of_image_ids(instances: Path) -> None:
    change(instances, "images", 0, file_name="frame.0001")
    change(instances, "images", 1, file_name="frame.0002.JPG")
    assert read_instances(instances).image_ids == ("frame.0001", "frame.0002")


def test_names_that_are_not_utf_8_are_written_and_read(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    with DetectionsWriter(tmp_path / "d.json", det_categories()) as writer:
        writer.add(PictureDetections(name, 50, 40, np.empty((0, 4)), np.empty(0), np.empty(0, int)))
        writer.fail(name, f"{name}: damaged")
    assert read_detections(tmp_path / "d.json").file_names == {1: name}


@pytest.mark.parametrize("failures", [5, None, {}])
def test_failures_are_a_list(detections: Path, failures: object) -> None:
    content = json.loads(detections.read_text())
    detections.write_text(json.dumps({**content, "failures": failures}))
    with pytest.raises(CocoError, match="expected a list 'failures'"):
        read_detections(detections)
