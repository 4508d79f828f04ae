"""Frames lie on their boxes and labels inside the picture, for any size of picture and any alphabet."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest

from inception_rcnn.data.categories import det_categories
from inception_rcnn.detection import drawing
from inception_rcnn.detection.drawing import class_colour, distinct_colours, draw_detections

NO_BOXES = np.empty((0, 4), np.float32)


def test_no_detections_give_an_equal_copy() -> None:
    image = np.full((20, 30, 3), 9, np.uint8)
    drawn = draw_detections(image, NO_BOXES, [], [])
    np.testing.assert_array_equal(drawn, image)
    assert not np.shares_memory(drawn, image)


def test_a_frame_has_the_colour_of_its_class_and_changes_neither_its_inside_nor_the_original() -> None:
    image = np.full((375, 500, 3), 128, np.uint8)
    drawn = draw_detections(image, np.array([[100, 80, 300, 250]], np.float32), ["dog"], [0.9])
    assert (image == 128).all()
    coloured = (drawn == class_colour("dog")).all(axis=2)
    rows, columns = np.nonzero(coloured)
    # The label begins at the left edge of the box. The coloured frame lies inside a rim of one dark pixel.
    assert (columns.min(), columns.max(), rows.max()) == (100, 298, 248)
    assert (drawn[90:240, 110:290] == 128).all()
    assert (drawn[255:] == 128).all()
    assert (drawn[:, 305:] == 128).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (8, 8), (30, 30), (120, 90), (3000, 2000)])
def test_any_size_of_picture_can_be_drawn_on(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    box = np.array([[0, 0, shape[1], shape[0]]], np.float32)
    drawn = draw_detections(image, box, ["domestic cat"], [0.5])
    assert drawn.shape == image.shape
    assert drawn.any()


@pytest.mark.parametrize(
    ("side", "thickness"),
    [
        (60, 1),  # diagonal 85 / 280 = 0.3, raised to 1
        (500, 3),  # 707 / 280 = 2.5
        (2000, 10),  # 2828 / 280 = 10.1
        (3000, 14),  # 4243 / 280 = 15.2, lowered to 14
    ],
)
def test_a_line_is_as_thick_as_a_share_of_the_diagonal_from_1_to_14_pixels(side: int, thickness: int) -> None:
    box = np.array([[side // 4, side // 4, side * 3 // 4, side * 3 // 4]], np.float32)
    drawn = draw_detections(np.zeros((side, side, 3), np.uint8), box, ["x"], [0.5])
    lower_half_of_a_column = drawn[side // 2 :, side // 2]
    assert (lower_half_of_a_column == class_colour("x")).all(axis=1).sum() == thickness


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 500, 375),
        (0, 0, 20, 20),
        (480, 0, 500, 20),
        (0, 360, 20, 375),
        (490, 370, 500, 375),
        (-50, -50, 700, 600),
    ],
)
def test_a_label_lies_inside_the_picture(box: tuple[float, ...]) -> None:
    image = np.zeros((375, 500, 3), np.uint8)
    font = drawing._writable_name("computer keyboard", 15)[1]
    frame = drawing._pixels_of_box(np.array(box, np.float64), 500, 375)
    text, (left, top, right, bottom) = drawing._place_label("computer keyboard", 0.5, frame, (500, 375), font, [])
    assert text == "computer keyboard 0.50"
    assert 0 <= left < right <= 500
    assert 0 <= top < bottom <= 375
    drawn = draw_detections(image, np.array([box], np.float32), ["computer keyboard"], [0.5])
    assert (drawn == class_colour("computer keyboard")).all(axis=2).sum() > 1000  # the background of the label


def test_labels_of_coinciding_boxes_do_not_cover_each_other() -> None:
    frame = (100, 100, 300, 250)
    font = drawing._writable_name("dog", 15)[1]
    placed: list[tuple[int, int, int, int]] = []
    for name in ("dog", "domestic cat", "fox"):
        place = drawing._place_label(name, 0.5, frame, (500, 375), font, placed)[1]
        assert all(drawing._shared_pixels(place, other) == 0 for other in placed)
        placed.append(place)


def test_a_long_name_is_shortened_and_keeps_its_score() -> None:
    font = drawing._writable_name("a", 11)[1]
    text, place = drawing._place_label("punching bag " * 9, 0.25, (0, 0, 90, 90), (90, 90), font, [])
    assert text.startswith("punch")
    assert text.endswith(".. 0.25")
    assert place[2] - place[0] <= 90


def test_a_detection_with_a_higher_score_is_on_top() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    boxes = np.array([[50, 50, 250, 250]] * 2, np.float32)
    for scores, best in (((0.9, 0.1), "dog"), ((0.1, 0.9), "sheep")):
        drawn = draw_detections(image, boxes, ["dog", "sheep"], scores)
        assert tuple(drawn[248, 150]) == distinct_colours([["dog", "sheep"]])[best]


def test_the_colour_of_a_class_is_the_same_in_every_run() -> None:
    assert class_colour("dog") == (245, 61, 153)  # hue 330 degrees in the middle tone
    assert class_colour("größe") == (245, 107, 61)  # hue 15 degrees in the middle tone


def hue(colour: tuple[int, int, int]) -> float:
    return 360 * colorsys.rgb_to_hls(*(value / 255 for value in colour))[0]


def smallest_turn(names: Sequence[str]) -> float:
    """The smallest angle between the hues of two classes in a picture, in degrees."""
    colours = distinct_colours([names])
    turns = [abs(hue(colours[a]) - hue(colours[b])) for a, b in combinations(names, 2)]
    return min(min(turn, 360 - turn) for turn in turns)


@pytest.mark.parametrize(
    ("names", "least"),
    [
        (["person", "dog", "sheep"], 75),
        (["person", "dog", "domestic cat", "sheep"], 60),
        (["person", "dog", "domestic cat", "sheep", "horse", "cattle"], 30),
    ],
)
def test_classes_in_one_picture_have_hues_that_are_far_apart(names: list[str], least: float) -> None:
    assert smallest_turn(names) >= least


def test_any_two_or_three_classes_have_hues_that_are_far_apart() -> None:
    names = [category.name for category in det_categories()]
    assert min(smallest_turn(names[start : start + 2]) for start in range(0, 200, 2)) >= 75
    assert min(smallest_turn(names[start : start + 3]) for start in range(0, 198, 3)) >= 60


def test_a_class_that_is_alone_keeps_its_colour_and_the_more_frequent_class_too() -> None:
    assert distinct_colours([["dog"], ["cat"]]) == {"dog": class_colour("dog"), "cat": class_colour("cat")}
    alike = next(name for name in map(str, range(1000)) if class_colour(name) == class_colour("dog"))
    assert distinct_colours([["dog", "dog", alike]])["dog"] == class_colour("dog")
    assert distinct_colours([["dog", alike, alike]])[alike] == class_colour("dog")
    assert distinct_colours([["dog", alike]]) == distinct_colours([[alike, "dog"]])


@pytest.mark.parametrize("count", [0, 1, 200, 1000])
def test_any_number_of_classes_has_colours(count: int) -> None:
    names = [f"class {number}" for number in range(count)]
    colours = distinct_colours([names])
    assert list(colours) == sorted(names)
    assert len(set(colours.values())) >= min(count, 20)


def test_a_finer_name_is_written_in_the_colour_of_its_class() -> None:
    image, box = np.zeros((100, 300, 3), np.uint8), np.array([[50, 40, 250, 90]], np.float32)
    fine = draw_detections(image, box, ["dog: Samoyed"], [0.5], classes=["dog"])
    assert (fine == class_colour("dog")).all(axis=2).any()
    assert (fine != draw_detections(image, box, ["dog"], [0.5])).any()


def test_without_a_font_accents_are_dropped_and_other_letters_are_question_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawing._writable_name.cache_clear()
    monkeypatch.setattr(drawing, "_installed_fonts", lambda height: ())
    assert drawing._writable_name("Käse", 15)[0] == "Kase"
    assert drawing._writable_name("кот", 15)[0] == "???"
    drawing._writable_name.cache_clear()


def test_a_name_is_written_in_a_font_that_has_its_letters() -> None:
    fonts = drawing._installed_fonts(15)
    if not any(drawing._has_letters(font, "кошка") for font in fonts):
        pytest.skip("no font with Cyrillic letters on this machine")
    text, font = drawing._writable_name("кошка", 15)
    assert text == "кошка"
    assert font in fonts


@pytest.mark.parametrize("name", ["two\nlines", "a\0b", "tab\t", "x" * 300_000, "\udcff", "", "\r\n"])
def test_any_name_can_be_drawn(name: str) -> None:
    image = np.zeros((60, 300, 3), np.uint8)
    drawn = draw_detections(image, np.array([[10, 30, 200, 50]], np.float32), [name], [0.5])
    assert drawn.any()


def test_different_numbers_of_boxes_names_and_scores_are_an_error() -> None:
    with pytest.raises(ValueError, match="got 1 boxes, 2 names, 1 scores"):
        draw_detections(np.zeros((9, 9, 3), np.uint8), np.zeros((1, 4), np.float32), ["a", "b"], [0.5])
