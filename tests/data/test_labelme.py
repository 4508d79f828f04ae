"""Data sets of labelme: shapes and malformed files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inception_rcnn.data.annotation import AnnotationError
from inception_rcnn.data.ilsvrc import LayoutError
from inception_rcnn.data.labelme import is_labelme_file, open_dataset


def write(folder: Path, **shape: object) -> Path:
    (folder / "a.jpg").touch()
    whole = {"label": "gnome", "points": [[10, 10], [50, 40]], "shape_type": "rectangle", **shape}
    content = {"shapes": [whole], "imagePath": "..\\images\\a.jpg", "imageHeight": 45, "imageWidth": 60}
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"points": [[50, 40], [10, 10]]}, [10, 10, 50, 40]),
        ({"points": [[10, 40], [50.5, 10.25]]}, [10, 10.25, 50.5, 40]),
        ({"shape_type": "polygon", "points": [[10, 20], [30, 5], [50, 44]]}, [10, 5, 50, 44]),
        ({"shape_type": "circle", "points": [[30, 20], [33, 24]]}, [25, 15, 35, 25]),
        ({"shape_type": "mask", "points": [[1, 2], [3, 4]], "mask": "iVBORw0KGgo="}, [1, 2, 3, 4]),
        ({"points": [[-5, -5], [70, 50]]}, [0, 0, 60, 45]),
    ],
)
def test_shapes_count_by_their_bounding_boxes(tmp_path: Path, shape: dict[str, object], box: list[float]) -> None:
    write(tmp_path, **shape)
    (sample,) = open_dataset(tmp_path)
    assert sample.boxes.tolist() == [box]
    assert sample.path == tmp_path / "a.jpg"


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"shape_type": "point", "points": [[1, 1]]}, "shape_type: expected one of rectangle, polygon"),
        ({"shape_type": ["polygon"]}, "shape_type"),
        ({"label": 5}, "label: expected a text"),
        ({"label": None}, "label: expected a text"),
        ({"points": [[1, 1]]}, "points: expected a list of at least 2 points"),
        ({"points": [[1, 1], [2]]}, "points: expected points of two numbers"),
        ({"points": [[1, 1], ["2", 3]]}, "points: expected a number"),
        ({"points": [[1, 1], [2, float("nan")]]}, "points: expected a finite number"),
        ({"points": [[1, 1], [2, 10**400]]}, "points: expected a finite number"),
        ({"points": None}, "points: expected a list"),
        ({"difficult": "no"}, "difficult: expected 0 or 1"),
    ],
)
def test_the_error_for_a_malformed_shape_names_the_field(
    tmp_path: Path, shape: dict[str, object], problem: str
) -> None:
    file = write(tmp_path, **shape)
    with pytest.raises(AnnotationError, match=problem) as caught:
        open_dataset(tmp_path)
    assert f"{file}: shape 1: " in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"shapes": 5}', '{"shapes": [5], "imagePath": "a.jpg"}'])
def test_other_files_are_errors(tmp_path: Path, content: str) -> None:
    file = write(tmp_path)
    file.write_text(content)
    with pytest.raises(AnnotationError, match=r"a\.json"):
        open_dataset(tmp_path)
    assert not is_labelme_file(file) or "[5]" in content


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(LayoutError, match=r"a\.json: its picture .* does not exist"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["a.jpg", "./a.jpg", "link.jpg"])
def test_two_files_that_name_the_same_picture_are_an_error_that_names_both(tmp_path: Path, name: str) -> None:
    file = write(tmp_path)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    content = json.loads(file.read_text())
    (tmp_path / "a copy.json").write_text(json.dumps({**content, "imagePath": name}))
    with pytest.raises(LayoutError, match=r"a copy\.json and a\.json annotate the same picture, .*a\.jpg"):
        open_dataset(tmp_path)
    (tmp_path / "link.jpg").unlink()
    (tmp_path / "link.jpg").touch()
    (tmp_path / "a copy.json").write_text(json.dumps({**content, "imagePath": "link.jpg"}))
    assert [sample.path.name for sample in open_dataset(tmp_path)] == ["link.jpg", "a.jpg"]
