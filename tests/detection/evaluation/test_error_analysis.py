"""Every mistake has the right kind, and every gain equals that of evaluating corrected input."""

from __future__ import annotations

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.error_analysis import ERRORS, ErrorAnalysis, analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.result import Evaluation
from inception_rcnn.detection.evaluation.voc import evaluate_voc

BOX = [1, 1, 100, 100]
FAR = [301, 301, 400, 400]
SHIFTED = [1, 61, 100, 160]  # IoU with BOX 0.25


def arrays(objects: list, rows: list) -> tuple[GroundTruth, Submission]:
    """Objects (image, label, box) and rows (image, label, score, box) of pictures 1 and 2."""
    images, labels, boxes = zip(*objects, strict=True)
    table = np.array([[*row[:3], *row[3]] for row in rows], dtype=np.float64).reshape(-1, 7)
    detections = Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])
    return GroundTruth.from_arrays([1, 2], images, labels, boxes), detections


def run(objects: list, rows: list) -> tuple[Evaluation, ErrorAnalysis]:
    evaluation = evaluate(*arrays(objects, rows))
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
def test_the_kind_of_a_false_positive_depends_on_its_class_and_its_iou(kind: str, row: tuple) -> None:
    _, analysis = run([(1, 1, BOX), (1, 2, [501, 501, 600, 600])], [row])
    assert analysis.kinds.tolist() == [kind]
    assert analysis.counts[kind] == 1


def test_a_second_detection_is_a_duplicate_whose_removal_raises_map() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX)]
    _, analysis = run(objects, [(1, 1, 0.9, BOX), (1, 1, 0.8, BOX), (2, 1, 0.7, BOX)])
    assert analysis.kinds.tolist() == ["", "duplicate", ""]
    assert analysis.mean_ap == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert analysis.gains["duplicate"] == pytest.approx(1 - analysis.mean_ap)
    assert analysis.gain_without_false_positives == pytest.approx(analysis.gains["duplicate"])


def test_an_object_with_a_localisation_or_classification_error_is_not_missed() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX), (2, 2, FAR)]
    _, analysis = run(objects, [(1, 1, 0.9, SHIFTED), (2, 2, 0.8, BOX)])
    assert analysis.missed.tolist() == [False, False, True]
    assert analysis.objects.tolist() == [0, 1]


def test_corrected_localisation_errors_find_their_object_once() -> None:
    _, analysis = run([(1, 1, BOX)], [(1, 1, 0.9, SHIFTED), (1, 1, 0.8, [1, 1, 100, 40])])
    assert analysis.kinds.tolist() == ["localisation", "localisation"]
    assert analysis.mean_ap == 0
    assert analysis.gains["localisation"] == 1  # the better detection becomes a true positive, the other is removed


def test_a_corrected_classification_error_moves_to_the_class_of_its_object() -> None:
    objects = [(1, 1, BOX), (2, 2, BOX)]
    _, analysis = run(objects, [(1, 2, 0.9, BOX), (2, 2, 0.8, BOX)])
    assert analysis.kinds.tolist() == ["classification", ""]
    assert analysis.mean_ap == pytest.approx((0 + 0.5) / 2)
    assert analysis.gains["classification"] == pytest.approx(0.75)


def test_a_corrected_classification_error_is_removed_if_its_object_is_found_already() -> None:
    objects = [(1, 1, BOX), (2, 2, BOX)]
    _, analysis = run(objects, [(1, 1, 0.9, BOX), (1, 2, 0.95, BOX), (2, 2, 0.8, BOX)])
    assert analysis.kinds.tolist() == ["", "classification", ""]
    assert analysis.gains["classification"] == pytest.approx(1 - 0.75)


def test_correcting_missed_objects_removes_them_from_the_ground_truth() -> None:
    _, analysis = run([(1, 1, BOX), (1, 1, FAR)], [(1, 1, 0.9, BOX)])
    assert (analysis.counts["missed"], analysis.gains["missed"], analysis.gain_without_misses) == (1, 0.5, 0.5)


def test_background_ends_at_a_smaller_iou_for_small_objects() -> None:
    # A 10 x 10 object is found at IoU 0.25, so background ends at 0.05. The IoUs are 16/184 = 0.09 and 2/198 = 0.01.
    _, analysis = run([(1, 1, [1, 1, 10, 10])], [(1, 1, 0.9, [9, 3, 18, 12]), (1, 1, 0.8, [10, 9, 19, 18])])
    assert analysis.kinds.tolist() == ["localisation", "background"]


def relative_iou(box: list, of: list) -> float:
    """The IoU of a box with an object, divided by the IoU at which ILSVRC finds the object."""
    width, height = min(box[2], of[2]) - max(box[0], of[0]) + 1, min(box[3], of[3]) - max(box[1], of[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    object_width, object_height = of[2] - of[0] + 1, of[3] - of[1] + 1
    area = object_width * object_height
    union = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) + area - width * height
    return width * height / union / min(0.5, area / ((object_width + 10) * (object_height + 10)))


def kind_and_object(objects: list, row: tuple) -> tuple[str, int]:
    """A plain reading of TIDE's rules for one false positive: its kind, and the object that the mistake is about."""
    image, label, _, box = row
    same, other = (0.0, -1), (0.0, -1)
    for number, (object_image, object_label, object_box) in enumerate(objects):
        overlap = relative_iou(box, object_box) if object_image == image else 0.0
        if object_label == label and overlap > same[0]:
            same = (overlap, number)
        if object_label != label and overlap > other[0]:
            other = (overlap, number)
    if 0.2 <= same[0] < 1:
        return "localisation", same[1]
    if other[0] >= 1:
        return "classification", other[1]
    if same[0] >= 1:
        return "duplicate", same[1]
    return ("background" if max(same[0], other[0]) < 0.2 else "both"), -1


def random_case(seed: int) -> tuple[list, list]:
    """Objects and detections of three classes in two pictures, in which every kind of mistake occurs."""
    generator = np.random.default_rng(seed)

    def box() -> list[int]:
        corner = generator.integers(1, 150, 2)
        return [*corner.tolist(), *(corner + generator.integers(5, 60, 2)).tolist()]

    objects = [(int(generator.integers(1, 3)), int(generator.integers(1, 4)), box()) for _ in range(40)]
    rows = []
    for score in generator.permutation(80) / 80:
        image, label, near = objects[generator.integers(len(objects))]
        moved = (np.array(near) + generator.integers(-8, 9, 4) * generator.integers(0, 2)).tolist()
        if generator.random() < 0.3:
            label = int(generator.integers(1, 4))
        rows.append((image, label, float(score), moved if generator.random() < 0.7 else box()))
    return objects, rows


@pytest.mark.parametrize("seed", range(4))
def test_kinds_follow_the_rules_of_tide(seed: int) -> None:
    objects, rows = random_case(seed)
    evaluation, analysis = run(objects, rows)
    expected = [
        kind_and_object(objects, row) if wrong else ("", -1)
        for row, wrong in zip(rows, evaluation.false_positives, strict=True)
    ]
    assert list(zip(analysis.kinds.tolist(), analysis.objects.tolist(), strict=True)) == expected
    about = {number for kind, number in expected if kind in ("localisation", "classification")}
    not_found = set(range(len(objects))) - set(evaluation.matched.tolist())
    assert set(np.flatnonzero(analysis.missed).tolist()) == not_found - about
    assert analysis.counts == {kind: [one for one, _ in expected].count(kind) for kind in ERRORS} | {
        "missed": len(not_found - about)
    }
    assert min(analysis.counts.values()) > 0


@pytest.mark.parametrize("seed", range(4))
def test_gains_are_those_of_evaluating_corrected_detections_and_objects(seed: int) -> None:
    objects, rows = random_case(seed)
    evaluation, analysis = run(objects, rows)
    base = evaluation.mean_ap()
    assert analysis.mean_ap == pytest.approx(base, abs=1e-12)

    for kind in ("classification", "localisation", "both", "duplicate", "background"):
        taken = set(evaluation.matched.tolist())
        corrected = []
        for number in np.argsort(evaluation.ranks).tolist():
            about = int(analysis.objects[number])
            if analysis.kinds[number] != kind:
                corrected.append(rows[number])
            elif about >= 0 and about not in taken:
                taken.add(about)
                corrected.append((objects[about][0], objects[about][1], rows[number][2], objects[about][2]))
        assert analysis.gains[kind] == pytest.approx(run(objects, corrected)[0].mean_ap() - base, abs=1e-12)

    not_missed = [one for one, missed in zip(objects, analysis.missed, strict=True) if not missed]
    assert analysis.gains["missed"] == pytest.approx(run(not_missed, rows)[0].mean_ap() - base, abs=1e-12)
    true_positives = [row for row, matched in zip(rows, evaluation.matched, strict=True) if matched >= 0]
    expected = run(objects, true_positives)[0].mean_ap() - base
    assert analysis.gain_without_false_positives == pytest.approx(expected, abs=1e-12)
    found = [objects[number] for number in sorted(set(evaluation.matched.tolist()) - {-1})]
    assert analysis.gain_without_misses == pytest.approx(run(found, rows)[0].mean_ap() - base, abs=1e-12)


def test_the_error_analysis_of_voc07_uses_its_average_precision() -> None:
    truth, detections = arrays(*random_case(0))
    evaluation = evaluate_voc(truth, detections, year=2007)
    assert analyse(evaluation).mean_ap == pytest.approx(evaluation.mean_ap(), abs=1e-12)
