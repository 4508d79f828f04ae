"""Data sets in the YOLO layout: malformed descriptions and text files. `test_layouts` tests the forms of the layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from inception_rcnn.data.annotation import AnnotationError
from inception_rcnn.data.ilsvrc import LayoutError, MissingSplitError
from inception_rcnn.data.yolo import open_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "a.png")
    (tmp_path / "labels" / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [no, 1]\n")
    return tmp_path


def test_names_are_text_and_classes_are_numbered_from_1(root: Path) -> None:
    dataset = open_dataset(root, "train")
    assert [(category.id, category.name) for category in dataset.categories] == [(1, "no"), (2, "1")]
    (sample,) = dataset
    assert sample.labels.tolist() == [2]
    assert sample.boxes[0] == pytest.approx([80, 30, 120, 70])


@pytest.mark.parametrize(
    ("line", "box"),
    [
        ("0.0 .5 5e-1 1.000 1", [0, 0, 200, 100]),
        ("0\t0.5\t0.5\t0.2\t0.4\r", [80, 30, 120, 70]),
        ("0 0.1 0.2 0.3 0.9 0.2 0.5", [20, 20, 60, 90]),  # a triangle
        ("0 0.1 0.2 0.3 0.2 0.3 0.4 0.1 0.4", [20, 20, 60, 40]),  # a turned box has four corners
        ("0 1.0 1.0 0.2 0.2", [180, 90, 200, 100]),  # clipped to the picture
        ("0 0.5 0.5 0 0.4", [100, 30, 100, 70]),
    ],
)
def test_boxes_and_polygons_are_read(root: Path, line: str, box: list[float]) -> None:
    (root / "labels" / "a.txt").write_bytes(f"{line}\n".encode())
    assert open_dataset(root, "train")[0].boxes[0] == pytest.approx(box, abs=1e-4)


def test_key_points_are_no_polygon(root: Path) -> None:
    (root / "data.yaml").write_text("train: images\nnames: [a]\nkpt_shape: [2, 3]\n")
    (root / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.4 0.1 0.1 2 0.9 0.9 2\n")
    assert open_dataset(root, "train")[0].boxes[0] == pytest.approx([80, 30, 120, 70])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 0.5 0.5 0.2 0.4", "line 2: the class is '2'; .* names the classes 0 to 1"),
        ("-1 0.5 0.5 0.2 0.4", "the class is"),
        ("0.5 0.5 0.5 0.2 0.4", "the class is"),
        ("dog 0.5 0.5 0.2 0.4", "the class is"),
        (f"{'9' * 5000} 0.5 0.5 0.2 0.4", "the class is"),
        ("0 0.5 0.5 0.2", "expected class x y width height, .* got 4 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.9", "got 6 numbers"),
        ("0", "got 1 numbers"),
        ("0 100 50 20 40", "expected fractions of the picture from 0 to 1, got '100'"),
        ("0 nan 0.5 0.2 0.4", "expected fractions"),
        ("0 0.5 0.5 0.2 1e999", "expected fractions"),
        ("0 0.5 0.5 -0.005 0.4", "expected a width and a height of at least 0"),
        ("0 0,5 0,5 0,2 0,4", "expected fractions"),
        ("0 \u0660 0.5 0.2 0.4", "expected fractions"),
        ("0 0.5 0.5 0.2 1_0", "expected fractions"),
    ],
)
def test_the_error_for_a_malformed_line_names_it(root: Path, line: str, problem: str) -> None:
    (root / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.2 0.4\n{line}\n", encoding="utf-8")
    with pytest.raises(AnnotationError, match=problem) as caught:
        open_dataset(root, "train")[0]
    assert f"{root / 'labels' / 'a.txt'}, line 2: " in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("yaml", "problem"),
    [
        ("names: [a, a]\ntrain: images", "the classes 0 and 1 have the name 'a'"),
        ("names: []\ntrain: images", "names no classes"),
        ("names: a\ntrain: images", "names: expected a list of class names"),
        ("names: {a: 0}\ntrain: images", "names: expected a list of class names"),
        ("names: [[a]]\ntrain: images", "the name of class 0: expected a text"),
        ("names: [a]\nnc: 3\ntrain: images", "nc is '3', but there are 1 names"),
        ("names: [a]\ntrain: {a: 1}", "train: expected folders or lists"),
        ("names: [a]\ntrain: nowhere", "'nowhere' does not exist"),
        ("names: [a]\ntrain: [", "not YAML"),
        ("names: [a]\ntrain: labels", "train: no pictures found"),
        ("names: [a]\nkpt_shape: 3\ntrain: images", "kpt_shape: expected two numbers"),
        ("names: [a]\nkpt_shape: [\u00b2, 3]\ntrain: images", "kpt_shape: expected two numbers"),
        ("names: {\u00b2: a}\ntrain: images", "names: expected a list of class names"),
        ("names: {0: a, 00: b}\ntrain: images", "names: expected a list of class names"),
        ("names: {0: a, 0: b}\ntrain: images", "'0' occurs twice .* line 1, column 15"),
        ("names: [a]\ntrain: images\nnames: [b]", "'names' occurs twice .* line 3, column 1"),
        (f"names: [a]\ntrain: {'z' * 5000}", "train: 'zzz.*' does not exist"),
        (f"names: [a]\ntrain: {'z/' * 300_000}", "train: 'z/z/.*' does not exist"),
        (f"names: [a]\npath: {'z' * 5000}\ntrain: nowhere", "'nowhere' does not exist"),
        ("names: " + "[" * 5000, "not YAML"),
    ],
)
def test_the_error_for_a_malformed_description_names_the_key(root: Path, yaml: str, problem: str) -> None:
    (root / "data.yaml").write_text(yaml, encoding="utf-8")
    with pytest.raises(LayoutError, match=problem) as caught:
        open_dataset(root, "train")
    assert "data.yaml" in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "folder", ["/home/x/set/part/images", "C:\\set\\part\\images", "../part/images", "part/images"]
)
def test_paths_of_other_machines_mean_folders_beside_the_description(root: Path, folder: str) -> None:
    (root / "images").rename(root / "part_images")
    (root / "part").mkdir()
    (root / "part_images").rename(root / "part" / "images")
    (root / "labels").rename(root / "part" / "labels")
    (root / "data.yaml").write_text(f"path: /home/x/set\ntrain: {folder}\nnames: [no, 1]\n")
    assert open_dataset(root, "train")[0].labels.tolist() == [2]
    (root / "data.yaml").write_text("train: list.txt\nnames: [no, 1]\n")
    (root / "list.txt").write_text(f"\n{folder}/a.png\n")
    assert open_dataset(root, "train")[0].labels.tolist() == [2]


def test_a_path_that_exists_is_not_a_folder_beside_the_description(root: Path) -> None:
    (root / "sub" / "part").mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(root / "sub" / "part" / "b.png")
    (root / "part" / "part").mkdir(parents=True)
    (root / "images" / "a.png").rename(root / "part" / "part" / "a.png")
    (root / "labels" / "a.txt").rename(root / "part" / "part" / "a.txt")
    (root / "sub" / "data.yaml").write_text("train: ../part/part\nnames: [no, 1]\n")
    assert open_dataset(root / "sub", "train")[0].image_id == "a"


def test_the_folder_images_is_not_that_of_another_split(root: Path) -> None:
    (root / "data.yaml").write_text("train: /home/x/valid/images\nnames: [no, 1]\n")
    with pytest.raises(LayoutError, match=r"train: '/home/x/valid/images' does not exist"):
        open_dataset(root, "train")


def test_the_error_for_a_missing_picture_of_a_list_names_the_line(root: Path) -> None:
    (root / "data.yaml").write_text("train: list.txt\nnames: [no, 1]\n")
    (root / "list.txt").write_text(f"images/a.png\n{'z' * 5000}\n")
    with pytest.raises(LayoutError, match=r"list\.txt, line 2: 'zzz.*' does not exist"):
        open_dataset(root, "train")


@pytest.mark.parametrize("place", ["classes.txt", "labels/classes.txt", None])
def test_folders_of_labelimg_are_read(root: Path, place: str | None) -> None:
    (root / "data.yaml").unlink()
    if place is None:  # pictures, text files and classes.txt in one folder
        root = root / "labels"
        (root.parent / "images" / "a.png").rename(root / "a.png")
        (root.parent / "images").rmdir()
    (root / (place or "classes.txt")).write_text("no\n1\n")
    (sample,) = open_dataset(root, None)
    assert (sample.labels.tolist(), sample.boxes[0].tolist()) == ([2], pytest.approx([80, 30, 120, 70]))


def test_an_empty_line_in_a_list_of_classes_counts(root: Path) -> None:
    (root / "data.yaml").unlink()
    (root / "obj.data").write_text("train = images\nnames = obj.names\n")
    (root / "obj.names").write_text("no\n\nyes\n")
    (root / "labels" / "a.txt").write_text("2 0.5 0.5 0.2 0.4\n")
    dataset = open_dataset(root, "train")
    assert [category.name for category in dataset.categories if category.id in dataset[0].labels] == ["yes"]


def test_a_missing_split_is_an_error_that_names_the_others(root: Path) -> None:
    with pytest.raises(MissingSplitError, match="has no split 'val'; existing splits: train"):
        open_dataset(root, "val")


def test_pictures_without_any_text_file_are_an_error(root: Path) -> None:
    (root / "labels" / "a.txt").unlink()
    with pytest.raises(LayoutError, match=r"none of 1 pictures has a text file, for example .*labels/a\.txt"):
        open_dataset(root, "train")


def test_a_picture_that_cannot_be_read_is_an_error_of_its_annotation(root: Path) -> None:
    (root / "images" / "a.png").write_bytes(b"no picture")
    with pytest.raises(AnnotationError, match=r"a\.txt: the size of its picture is needed: .*a\.png: not a JPEG"):
        open_dataset(root, "train")[0]
