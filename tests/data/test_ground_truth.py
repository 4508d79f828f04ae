"""Ground truth is made from arrays and read from files; blacklists are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, AnnotationError, write_annotation
from inception_rcnn.data.ground_truth import (
    GroundTruth,
    GroundTruthError,
    read_blacklist,
    read_ground_truth,
    read_ilsvrc_ground_truth,
)
from inception_rcnn.data.ilsvrc import LayoutError
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.ilsvrc import evaluate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three annotations, of which the second has no objects, and an image list in another order."""
    dog = AnnotatedObject("n02084071", (11, 21, 60, 80))
    cat = AnnotatedObject("n02121808", (1.5, 2, 30, 40), difficult=True)
    for name, objects in {"a": (dog, cat), "b": (), "c": (dog,)}.items():
        write_annotation(tmp_path / f"{name}.xml", Annotation(name, 100, 100, objects))
    (tmp_path / "list.txt").write_text("c 7\nb 2\na 5\n")
    return tmp_path


def test_objects_have_the_order_and_the_indices_of_the_list(folder: Path) -> None:
    truth = read_ground_truth(folder, folder / "list.txt")
    assert truth.image_ids == ("c", "b", "a")
    assert truth.image_indices.tolist() == [7, 2, 5]
    assert truth.images.tolist() == [7, 5, 5]
    assert [truth.categories[label - 1].name for label in truth.labels] == ["dog", "dog", "domestic cat"]
    assert truth.inclusive.tolist() == [[11, 21, 60, 80], [11, 21, 60, 80], [1.5, 2, 30, 40]]
    assert truth.difficult.tolist() == [False, False, True]
    assert truth.areas.tolist() == [3000, 3000, 29.5 * 39]


def test_a_missing_file_an_unknown_class_and_a_repeated_picture_are_errors(folder: Path) -> None:
    (folder / "longer.txt").write_text("a\nd\n")
    with pytest.raises(AnnotationError, match=r"d\.xml: cannot read"):
        read_ground_truth(folder, folder / "longer.txt")
    write_annotation(folder / "b.xml", Annotation("b", 9, 9, (AnnotatedObject("n02084072", (1, 1, 2, 2)),)))
    with pytest.raises(
        AnnotationError, match=r"b\.xml.*'n02084072' is not in the class list; the nearest are n0208407"
    ):
        read_ground_truth(folder, folder / "list.txt")
    (folder / "twice.txt").write_text("a 1\na 2\n")
    with pytest.raises(GroundTruthError, match="names 'a' twice"):
        read_ground_truth(folder, folder / "twice.txt")


def test_a_split_of_the_ilsvrc_layout_is_read(folder: Path) -> None:
    root = folder / "ILSVRC"
    for kind in ("Annotations", "Data"):
        (root / kind / "DET" / "val").mkdir(parents=True)
    (root / "ImageSets" / "DET").mkdir(parents=True)
    (root / "ImageSets" / "DET" / "val.txt").write_text("a 1\nb 2\n")
    with pytest.raises(AnnotationError):
        read_ilsvrc_ground_truth(root, "val")
    for name in "ab":
        (root / "Annotations" / "DET" / "val" / f"{name}.xml").write_bytes((folder / f"{name}.xml").read_bytes())
    truth = read_ilsvrc_ground_truth(root, "val")
    assert (truth.name, len(truth)) == ("ILSVRC val", 2)
    assert truth.paths[1] == root / "Data" / "DET" / "val" / "a.JPEG"
    with pytest.raises(LayoutError, match="missing image list"):
        read_ilsvrc_ground_truth(root, "test")


def test_classes_that_are_not_annotated_in_a_picture_are_ignored_there(folder: Path) -> None:
    root = folder / "ILSVRC"
    lists = root / "ImageSets" / "DET"
    for kind in ("Annotations", "Data"):
        (root / kind / "DET" / "val").mkdir(parents=True)
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a 5\nb 2\nc 9\n")
    for name in "abc":
        (folder / f"{name}.xml").rename(root / "Annotations" / "DET" / "val" / f"{name}.xml")
        (root / "Data" / "DET" / "val" / f"{name}.JPEG").touch()
    assert read_ilsvrc_ground_truth(root, "val").unannotated == ()
    (lists / "val_annotated.txt").write_text("a\tboxed\nb\tlion\n")
    truth = read_ilsvrc_ground_truth(root, "val")
    dog, cat, lion = (
        next(one.id for one in truth.categories if one.name == name) for name in ("dog", "domestic cat", "lion")
    )
    unannotated = set(truth.unannotated)
    assert len(unannotated) == 2 * 200 - 3  # picture a has boxes of two classes
    assert {(5, dog), (5, cat), (2, lion)}.isdisjoint(unannotated)
    box = [[11, 21, 60, 80]]
    lions = [Submission.from_boxes([picture], [lion], [0.9], box) for picture in (5, 9)]
    assert [int(evaluate(truth, one).ignored.sum()) for one in lions] == [1, 0]
    (lists / "val_annotated.txt").write_text("a\tunicorn\n")
    with pytest.raises(AnnotationError, match=r"val_annotated\.txt, line 1: the class 'unicorn'"):
        read_ilsvrc_ground_truth(root, "val")


def test_blacklists_are_read_as_pairs_of_index_and_label(tmp_path: Path) -> None:
    file = tmp_path / "blacklist.txt"
    file.write_text("46 n00007846\n\n 85 n07753275 \n")
    assert read_blacklist(file) == [(46, 124), (85, 126)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("n00007846 46", "line 2: expected 'image_index wnid'"),
        ("46", "line 2: expected"),
        ("46 n0", "line 2: the class 'n0'"),
        ("0 n00007846", "line 2: the index is 0; expected"),
        ("99999999999999999999 n00007846", "line 2: the index is 9+; expected"),
        (f"{'9' * 5000} n00007846", "line 2: the index is 9+; expected"),
    ],
)
def test_the_error_for_a_malformed_blacklist_names_the_line(tmp_path: Path, line: str, problem: str) -> None:
    (tmp_path / "blacklist.txt").write_text(f"1 n00007846\n{line}\n")
    with pytest.raises(GroundTruthError, match=problem):
        read_blacklist(tmp_path / "blacklist.txt")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (([1, 1], [], [], []), "picture 1 is listed twice"),
        (([1], [2], [1], [[1, 1, 2, 2]]), "object 0 is in picture 2, which is not listed"),
        (([1], [1], [201], [[1, 1, 2, 2]]), "object 0 is of class 201"),
        (([1], [1], [1, 2], [[1, 1, 2, 2]]), "1 images, 2 labels and 1 boxes"),
        (([1], [1], [1], [[1, 1, 2, float("nan")]]), "the box of object 0"),
        (([1], [1], [1], [1, 1, 2, 2]), r"expected boxes \[G, 4\]"),
    ],
)
def test_inconsistent_arrays_are_errors(arguments: tuple, problem: str) -> None:
    with pytest.raises(GroundTruthError, match=problem):
        GroundTruth.from_arrays(*arguments)


def test_ground_truth_may_have_no_objects() -> None:
    assert GroundTruth.from_arrays([1, 2], [], [], []).inclusive.shape == (0, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        ([1.5], [], [], []),
        ([2**64], [], [], []),
        ([float(2**53)], [], [], []),
        (["1"], [], [], []),
        ([1], [1], [1.5], [[1, 1, 2, 2]]),
        ([1], [1], [True], [[1, 1, 2, 2]]),
    ],
)
def test_numbers_and_class_ids_that_are_not_whole_are_errors(arguments: tuple) -> None:
    with pytest.raises(GroundTruthError, match="expected whole numbers"):
        GroundTruth.from_arrays(*arguments)


@pytest.mark.parametrize("areas", [[float("nan")], [-1], [1, 2], [float("inf")]])
def test_areas_are_numbers_of_at_least_0(areas: list[float]) -> None:
    with pytest.raises(GroundTruthError, match="expected an area for each of 1 objects"):
        GroundTruth.from_arrays([1], [1], [1], [[1, 1, 2, 2]], areas=areas)
