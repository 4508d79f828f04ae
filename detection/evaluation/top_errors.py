"""Top-1 and top-5 error of classifiers, and Table 3 of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015).

A picture counts as right in the top-5 error if its class is among the five most probable classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from .bootstrap import interval

# Table 3 on the 50,000 validation pictures, by the number of networks and of crops: the top-5 error, and the change to
# the first row, as the paper prints them. (The last change would be -0.0340 by the paper's errors.)
PAPER = {
    (1, 1): (0.1007, 0.0),
    (1, 10): (0.0915, -0.0092),
    (1, 144): (0.0789, -0.0218),
    (7, 1): (0.0809, -0.0198),
    (7, 10): (0.0762, -0.0245),
    (7, 144): (0.0667, -0.0345),
}
_RESAMPLES = 1000


@dataclass(frozen=True)
class ErrorRate:
    """The share of pictures whose class a classifier misses.

    Attributes:
        wrong: number of pictures that it misses.
        images: number of pictures.
    """

    wrong: int
    images: int

    @property
    def error(self) -> float:
        """The share in 0..1."""
        return self.wrong / self.images

    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the share (Clopper & Pearson, 1934), in 0..1."""
        found = binomtest(self.wrong, self.images).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


def is_wrong(labels: npt.ArrayLike, ranked: npt.ArrayLike, first: int) -> npt.NDArray[np.bool_]:
    """Whether each picture's class is missing among the `first` most probable classes.

    Args:
        labels: int [N], the right classes.
        ranked: int [N, ..., K], the classes by probability, the most probable first; K >= `first`, or all classes.
        first: 1 for the top-1 error, 5 for the top-5 error.

    Returns:
        bool [N, ...].
    """
    labels, ranked = np.asarray(labels), np.asarray(ranked)
    labels = labels.reshape(-1, *[1] * (ranked.ndim - 1))
    return ~(ranked[..., :first] == labels).any(axis=-1)


def error_rate(wrong: npt.NDArray[np.bool_]) -> ErrorRate:
    """The error rate of N >= 1 pictures, bool [N]."""
    return ErrorRate(int(wrong.sum()), len(wrong))


@dataclass(frozen=True)
class Table3Row:
    """A row of Table 3.

    Attributes:
        networks, crops: the numbers of networks and of crops.
        top1, top5: the errors; None if they were not measured.
        change: the top-5 error minus that of the first row; None if it was not measured.
        change_interval: the middle 95 % of the change on resampled pictures (the bootstrap).
        paper: the paper's top-5 error and change; None if the paper does not give them.
    """

    networks: int
    crops: int
    top1: ErrorRate | None
    top5: ErrorRate | None
    change: float | None
    change_interval: tuple[float, float] | None
    paper: tuple[float, float] | None

    @property
    def cost(self) -> int:
        """Forward passes for a picture."""
        return self.networks * self.crops


def table3(
    cells: Sequence[tuple[int, int]], labels: npt.NDArray[np.int64], ranked: npt.NDArray[np.int64]
) -> list[Table3Row]:
    """Makes Table 3: a row for each of `cells`, and for each row of the paper that is missing among them.

    Args:
        cells: the numbers of networks and of crops of M classifications of the same pictures; (1, 1) is among them.
        labels: int [N], the right classes.
        ranked: int [N, M, K], the classes by probability, see `is_wrong`.
    """
    wrong1, wrong5 = is_wrong(labels, ranked, 1), is_wrong(labels, ranked, 5)  # [N, M]
    base = wrong5[:, list(cells).index((1, 1))].astype(np.int64)
    rows = {}
    for column, cell in enumerate(cells):
        difference = wrong5[:, column] - base
        rows[cell] = Table3Row(
            *cell,
            error_rate(wrong1[:, column]),
            error_rate(wrong5[:, column]),
            float(difference.mean()),
            _interval_of_mean(difference),
            PAPER.get(cell),
        )
    for cell, paper in PAPER.items():
        rows.setdefault(cell, Table3Row(*cell, None, None, None, None, paper))
    return [rows[cell] for cell in sorted(rows)]


def _interval_of_mean(differences: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The 95 % interval of the mean of N differences -1, 0 or 1, by the bootstrap.

    The pictures with equal differences are interchangeable, so it is enough to draw how many of each there are.
    """
    images = len(differences)
    shares = np.bincount(differences + 1, minlength=3) / images
    drawn = np.random.default_rng([0, 0]).multinomial(images, shares, _RESAMPLES)  # [resamples, 3]
    return interval((drawn[:, 2] - drawn[:, 0]) / images)
