"""The classes of classifiers: ImageNet's, lists in files."""

import pytest

from inception_rcnn.data.categories import Category, CategoryError
from inception_rcnn.data.classifier_classes import (
    class_positions,
    imagenet_classes,
    named_classes,
    read_classifier_classes,
)


def test_imagenets_classes_are_in_the_order_of_their_wnids():
    wnids = [one.wnid for one in imagenet_classes()]
    assert len(wnids) == 1000
    assert wnids == sorted(set(wnids))
    assert {one.wnid: one.name for one in imagenet_classes()}["n02111889"] == "Samoyed"


def test_the_list_of_caffe_names_imagenets_classes(shared):
    assert read_classifier_classes(shared / "weights" / "synset_words.txt") == imagenet_classes()


def test_lines_are_wnids_with_names_or_names(tmp_path):
    file = tmp_path / "classes.txt"
    file.write_text("\ufeffn01440764 tench, Tinca tinca\r\n\nmy class, n2\nn01443537\tgoldfish\n", encoding="utf-8")
    assert read_classifier_classes(file) == (
        Category(0, "n01440764", "tench"),
        Category(1, "my class, n2", "my class, n2"),
        Category(2, "n01443537", "goldfish"),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "contains no classes"),
        (b"a\nb\na\n", r"line 3: 'a' occurs in line 1 too"),
        (b"\xff\n", "cannot read the class list"),
        (b"x" * 300, "line 1: expected a text of 1 to 256 characters"),
    ],
)
def test_a_wrong_list_is_an_error_that_names_the_line(tmp_path, content, message):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(CategoryError, match=message):
        read_classifier_classes(tmp_path / "classes.txt")


def test_names_that_are_wnids_get_imagenets_names():
    assert named_classes(["dog", "n02111889"]) == (Category(0, "dog", "dog"), Category(1, "n02111889", "Samoyed"))


def test_a_name_of_two_classes_has_no_position():
    names = {"n1": "crane", "n2": "crane", "n3": "n1", "n4": "dog"}
    classes = [Category(number, wnid, name) for number, (wnid, name) in enumerate(names.items())]
    assert class_positions(classes) == {"n1": 0, "n2": 1, "n3": 2, "n4": 3, "dog": 3}
