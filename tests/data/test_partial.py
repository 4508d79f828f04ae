"""Which classes are annotated in which pictures."""

from pathlib import Path

import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.partial import PartialAnnotationError, read_annotated_classes

CATEGORIES = (Category(3, "n1", "lion"), Category(7, "n2", "traffic light"), Category(9, "n3", "dog"))


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "annotated.txt").write_text(text)
    return tmp_path / "annotated.txt"


def test_the_first_line_that_fits_counts(tmp_path: Path) -> None:
    text = "lions_*\tlion\n\nstreet 12\tn2, dog\nfull_*\tall\n*_x\tboxed\n"
    annotated = read_annotated_classes(write(tmp_path, text), CATEGORIES)
    assert annotated.of("lions_1", []) == {3}
    assert annotated.of("lions_1", [9]) == {3, 9}  # a class with a box is annotated
    assert annotated.of("street 12", []) == {7, 9}
    assert annotated.of("street 13", []) is None
    assert annotated.of("full_x", [3]) is None
    assert annotated.of("a_x", [3, 3]) == {3}
    assert annotated.of("a_x", []) == set()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lions_* lion", "line 2: expected a picture or pattern, a tab, and classes"),
        ("a\t , ", "line 2: expected a picture or pattern"),
        ("a\tzebra", "line 2: the class 'zebra' is not in the class list"),
    ],
)
def test_malformed_lines_are_refused(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(PartialAnnotationError, match=message):
        read_annotated_classes(write(tmp_path, f"b\tlion\n{line}\n"), CATEGORIES)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PartialAnnotationError, match="cannot read"):
        read_annotated_classes(tmp_path / "none.txt", CATEGORIES)
