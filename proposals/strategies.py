"""Which groupings selective search runs: the strategy sets of Uijlings et al. 2013, section 5.2, table 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from .colour import COLOUR_SPACES

SIMILARITIES: Final = "CTSF"  # colour, texture, size, fill


@dataclass(frozen=True)
class Strategy:
    """One hierarchical grouping.

    Attributes:
        colour_space: one of `COLOUR_SPACES`: "hsv", "lab", "rgi", "hue", "intensity", "rgb". Superpixels, colour
            and texture are all taken from it.
        k: the segmentation's threshold, also its minimum superpixel size in pixels of the working picture.
        similarity: the summed measures, letters of "CTSF" (colour, texture, size, fill), such as "TSF".
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
                f"similarity {self.similarity!r} is not understood: give letters of 'CTSF' once each "
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
    """The strategies behind a name of `STRATEGY_SETS`, or the custom list itself.

    Raises ValueError for an unknown name or an empty list, TypeError for elements that are no `Strategy`.
    """
    if isinstance(mode, str):
        if mode not in STRATEGY_SETS:
            raise ValueError(
                f"unknown mode {mode!r}: choose one of {', '.join(STRATEGY_SETS)}, or pass a list of Strategy"
            )
        return STRATEGY_SETS[mode]
    strategies = tuple(mode)
    if not strategies:
        raise ValueError("an empty list of strategies finds nothing: pass at least one Strategy")
    for index, strategy in enumerate(strategies):
        if not isinstance(strategy, Strategy):
            raise TypeError(f"element {index} of mode is {strategy!r}: expected a Strategy")
    return strategies
