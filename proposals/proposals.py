"""The type that every proposal method returns: boxes with scores, best first."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Source(IntEnum):
    """The method that proposed a box."""

    SELECTIVE_SEARCH = 0
    MULTIBOX = 1


@dataclass(frozen=True)
class Proposals:
    """Regions of one image that may contain an object, best first.

    Attributes:
        boxes: float32 ``[N, 4]``, ``(x1, y1, x2, y2)`` in pixels of the input image, 0-based, continuous and
            half-open: the box of a whole W x H image is ``(0, 0, W, H)``.
        scores: float32 ``[N]``, falling. Scores of different methods are not comparable, and they need not be
            probabilities.
        source: uint8 ``[N]``, the `Source` of each box; `Source.SELECTIVE_SEARCH` by default.
        quality: float32 ``[N]`` in 0..1, the IoU with the object that the screen expects; None without a screen.
        classes: float32 ``[N, 1 + K]``, the probabilities that the screen gives its K classes, column 0 the background;
            None without a screen.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    source: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    quality: NDArray[np.float32] | None = None
    classes: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4 or self.scores.shape != (len(self.boxes),):
            raise ValueError(
                f"proposals need boxes [N, 4] and scores [N], got {self.boxes.shape} and {self.scores.shape}"
            )
        if not len(self.source):
            object.__setattr__(self, "source", np.full(len(self.boxes), Source.SELECTIVE_SEARCH, np.uint8))
        if self.source.shape != self.scores.shape:
            raise ValueError(f"proposals need a source for each of {len(self.boxes)} boxes, got {self.source.shape}")
        if self.quality is not None and self.quality.shape != self.scores.shape:
            raise ValueError(f"proposals need a quality for each of {len(self)} boxes, got {self.quality.shape}")
        if self.classes is not None and (self.classes.ndim != 2 or len(self.classes) != len(self)):
            raise ValueError(f"proposals need classes for each of {len(self)} boxes, got {self.classes.shape}")

    def __len__(self) -> int:
        return len(self.boxes)

    def top(self, n: int) -> Proposals:
        """Returns the best `n` proposals, or all if there are fewer. Raises ValueError if `n` is negative."""
        if n < 0:
            raise ValueError(f"the number of proposals must not be negative, got {n}")
        return self[np.arange(min(n, len(self)))]

    def __getitem__(self, rows: NDArray[np.int64]) -> Proposals:
        """Returns the proposals of these rows, in the order of the rows."""
        quality = None if self.quality is None else self.quality[rows]
        classes = None if self.classes is None else self.classes[rows]
        return Proposals(self.boxes[rows], self.scores[rows], self.source[rows], quality, classes)
