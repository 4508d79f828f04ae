"""The results of a run over many pictures that are classified, as a `RunState` stores them.

A run has one classification, by all networks over a number of crops, or for Table 3 of the paper several, which share
their forward passes. The K most probable classes of each classification are stored as detections, whose box is the
whole picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..data.augment import CROP_COUNTS
from .classification import PictureProbabilities
from .detections import Detections
from .run_state import Result, RunState, RunStateError


class Cell(NamedTuple):
    """A classification: the mean over the first `networks` networks, each of them over `crops` crops."""

    networks: int
    crops: int


def table3_cells(networks: int) -> list[Cell]:
    """The classifications of Table 3 with up to `networks` networks. The last has all networks and 144 crops."""
    return [Cell(number, crops) for number in range(1, networks + 1) for crops in CROP_COUNTS]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The most probable classes of a picture in each of M classifications, or the reason why it could not be read.

    Attributes:
        picture: index in the run's list of pictures.
        positions: int64 [M, K], positions of the classes, the most probable first. None if there is a failure.
        probabilities: float32 [M, K], their probabilities. None if there is a failure.
        failure: why the picture could not be read; None if it was read.
    """

    picture: int
    positions: np.ndarray | None
    probabilities: np.ndarray | None
    failure: str | None


def rank(picture: int, found: PictureProbabilities, cells: Sequence[Cell], counts: Sequence[int], kept: int) -> Result:
    """The most probable classes of a picture, to be stored in a `RunState`.

    Args:
        picture: index in the run's list of pictures.
        found: the probabilities, for `counts`.
        cells: the M classifications.
        counts: the numbers of crops.
        kept: K, the number of classes that are stored.
    """
    if found.probabilities is None:
        return Result(picture, 0, 0, None, found.error.reason if found.error else "not read")
    means = np.stack([found.probabilities[counts.index(crops), :networks].mean(axis=0) for networks, crops in cells])
    order = np.argsort(-means, axis=1, kind="stable")[:, :kept]  # [M, K]
    boxes = np.tile(np.array([0, 0, found.width, found.height], np.float32), (order.size, 1))
    scores = np.take_along_axis(means, order, axis=1).clip(0, 1).astype(np.float32)
    return Result(picture, found.width, found.height, Detections(boxes, scores.ravel(), order.ravel()), None)


def rankings(state: RunState, cells: int, kept: int) -> Iterator[Ranking]:
    """Yields the results so far, in the order of the pictures.

    Args:
        state: the run; its results are those of `rank`.
        cells: M, the number of classifications.
        kept: K, the number of classes that are stored.

    Raises:
        RunStateError: a row cannot be read, or does not fit the run.
    """
    for result in state.results():
        if result.detections is None:
            yield Ranking(result.picture, None, None, result.failure)
            continue
        if len(result.detections) != cells * kept:
            raise RunStateError(
                f"{state.file} is not the state of this run (picture {result.picture} has {len(result.detections)} "
                f"classes, expected {cells * kept}); delete it to start a new run"
            )
        positions, scores = result.detections.labels, result.detections.scores
        yield Ranking(result.picture, positions.reshape(cells, kept), scores.reshape(cells, kept), None)
