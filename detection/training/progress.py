"""How a training reports its progress."""

from collections.abc import Callable
from typing import TypeAlias

# Stage, steps done, steps in all, figures by name: report("training", 12, 3000, {"loss": 0.412}).
Report: TypeAlias = Callable[[str, int, int, dict[str, float]], None]


def no_report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
    """The report of callers that show no progress."""
