"""The VOC protocols give the answers of a plain reading of the rules that shares no code with the package."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.voc import evaluate_voc


def voc_ap(pictures: list, rows: list, label: int, year: int) -> float:
    """AP of one class. Pictures are lists of (label, difficult, box); rows are (image, label, score, *box)."""
    positives = sum(one == label and not difficult for objects in pictures for one, difficult, _ in objects)
    ranked = sorted((row for row in rows if row[1] == label), key=lambda row: (-row[2], row[0]))
    seen, hits, total, points = set(), 0, 0, []
    for image, _, _, *box in ranked:
        best, best_overlap = None, 0.0
        for k, (one, _, gt) in enumerate(pictures[image - 1]):
            w, h = min(box[2], gt[2]) - max(box[0], gt[0]) + 1, min(box[3], gt[3]) - max(box[1], gt[1]) + 1
            if one == label and w > 0 and h > 0:
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, gt)]
                if (overlap := w * h / (sum(areas) - w * h)) > best_overlap:
                    best, best_overlap = k, overlap
        if best is not None and best_overlap >= 0.5 and pictures[image - 1][best][1]:
            continue  # difficult
        total += 1
        if best is not None and best_overlap >= 0.5 and (image, best) not in seen:
            seen.add((image, best))
            hits += 1
        points.append((hits / positives if positives else math.nan, hits / total))
    if year == 2007:
        return sum(max([p for r, p in points if r >= t * 0.1], default=0.0) for t in range(11)) / 11
    area, reached = 0.0, 0.0
    for i, (recall, _) in enumerate(points):
        area += (recall - reached) * max(p for _, p in points[i:])
        reached = recall
    return area


def as_arrays(pictures: list, rows: list) -> tuple[GroundTruth, Submission]:
    objects = [(number, *one) for number, of_one in enumerate(pictures, start=1) for one in of_one]
    truth = GroundTruth.from_arrays(
        range(1, len(pictures) + 1),
        [one[0] for one in objects],
        [one[1] for one in objects],
        [one[3] for one in objects],
        difficult=[one[2] for one in objects],
    )
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return truth, Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])


@pytest.mark.parametrize("year", [2007, 2012])
@pytest.mark.parametrize("seed", range(12))
def test_random_cases_follow_the_voc_rules(year: int, seed: int) -> None:
    generator = np.random.default_rng(seed)

    def box() -> list[float]:
        corner = generator.integers(1, 50, 2)
        return [*map(float, corner), *map(float, corner + generator.integers(5, 45, 2))]

    pictures = [
        [(int(generator.integers(1, 4)), bool(generator.random() < 0.25), box()) for _ in range(generator.integers(6))]
        for _ in range(15)
    ] + [[(label, False, box()) for label in (1, 2, 3)]]
    rows = []
    for _ in range(200):
        image = int(generator.integers(1, 17))
        objects = pictures[image - 1]
        if objects and generator.random() < 0.75:
            label, _, near = objects[generator.integers(len(objects))]
            moved = [float(x) for x in np.array(near) + generator.integers(-4, 5, 4)]
        else:
            label, moved = int(generator.integers(1, 4)), box()
        rows.append([image, label, int(generator.integers(20)) / 20, *moved])
    got = evaluate_voc(*as_arrays(pictures, rows), year=year)
    expected = {label: voc_ap(pictures, rows, label, year) for label in (1, 2, 3)}
    assert got.ap == pytest.approx(expected, abs=1e-12, rel=0)
    assert got.mean_ap() == pytest.approx(sum(expected.values()) / 3, abs=1e-12)


BOX, ELSEWHERE = [11, 11, 60, 60], [101, 101, 160, 160]


def test_difficult_objects_and_detections_on_them_do_not_count() -> None:
    truth, rows = as_arrays([[(1, True, BOX), (1, False, ELSEWHERE)]], [[1, 1, 0.9, *BOX], [1, 1, 0.8, *ELSEWHERE]])
    got = evaluate_voc(truth, rows)
    assert got.ap == {1: 1.0}
    assert (got.classes[0].positives, got.classes[0].ignored) == (1, 1)


def test_a_detection_whose_closest_object_is_taken_is_a_false_positive() -> None:
    # In ILSVRC it would find the free object. Its IoU is 0.69 with the free object and 0.96 with the taken object.
    pictures = [[(1, False, [1, 1, 100, 100]), (1, False, [1, 21, 100, 120])]]
    rows = [[1, 1, 0.9, 1, 1, 100, 100], [1, 1, 0.8, 1, 3, 100, 102]]
    assert evaluate_voc(*as_arrays(pictures, rows)).ap == {1: 0.5}


def test_eleven_points_of_a_hand_computed_curve() -> None:
    # Two of three objects are found, by the first and the third detection. The best precision is 1 up to recall 1/3
    # (4 points), 2/3 up to recall 2/3 (3 points), and 0 above.
    pictures = [[(1, False, BOX), (1, False, ELSEWHERE), (1, False, [201, 201, 250, 250])]]
    rows = [[1, 1, 0.9, *BOX], [1, 1, 0.8, 1, 301, 20, 320], [1, 1, 0.7, *ELSEWHERE]]
    assert evaluate_voc(*as_arrays(pictures, rows), year=2007).ap[1] == pytest.approx((4 + 3 * 2 / 3) / 11)
    assert evaluate_voc(*as_arrays(pictures, rows), year=2012).ap[1] == pytest.approx(1 / 3 + 2 / 9)


def test_detections_of_classes_without_ground_truth_are_noticed() -> None:
    got = evaluate_voc(*as_arrays([[(1, False, BOX)]], [[1, 1, 0.9, *BOX], [1, 2, 0.9, *BOX]]))
    assert got.ap == {1: 1.0}
    assert got.notices == ("1 detections are of classes that do not occur in ground truth; they are left out",)


@pytest.mark.parametrize("year", [2007, 2012])
def test_a_class_whose_detections_all_fall_on_difficult_objects_has_ap_zero(year: int) -> None:
    far, near = (1, 1, 50, 50), (101, 1, 150, 50)
    truth, found = as_arrays([[(7, True, far), (7, False, near)]], [(1, 7, 0.9, *far)])
    (result,) = evaluate_voc(truth, found, year).classes
    assert result.ap == 0
