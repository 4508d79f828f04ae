"""Labels of pictures from files and folders."""

from pathlib import Path

import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.image_labels import LabelError, labels_of_folders, read_labels

CLASSES = (Category(0, "n01", "dog"), Category(1, "n02", "domestic cat"), Category(2, "n03", "crane"))


def labels_in(folder: Path, content: str, pictures: list[str]) -> list[int | None]:
    (folder / "labels.txt").write_bytes(content.encode(errors="surrogateescape"))
    return read_labels(folder / "labels.txt", pictures, CLASSES)


@pytest.mark.parametrize(
    ("line", "picture"),
    [
        ("a n02", "photos/a.JPEG"),
        ("a.jpg n02", "photos/a.jpg"),
        ("photos/a.jpg\tdomestic cat", "/home/photos/a.jpg"),
        ("./photos/a n02", "photos/a.png"),
        ("/home/a.jpg n02", "/home/a.jpg"),
        ("my dog 2.jpg n02", "my dog 2.jpg"),
        ("my dog 2.jpg \t n02 \r", "my dog 2.jpg"),
        ("写 \udcff n02", "写 \udcff.jpg"),
        ("a.jpg n02", "s3://bucket/a.jpg"),
    ],
)
def test_a_line_names_a_picture_and_its_class(tmp_path, line, picture):
    assert labels_in(tmp_path, f"\n{line}\nother n01\n", ["x.jpg", picture]) == [None, 1]


def test_the_longest_name_counts(tmp_path):
    assert labels_in(tmp_path, "a n01\nval/a n02\n", ["train/a.jpg", "val/a.jpg"]) == [0, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a n01\nb\n", "line 2: expected the name of a picture and a WNID"),
        ("a n01\nb n09\n", r"line 2: 'n09' is not the WNID, or the name, of one of the model's 3 classes"),
        ("a n01\na n02\n", "line 2: line 1 gives 'a' another class"),
        ("x n01\n", "none of its 1 names is the name of one of the 3 pictures"),
        ("b n01\n", r"line 1: two pictures have this name, 1/b.jpg and 2/b.jpg"),
        ("", "none of its 0 names"),
    ],
)
def test_wrong_labels_are_an_error_that_names_the_line(tmp_path, content, message):
    with pytest.raises(LabelError, match=message):
        labels_in(tmp_path, content, ["a.jpg", "1/b.jpg", "2/b.jpg"])


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(LabelError, match="cannot read the labels"):
        read_labels(tmp_path / "nothing.txt", ["a"], CLASSES)


def test_folders_are_labels(tmp_path):
    for folder in ("val/n01/near", "val/domestic cat", "val/boat", "dog"):
        (tmp_path / folder).mkdir(parents=True)
    val = tmp_path / "val"
    pictures = [val / "n01" / "near" / "1.jpg", val / "domestic cat" / "2.jpg"]
    assert labels_of_folders(pictures, [str(val)], CLASSES) == ([0, 1], set())
    assert labels_of_folders([val / "boat" / "3.jpg", pictures[0]], [str(val)], CLASSES) == ([None, 0], {"boat"})
    assert labels_of_folders([tmp_path / "dog" / "4.jpg"], [str(tmp_path / "dog")], CLASSES) == ([0], set())
    assert labels_of_folders([tmp_path / "dog" / "4.jpg"], [str(tmp_path / "dog/*.jpg")], CLASSES) == ([0], set())
