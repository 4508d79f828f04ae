"""The order in which detections are evaluated, and how ties between equal scores are broken."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...data.submission import Submission


def rank_detections(detections: Submission) -> npt.NDArray[np.int64]:
    """Returns the rank of each detection, int64 [D]; 0 is the largest score.

    Ties are broken as in the official ILSVRC kit: by smaller picture number, then by earlier row.
    """
    ranks = np.empty(len(detections), np.int64)
    ranks[np.lexsort((detections.image_indices, -detections.scores))] = np.arange(len(detections))
    return ranks
