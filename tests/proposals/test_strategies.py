"""Strategies and strategy sets."""

import pytest

from inception_rcnn.proposals.strategies import Strategy, strategies_of


@pytest.mark.parametrize(("name", "count"), [("single", 1), ("fast", 8), ("quality", 80)])
def test_strategy_sets_have_the_sizes_of_the_paper(name: str, count: int) -> None:
    assert len(set(strategies_of(name))) == count


def test_a_list_of_strategies_is_returned_unchanged() -> None:
    strategies = (Strategy("lab", 70, "CF"), Strategy("hue", 10, "S"))
    assert strategies_of(list(strategies)) == strategies


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("cmyk", 50, "CTSF"), "unknown colour space 'cmyk': choose one of hsv, hue, intensity, lab, rgb, rgi"),
        (("hsv", 0, "CTSF"), "k must be a positive number, got 0"),
        (("hsv", float("nan"), "CTSF"), "k must be"),
        (("hsv", 50, ""), "invalid similarity ''"),
        (("hsv", 50, "CC"), "distinct letters of 'CTSF'"),
        (("hsv", 50, "X"), "invalid similarity 'X'"),
    ],
)
def test_invalid_settings_are_rejected(settings: tuple[str, float, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Strategy(*settings)


def test_elements_that_are_not_strategies_are_rejected() -> None:
    with pytest.raises(TypeError, match="element 1 of mode is 'fast'"):
        strategies_of([Strategy("hsv", 50, "C"), "fast"])  # type: ignore[list-item]
