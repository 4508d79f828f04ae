"""How a training reports its progress."""

from collections.abc import Callable
from typing import TypeAlias

# Stage, steps done, steps in all, figures by name: report("training", 12, 3000, {"loss": 0.412}).
Report: TypeAlias = Callable[[str, int, int, dict[str, float]], None]

# Takes a sentence for the user: the plan of a training, or the outcome of a stage.
Say: TypeAlias = Callable[[str], None]


def no_report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
    """The report of callers that show no progress."""


def no_words(sentence: str) -> None:
    """The `Say` of callers that print nothing."""
