"""Class lists: the list of ILSVRC DET and the lists of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_rcnn.data.categories import Category, CategoryError, category_ids, det_categories, read_categories


def test_the_200_classes_have_the_ids_1_to_200_and_unique_names() -> None:
    categories = det_categories()
    assert [category.id for category in categories] == list(range(1, 201))
    assert len({category.wnid for category in categories}) == 200
    assert len({category.name for category in categories}) == 200


@pytest.mark.parametrize(
    ("det_id", "wnid", "name"),
    [
        (1, "n02672831", "accordion"),
        (58, "n02084071", "dog"),
        (124, "n00007846", "person"),
        (200, "n02391049", "zebra"),
    ],
)
def test_classes_have_the_ids_of_the_challenge(det_id: int, wnid: str, name: str) -> None:
    assert det_categories()[det_id - 1] == Category(det_id, wnid, name)


def test_the_table_equals_the_table_of_the_development_kit(shared: Path) -> None:
    assert det_categories() == read_categories(shared / "referee" / "det_synsets_200.tsv")


def test_a_list_of_names_has_ids_from_one(tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("Käse\n\ntraffic light\r\n", encoding="utf-8")
    assert read_categories(file) == (Category(1, "Käse", "Käse"), Category(2, "traffic light", "traffic light"))


@pytest.mark.parametrize("heading", ["", "id\twnid\tname\n", "ID\tWNID\tName\n"])
def test_a_table_keeps_its_ids(tmp_path: Path, heading: str) -> None:
    file = tmp_path / "classes.tsv"
    file.write_text("\ufeff" + heading + "7\tn01\tcat\n3\tn02\tdog\n", encoding="utf-8")
    assert read_categories(file) == (Category(7, "n01", "cat"), Category(3, "n02", "dog"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no classes"),
        (" \n\n", "contains no classes"),
        ("id\twnid\tname\n", "only the line of headings"),
        ("cat\ndog\ncat\n", "line 3: .*'cat' occurs in line 1 too"),
        ("1\tn01\tcat\n1\tn02\tdog\n", "line 2: the id 1 occurs in line 1 too"),
        ("1\tn01\tcat\n2\tn01\tdog\n", "line 2: the wnid 'n01' occurs in line 1 too"),
        ("0\tn01\tcat\n", "line 1: the id is 0; expected at least 1"),
        (f"{10**20}\tn01\tcat\n", "line 1: the id is 10+; expected at least 1 .* and at most 15 digits"),
        (f"{'9' * 5000}\tn01\tcat\n", "line 1: the id is 9+; expected at least 1"),
        ("z" * 300_000, "line 1: expected a text of 1 to 256 characters"),
        ("1\tn01\tcat\n\nx\tn02\tdog\n", "line 3: expected id, WNID and name"),
        ("1\tn01\tcat\n2\tn02\n", "line 2: expected id, WNID and name"),
        ("1\tn01\tcat\nplain\n", "line 2: expected id, WNID and name"),
        ("1\tn01\t\n", "line 1: expected id, WNID and name"),
    ],
)
def test_the_error_for_a_malformed_list_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CategoryError, match=message) as caught:
        read_categories(file)
    assert str(file) in str(caught.value)


def test_missing_files_and_files_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CategoryError, match=r"nowhere\.txt"):
        read_categories(tmp_path / "nowhere.txt")
    (tmp_path / "latin.txt").write_bytes("Käse".encode("latin-1"))
    with pytest.raises(CategoryError, match=r"latin\.txt"):
        read_categories(tmp_path / "latin.txt")


def test_category_ids_maps_wnids_and_names() -> None:
    ids = category_ids(det_categories())
    assert ids["n02084071"] == ids["dog"] == 58


def test_a_wnid_wins_over_the_name_of_another_class() -> None:
    assert category_ids([Category(1, "cat", "animal"), Category(2, "n02", "cat")])["cat"] == 1
