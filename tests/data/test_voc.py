"""Data sets in the PASCAL VOC layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, AnnotationError, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.ilsvrc import LayoutError
from inception_rcnn.data.voc import is_voc, open_dataset, read_voc_ground_truth, voc_categories


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    objects = (AnnotatedObject("dog", (1, 1, 50, 40)), AnnotatedObject("person", (10, 10, 60, 45), difficult=True))
    write_annotation(root / "Annotations" / "2008_000001.xml", Annotation("2008_000001.jpg", 60, 45, objects))
    write_annotation(root / "Annotations" / "2008_000002.xml", Annotation("2008_000002.jpg", 60, 45))
    (root / "JPEGImages" / "2008_000001.jpg").touch()
    (root / "ImageSets" / "Main" / "val.txt").write_text("2008_000002\n2008_000001\n")
    return root


def test_voc_has_twenty_classes() -> None:
    assert len(voc_categories()) == 20
    assert voc_categories()[14] == Category(15, "person", "person")


def test_samples_come_in_the_order_of_the_list(root: Path) -> None:
    empty, sample = open_dataset(root, "val")
    assert (empty.image_id, empty.index, len(empty.boxes)) == ("2008_000002", 1, 0)
    assert (sample.image_id, sample.index, sample.path) == ("2008_000001", 2, root / "JPEGImages" / "2008_000001.jpg")
    assert sample.boxes.tolist() == [[0, 0, 50, 40], [9, 9, 60, 45]]
    assert sample.labels.tolist() == [12, 15]
    assert sample.difficult.tolist() == [False, True]


@pytest.mark.parametrize("ending", ["\n", "\r\n", " \r\n", "\r"])
@pytest.mark.parametrize(
    ("names", "lines"),
    [
        (["photo"], ["photo 0 1"]),  # a number and a mark
        (["photo 0", "photo 1"], ["photo 0 1", "photo 1 -1"]),  # the names of the files end in a number
        (["photo 0 1", "photo 0 2"], ["photo 0 1", "photo 0 2"]),
        (["my photo", "photo 7"], ["my photo  1", "photo 7 -1"]),
        (["my photo", "photo 7"], ["my photo", "photo 7"]),
    ],
)
def test_names_in_a_list_may_have_blanks_and_numbers_and_any_line_ends(
    root: Path, names: list[str], lines: list[str], ending: str
) -> None:
    for name in names:
        (root / "JPEGImages" / f"{name}.jpg").touch()
        write_annotation(root / "Annotations" / f"{name}.xml", Annotation(f"{name}.jpg", 60, 45))
    content = "".join(f"{line}{ending}" for line in lines)
    (root / "ImageSets" / "Main" / "dog_val.txt").write_bytes(content.encode())
    samples = list(open_dataset(root, "dog_val"))
    assert [sample.image_id for sample in samples] == names
    assert [sample.path for sample in samples] == [root / "JPEGImages" / f"{name}.jpg" for name in names]
    assert [sample.index for sample in samples] == list(range(1, len(names) + 1))


def test_a_list_that_names_a_picture_twice_is_refused(root: Path) -> None:
    (root / "ImageSets" / "Main" / "val.txt").write_text("2008_000001\n2008_000002\n2008_000001\n")
    for read in (open_dataset, read_voc_ground_truth):
        with pytest.raises(LayoutError, match="names '2008_000001' twice"):
            read(root, "val")


def test_ground_truth_has_difficult_flags_and_paths(root: Path) -> None:
    truth = read_voc_ground_truth(root, "val")
    assert truth.name == "VOC2012 val"
    assert truth.image_indices.tolist() == [1, 2]
    assert truth.images.tolist() == [2, 2]
    assert truth.difficult.tolist() == [False, True]
    assert truth.paths[2] == root / "JPEGImages" / "2008_000001.jpg"


def test_classes_may_be_given_and_unknown_classes_are_errors(root: Path) -> None:
    own = (Category(1, "person", "person"), Category(2, "dog", "dog"))
    assert open_dataset(root, "val", own)[1].labels.tolist() == [2, 1]
    with pytest.raises(AnnotationError, match=r"2008_000001\.xml.*'dog' is not in the class list"):
        read_voc_ground_truth(root, "val", own[:1])


def test_the_error_for_an_incomplete_layout_names_the_missing_files(root: Path, tmp_path: Path) -> None:
    assert is_voc(root)
    assert not is_voc(tmp_path)
    with pytest.raises(LayoutError, match=r"missing image list: .*test\.txt"):
        open_dataset(root, "test")
    with pytest.raises(LayoutError, match=r"missing folder: .*Annotations"):
        read_voc_ground_truth(tmp_path, "val")
