"""Each kind of mistake by itself, and what putting it right gives."""

from __future__ import annotations

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.error_analysis import ERRORS, ErrorAnalysis, analyse
from inception_rcnn.detection.evaluation.ilsvrc import Evaluation, evaluate
from inception_rcnn.detection.evaluation.mistakes import worst_mistakes
from inception_rcnn.detection.evaluation.voc import evaluate_voc

BOX = [1, 1, 100, 100]
FAR = [301, 301, 400, 400]
SHIFTED = [1, 61, 100, 160]  # IoU with BOX 0.25


def run(objects: list, rows: list) -> tuple[Evaluation, ErrorAnalysis]:
    """Objects: (image, label, box); rows: (image, label, score, box)."""
    truth = GroundTruth.from_arrays(
        [1, 2], [one[0] for one in objects], [one[1] for one in objects], [one[2] for one in objects]
    )
    table = np.array([[*row[:3], *row[3]] for row in rows], dtype=np.float64).reshape(-1, 7)
    rows_ = Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])
    evaluation = evaluate(truth, rows_)
    return evaluation, analyse(evaluation)


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("classification", (1, 2, 0.9, BOX)),
        ("localisation", (1, 1, 0.9, SHIFTED)),
        ("both", (1, 2, 0.9, SHIFTED)),
        ("background", (1, 1, 0.9, FAR)),
        ("background", (2, 1, 0.9, BOX)),  # a picture without objects
    ],
)
def test_a_false_positive_is_named(kind: str, row: tuple) -> None:
    _, analysis = run([(1, 1, BOX), (1, 2, [501, 501, 600, 600])], [row])
    assert analysis.kinds.tolist() == [kind]
    assert analysis.counts[kind] == 1


def test_a_second_detection_is_a_duplicate_and_its_removal_gains() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX)]
    _, analysis = run(objects, [(1, 1, 0.9, BOX), (1, 1, 0.8, BOX), (2, 1, 0.7, BOX)])
    assert analysis.kinds.tolist() == ["", "duplicate", ""]
    assert analysis.mean_ap == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert analysis.gains["duplicate"] == pytest.approx(1 - analysis.mean_ap)
    assert analysis.gain_without_false_positives == pytest.approx(analysis.gains["duplicate"])


def test_objects_nearly_found_are_not_missed() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX), (2, 2, FAR)]
    _, analysis = run(objects, [(1, 1, 0.9, SHIFTED), (2, 2, 0.8, BOX)])
    assert analysis.missed.tolist() == [False, False, True]
    assert analysis.objects.tolist() == [0, 1]


def test_putting_localisation_right_finds_the_object_once() -> None:
    _, analysis = run([(1, 1, BOX)], [(1, 1, 0.9, SHIFTED), (1, 1, 0.8, [1, 1, 100, 40])])
    assert analysis.kinds.tolist() == ["localisation", "localisation"]
    assert analysis.mean_ap == 0
    assert analysis.gains["localisation"] == 1  # the better one hits, the other vanishes


def test_putting_a_class_right_moves_the_detection_to_that_class() -> None:
    objects = [(1, 1, BOX), (2, 2, BOX)]
    _, analysis = run(objects, [(1, 2, 0.9, BOX), (2, 2, 0.8, BOX)])
    assert analysis.kinds.tolist() == ["classification", ""]
    assert analysis.mean_ap == pytest.approx((0 + 0.5) / 2)
    assert analysis.gains["classification"] == pytest.approx(0.75)


def test_a_class_error_on_an_object_already_found_vanishes() -> None:
    objects = [(1, 1, BOX), (2, 2, BOX)]
    _, analysis = run(objects, [(1, 1, 0.9, BOX), (1, 2, 0.95, BOX), (2, 2, 0.8, BOX)])
    assert analysis.kinds.tolist() == ["", "classification", ""]
    assert analysis.gains["classification"] == pytest.approx(1 - 0.75)


def test_missed_objects_leave_the_recall() -> None:
    _, analysis = run([(1, 1, BOX), (1, 1, FAR)], [(1, 1, 0.9, BOX)])
    assert (analysis.counts["missed"], analysis.gains["missed"], analysis.gain_without_misses) == (1, 0.5, 0.5)


def test_small_objects_are_near_at_less_overlap() -> None:
    # A 10 x 10 object is found at IoU 0.25, so that background ends at 0.05: this overlaps by 0.08.
    _, analysis = run([(1, 1, [1, 1, 10, 10])], [(1, 1, 0.9, [9, 1, 18, 10]), (1, 1, 0.8, [10, 9, 19, 18])])
    assert analysis.kinds.tolist() == ["localisation", "background"]


def test_every_false_positive_has_exactly_one_kind_and_every_gain_is_defined() -> None:
    generator = np.random.default_rng(0)

    def box() -> list[float]:
        corner = generator.integers(1, 60, 2)
        return [*corner, *(corner + generator.integers(5, 40, 2))]

    objects = [(int(generator.integers(1, 3)), int(generator.integers(1, 4)), box()) for _ in range(40)]
    rows = [
        (int(generator.integers(1, 3)), int(generator.integers(1, 4)), float(generator.random()), box())
        for _ in range(300)
    ]
    evaluation, analysis = run(objects, rows)
    assert ((analysis.kinds != "") == evaluation.false_positives).all()
    assert sum(analysis.counts[kind] for kind in ERRORS if kind != "missed") == evaluation.false_positives.sum()
    assert np.isfinite(list(analysis.gains.values())).all()
    assert analysis.mean_ap == pytest.approx(evaluation.mean_ap(), abs=1e-12)
    assert analyse(evaluate_voc(evaluation.ground_truth, evaluation.detections, year=2007)).mean_ap > 0


def test_worst_mistakes_are_the_highest_scored_and_the_largest() -> None:
    objects = [(1, 1, BOX), (2, 1, [1, 1, 30, 30]), (2, 1, [201, 201, 300, 300])]
    rows = [(1, 1, 0.3, FAR), (1, 1, 0.9, FAR), (2, 1, 0.6, FAR), (1, 1, 0.2, BOX)]
    evaluation, analysis = run(objects, rows)
    worst = worst_mistakes(evaluation, analysis, most=2)
    assert [(one.kind, one.score, one.picture) for one in worst[1]] == [
        ("background", 0.9, "1"),
        ("background", 0.6, "2"),
        ("missed", None, "2"),
        ("missed", None, "2"),
    ]
    assert worst[1][2].box == (201, 201, 300, 300)
