"""What every proposal method returns: boxes with scores, best first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Proposals:
    """Regions of one image that may hold an object, best first.

    Attributes:
        boxes: float32 ``[N, 4]``, ``(x1, y1, x2, y2)``, 0-based, continuous, half-open, in coordinates of the
            image that was given: the whole of a W x H image is ``(0, 0, W, H)``.
        scores: float32 ``[N]``, falling. They order the boxes of one method; they are no probabilities.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4 or self.scores.shape != (len(self.boxes),):
            raise ValueError(
                f"proposals need boxes [N, 4] and scores [N], got {self.boxes.shape} and {self.scores.shape}"
            )

    def __len__(self) -> int:
        return len(self.boxes)

    def top(self, n: int) -> Proposals:
        """The best `n` proposals, or all where there are fewer. Raises ValueError for a negative `n`."""
        if n < 0:
            raise ValueError(f"the number of proposals must not be negative, got {n}")
        return Proposals(self.boxes[:n], self.scores[:n])
