"""Values of JSON files: each is read as what it means, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from inception_rcnn.data import json_values

HUGE = 10**400
NOT_NUMBERS = ["1", True, None, [1], {}, math.nan, math.inf, HUGE, 1e301]


@pytest.mark.parametrize(("value", "expected"), [(7, 7), (1.0, 1), (-3, -3), (2**63 - 1, 2**63 - 1), (2**53 + 1,) * 2])
def test_whole_numbers_are_exact(value: object, expected: int) -> None:
    assert json_values.whole_number(value) == expected


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 1.5, 2**63, -(2**63) - 1, float(2**53)])
def test_other_values_are_not_whole_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        json_values.whole_number(value)


@pytest.mark.parametrize("value", [1, True, "", "-1", "1.0", "1_0", "x", "٣", "9" * 20, "9" * 5000])
def test_ids_as_text_are_digits(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        json_values.whole_number_as_text(value)


def test_ids_as_text_are_read() -> None:
    assert json_values.whole_number_as_text("007") == 7


@pytest.mark.parametrize("read", [json_values.number, json_values.coordinate, json_values.area])
@pytest.mark.parametrize("value", NOT_NUMBERS)
def test_numbers_are_finite_and_neither_text_nor_flags(read: Callable[[object], float], value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a (finite )?number"):
        read(value)


@pytest.mark.parametrize(
    "value",
    [
        *(None, "1234", [], [1, 2, 3], [1, 2, 3, 4, 5], {"x": 1}, [1, 2, -3, 4], [1, 2, 3, -4], [True, 2, 3, 4]),
        *(["1", 2, 3, 4], [1, 2, math.nan, 4], [1, 2, 1e300, 4], [-(2**23) - 1, 2, 3, 4], [[1, 2, 3, 4]]),
    ],
)
def test_boxes_are_four_numbers_with_a_size(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        json_values.xywh(value)


def test_a_box_may_have_a_side_of_0() -> None:
    assert json_values.xywh([1, 2.5, 0, 4]) == (1, 2.5, 0, 4)


@pytest.mark.parametrize("value", ["0", "no", None, 2, 0.5, [], -1, math.nan])
def test_flags_are_0_or_1(value: object) -> None:
    with pytest.raises(ValueError, match="expected 0 or 1"):
        json_values.flag(value)


@pytest.mark.parametrize(("value", "expected"), [(0, False), (1, True), (1.0, True), (False, False), (True, True)])
def test_flags_are_read(value: object, expected: bool) -> None:
    assert json_values.flag(value) is expected


@pytest.mark.parametrize("value", [*NOT_NUMBERS, 0, -5, 640.5, 2**23 + 1])
def test_sides_of_pictures_are_positive_whole_numbers(value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        json_values.side(value)


@pytest.mark.parametrize("value", [5, None, [1], "", ".", "..", "/", "a/", "a\\", "a/..", "a\0b"])
def test_file_names_are_text(value: object) -> None:
    with pytest.raises(ValueError, match="expected the name of a file"):
        json_values.file_name(value)


@pytest.mark.parametrize(
    "value", [5, None, "", "  ", "z" * 257, "a\nb", "a\0b", "a\x85b", "\ud800", "a\ufffe", "a\u2028b"]
)
def test_class_names_are_text_of_limited_length(value: object) -> None:
    with pytest.raises(ValueError, match="expected a text"):
        json_values.class_name(value)


@pytest.mark.parametrize("name", ["dog", " dog\n", "\u00a0dog\t"])
def test_blanks_around_class_names_are_left_out(name: str) -> None:
    assert json_values.class_name(name) == "dog"


def test_class_names_may_have_letters_of_any_script() -> None:
    for name in ("\U0001f981 \u05e9\u05dc\u05d5\u05dd", "[/]", "a/b\\c", "$x$", "<&>", "\U0010ffff"):
        assert json_values.class_name(name) == name


@pytest.mark.parametrize("value", ["z" * 300_000, HUGE, [[[[[1] * 99]]]], {"a": "b" * 999}, math.nan])
def test_any_value_is_shown_in_few_characters(value: object) -> None:
    assert len(json_values.shown(value)) <= 80


def test_a_key_that_occurs_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 1}, {"id": 1, "bbox": [1], "bbox": [2]}]')
    with pytest.raises(ValueError, match=r"the key 'bbox' occurs twice in an object that has \['bbox', 'id'\]"):
        json_values.load_json(tmp_path / "a.json")
