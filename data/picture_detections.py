"""The detections in a picture, as the writers of result files take them."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class PictureDetections:
    """The N detections in a picture.

    Attributes:
        file_name: name of the picture.
        width, height: size of the picture in pixels.
        boxes: [N, 4] in the program's convention (0-based, half-open), see `data.boxes`.
        scores: [N].
        labels: [N], each a `Category.id`.
        subclasses: [N], rows of the writer's `finest`, -1 where none is known; None if no subclass is known.
    """

    file_name: str
    width: int
    height: int
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    subclasses: np.ndarray | None = None

    def subclass_rows(self) -> np.ndarray:
        """`subclasses`, or -1 for each detection if no subclass is known: int64 [N]."""
        return np.full(len(self.labels), -1) if self.subclasses is None else self.subclasses
