"""Durations in words."""

import pytest

from inception_rcnn.runtime.duration import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (99, "99 s"), (100, "2 min"), (3600, "60 min"), (7800, "2 h 10 min"), (3e5, "3 days")],
)
def test_durations_have_two_digits_of_precision(seconds: float, text: str) -> None:
    assert duration(seconds) == text
