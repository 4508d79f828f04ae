"""The type `Proposals`."""

import numpy as np
import pytest

from inception_rcnn.proposals.proposals import Proposals, Source

BOXES = np.array([[0, 0, 1, 1], [2, 2, 4, 4]], np.float32)
SCORES = np.array([0.5, 0.25], np.float32)


def test_the_default_source_is_selective_search() -> None:
    assert Proposals(BOXES, SCORES).source.tolist() == [Source.SELECTIVE_SEARCH] * 2


def test_top_returns_the_first_boxes_with_their_scores_and_sources() -> None:
    proposals = Proposals(BOXES, SCORES, np.array([Source.MULTIBOX, Source.SELECTIVE_SEARCH], np.uint8))
    best = proposals.top(1)
    assert (best.boxes.tolist(), best.scores.tolist(), best.source.tolist()) == ([[0, 0, 1, 1]], [0.5], [1])
    assert len(proposals.top(9)) == 2
    assert proposals.top(0).source.shape == (0,)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        proposals.top(-1)


@pytest.mark.parametrize(
    ("boxes", "scores", "problem"),
    [
        (np.zeros((2, 5), np.float32), SCORES, r"\(2, 5\) and \(2,\)"),
        (np.zeros(4, np.float32), SCORES, r"\(4,\)"),
        (BOXES, SCORES[:1], r"\(2, 4\) and \(1,\)"),
    ],
)
def test_arrays_of_other_shapes_are_rejected(boxes: np.ndarray, scores: np.ndarray, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Proposals(boxes, scores)


def test_every_box_needs_a_source() -> None:
    with pytest.raises(ValueError, match="a source for each of 2 boxes"):
        Proposals(BOXES, SCORES, np.zeros(3, np.uint8))


def test_rows_keep_what_the_screen_says_of_them() -> None:
    classes = np.array([[0.1, 0.9], [0.6, 0.4]], np.float32)
    proposals = Proposals(BOXES, SCORES, quality=np.array([0.7, 0.3], np.float32), classes=classes)
    second = proposals[np.array([1])]
    assert second.quality is not None
    assert second.classes is not None
    assert (second.quality.tolist(), second.classes.tolist()) == ([np.float32(0.3)], [classes[1].tolist()])
    with pytest.raises(ValueError, match=r"classes for each of 2 boxes, got \(1, 2\)"):
        Proposals(BOXES, SCORES, classes=classes[:1])
