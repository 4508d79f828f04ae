"""The strategies of selective search, and the strategy sets of Uijlings et al. 2013, section 5.2, table 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from .colour import COLOUR_SPACES

SIMILARITIES: Final = "CTSF"  # colour, texture, size, fill


@dataclass(frozen=True)
class Strategy:
    """The settings of one hierarchical grouping.

    Attributes:
        colour_space: one of `COLOUR_SPACES`: "hsv", "lab", "rgi", "hue", "intensity" or "rgb". It is used for
            segmentation, colour and texture.
        k: the scale of observation of the segmentation, which is also the minimum size of a superpixel in pixels of the
            working image.
        similarity: the measures to sum, letters of "CTSF" (colour, texture, size, fill), such as "TSF".
    """

    colour_space: str
    k: float
    similarity: str

    def __post_init__(self) -> None:
        if self.colour_space not in COLOUR_SPACES:
            raise ValueError(
                f"unknown colour space {self.colour_space!r}: choose one of {', '.join(sorted(COLOUR_SPACES))}"
            )
        if not 0 < self.k < float("inf"):
            raise ValueError(f"k must be a positive number, got {self.k!r}")
        letters = set(self.similarity)
        if not letters or not letters <= set(SIMILARITIES) or len(letters) != len(self.similarity):
            raise ValueError(
                f"invalid similarity {self.similarity!r}: expected distinct letters of 'CTSF' "
                "(colour, texture, size, fill), such as 'CTSF' or 'TSF'"
            )


def _combine(spaces: Sequence[str], ks: Sequence[float], similarities: Sequence[str]) -> tuple[Strategy, ...]:
    return tuple(Strategy(*choice) for choice in product(spaces, ks, similarities))


STRATEGY_SETS: Final[dict[str, tuple[Strategy, ...]]] = {
    "single": _combine(["hsv"], [100], ["CTSF"]),
    "fast": _combine(["hsv", "lab"], [50, 100], ["CTSF", "TSF"]),
    "quality": _combine(["hsv", "lab", "rgi", "hue", "intensity"], [50, 100, 150, 300], ["CTSF", "TSF", "F", "S"]),
}


def strategies_of(mode: str | Sequence[Strategy]) -> tuple[Strategy, ...]:
    """Returns the strategies of a set in `STRATEGY_SETS`, or the given list of strategies.

    Raises:
        ValueError: the name is unknown, or the list is empty.
        TypeError: an element of the list is not a `Strategy`.
    """
    if isinstance(mode, str):
        if mode not in STRATEGY_SETS:
            raise ValueError(
                f"unknown mode {mode!r}: choose one of {', '.join(STRATEGY_SETS)}, or pass a list of Strategy"
            )
        return STRATEGY_SETS[mode]
    strategies = tuple(mode)
    if not strategies:
        raise ValueError("mode is an empty list: pass at least one Strategy")
    for index, strategy in enumerate(strategies):
        if not isinstance(strategy, Strategy):
            raise TypeError(f"element {index} of mode is {strategy!r}: expected a Strategy")
    return strategies
