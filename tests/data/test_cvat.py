"""Exports "CVAT for images": shapes, subsets and malformed files."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_rcnn.data.annotation import AnnotationError
from inception_rcnn.data.cvat import open_dataset
from inception_rcnn.data.ilsvrc import LayoutError, MissingSplitError

BOX = '<box label="gnome" xtl="10" ytl="10" xbr="50" ybr="40"/>'


def write(folder: Path, shapes: str = BOX, attributes: str = 'width="60" height="45"', more: str = "") -> Path:
    (folder / "a.jpg").touch()
    file = folder / "annotations.xml"
    file.write_text(f'<annotations><image id="0" name="a.jpg" {attributes}>{shapes}</image>{more}</annotations>')
    return file


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        (BOX, [10, 10, 50, 40]),
        ('<ellipse label="x" cx="20" cy="20" rx="5" ry="2.5"/>', [15, 17.5, 25, 22.5]),
        ('<polygon label="x" points="10,20;30.5,5;50,44"/>', [10, 5, 50, 44]),
        ('<ellipse label="x" cx="20" cy="20" rx="5" ry="2.5" rotation="90"/>', [17.5, 15, 22.5, 25]),
        ('<ellipse label="x" cx="20" cy="20" rx="5" ry="5" rotation="30"/>', [15, 15, 25, 25]),
        ('<mask label="x" rle="1, 2" left="1" top="2" width="3" height="4"/>', [1, 2, 4, 6]),
        ('<box label="x" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90.0"/>', [18, 12, 22, 32]),
    ],
)
def test_shapes_count_by_their_bounding_boxes(tmp_path: Path, shape: str, box: list[float]) -> None:
    (sample,) = open_dataset(write(tmp_path, shape))
    assert sample.boxes[0] == pytest.approx(box, abs=1e-5)
    assert (sample.size, sample.path) == ((60, 45), tmp_path / "a.jpg")


@pytest.mark.parametrize("place", ["images", "images/Train", "images/in/deep", "."])
def test_pictures_are_in_images_in_the_folder_of_their_subset_or_beside_the_file(tmp_path: Path, place: str) -> None:
    file = write(tmp_path, attributes='width="60" height="45" subset="Train"')
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "a.jpg").rename(tmp_path / place / "a.jpg")
    if place == "images/in/deep":
        file.write_text(file.read_text().replace('name="a.jpg"', 'name="in\\deep\\a.jpg"'))
    assert [sample.path for sample in open_dataset(file)] == [tmp_path / place / "a.jpg"]


def test_subsets_are_splits(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").touch()
    more = '<image id="1" name="b.jpg" width="60" height="45" subset="Validation"/>'
    file = write(tmp_path, attributes='width="60" height="45" subset="Train"', more=more)
    assert [sample.image_id for sample in open_dataset(file)] == ["a"]
    assert [sample.image_id for sample in open_dataset(file, "val")] == ["b"]
    assert [sample.image_id for sample in open_dataset(file, default_splits=("test",))] == ["a", "b"]
    with pytest.raises(MissingSplitError, match="has no subset 'test'; existing subsets: Train, Validation"):
        open_dataset(file, "test")


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ('<points label="x" points="1,2"/>', "points 1: cannot be used: it has no area"),
        ('<cloud label="x"/>', "cloud 1: cannot be used: expected box or polygon"),
        ('<box xtl="10" ytl="10" xbr="50" ybr="40"/>', "label: expected a text"),
        (f'<box label="{"z" * 300_000}" xtl="1" ytl="1" xbr="5" ybr="4"/>', "label: expected a text"),
        ('<box label="x" ytl="10" xbr="50" ybr="40"/>', "xtl: expected a number of pixels, got ''"),
        ('<box label="x" xtl="nan" ytl="10" xbr="50" ybr="40"/>', "xtl: expected a number"),
        ('<box label="x" xtl="1e300" ytl="10" xbr="50" ybr="40"/>', "xtl: expected a number"),
        ('<box label="x" xtl="50" ytl="10" xbr="10" ybr="40"/>', "expected a box with a size"),
        ('<box label="x" xtl="50" ytl="10" xbr="10" ybr="400" rotation="60"/>', "expected a box with a size"),
        ('<ellipse label="x" cx="20" cy="20" rx="-5" ry="2" rotation="60"/>', "expected a box with a size"),
        ('<polygon label="x" points="1,2;3,4"/>', "points: expected at least three points"),
        ('<polygon label="x" points="1,2;3,4;5,z"/>', "points: expected a number"),
    ],
)
def test_the_error_for_a_malformed_shape_names_picture_and_field(tmp_path: Path, shape: str, problem: str) -> None:
    file = write(tmp_path, shape)
    with pytest.raises(AnnotationError, match=problem) as caught:
        open_dataset(file)
    assert f"{file}: image 1 ('a.jpg')" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("<annotations><image", "not well-formed"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "entities are not allowed"),
        ('<annotations><track id="0"/></annotations>', "an export of a video"),
        ('<annotations><image name="a.jpg" width="0" height="9"/></annotations>', "expected a whole width"),
        ('<annotations><image name="" width="9" height="9"/></annotations>', "name: expected the name of a file"),
    ],
)
def test_the_error_for_a_malformed_file_names_it(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "annotations.xml").write_text(content)
    with pytest.raises(AnnotationError, match=problem) as caught:
        open_dataset(tmp_path / "annotations.xml")
    assert str(tmp_path / "annotations.xml") in str(caught.value)


def test_a_missing_picture_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(LayoutError, match=r"the picture 'a\.jpg' does not exist"):
        open_dataset(file)


def test_a_picture_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, more=f'<image id="1" name="a.jpg" width="60" height="45">{BOX}</image>')
    with pytest.raises(LayoutError, match=r"the images 1 and 2 are the same picture, .*a\.jpg"):
        open_dataset(file)
