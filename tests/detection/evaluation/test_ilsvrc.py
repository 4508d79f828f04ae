"""The ILSVRC protocol gives the results of the official kit, and of a simple second implementation of its rules."""

from __future__ import annotations

import gzip
import math
import tarfile
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.categories import Category
from inception_rcnn.data.ground_truth import GroundTruth, read_blacklist, read_ground_truth
from inception_rcnn.data.submission import Submission, read_submission
from inception_rcnn.detection.evaluation import ilsvrc
from inception_rcnn.detection.evaluation.average_precision import OperatingPoint
from inception_rcnn.detection.evaluation.bootstrap import bootstrap
from inception_rcnn.detection.evaluation.checks import EvaluationError
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.mistakes import worst_mistakes


def truth(pictures: list, **more) -> GroundTruth:
    """Ground truth of pictures 1, 2, ..., each given as a list of (label, box)."""
    rows = [(number, *one) for number, objects in enumerate(pictures, start=1) for one in objects]
    columns = [[row[i] for row in rows] for i in range(3)]
    return GroundTruth.from_arrays(range(1, len(pictures) + 1), *columns, **more)


def submission(rows: list) -> Submission:
    """Detections given as rows (image, label, score, *box)."""
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    return Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])


BOX = [11, 11, 60, 60]


@pytest.fixture(scope="module")
def val2(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    folder = tmp_path_factory.mktemp("val2")
    with tarfile.open(shared / "referee" / "val2_annotations.tar.gz") as archive:
        for member in archive:
            if member.isfile():
                content = archive.extractfile(member)
                assert content is not None
                (folder / Path(member.name).name).write_bytes(content.read())
    return read_ground_truth(folder, shared / "referee" / "val2.txt")


@pytest.mark.slow  # parses 9,917 XML files
@pytest.mark.parametrize("name", ["demo", "random"])
def test_large_cases_equal_the_official_kit(shared: Path, val2: GroundTruth, tmp_path: Path, name: str) -> None:
    referee = shared / "referee"
    predictions = tmp_path / "predictions.txt"
    predictions.write_bytes(gzip.decompress((referee / f"{name}_predictions.txt.gz").read_bytes()))
    blacklist = read_blacklist(referee / "random_blacklist.txt") if name == "random" else []
    official = dict(
        line.split()[-2:] for line in (referee / f"{name}_official_ap.txt").read_text().splitlines() if "AP " in line
    )
    got = evaluate(val2, read_submission(predictions), blacklist)
    assert got.ap == pytest.approx({int(label): float(ap) for label, ap in official.items()}, abs=1e-12, rel=0)
    mean = next(line for line in (referee / f"{name}_official_ap.txt").read_text().splitlines() if "MEAN" in line)
    assert got.mean_ap("official") == pytest.approx(float(mean.split()[1]), abs=1e-12, rel=0)
    assert got.mean_ap("official") == got.mean_ap("present")


def slow_ap(pictures: list, detections: list, blacklist: set[tuple[int, int]]) -> dict[int, float]:
    """AP by class: the rules applied one by one, in code that shares nothing with the package."""
    ranked = sorted(enumerate(detections), key=lambda one: (-one[1][2], one[1][0], one[0]))
    largest = max(label for objects in pictures for label, _ in objects)
    aps = {}
    for label in range(1, largest + 1):
        positives = sum(
            one == label and (i, label) not in blacklist
            for i, objects in enumerate(pictures, start=1)
            for one, _ in objects
        )
        taken: set[tuple[int, int]] = set()
        hits, total, points, of_class = 0, 0, [], 0
        for _, (image, got, _, *box) in ranked:
            if got != label:
                continue
            of_class += 1
            if (image, label) in blacklist:
                continue
            best, best_overlap = None, -1.0
            for k, (one, (x1, y1, x2, y2)) in enumerate(pictures[image - 1]):
                if one != label or (image, k) in taken:
                    continue
                w, h = min(box[2], x2) - max(box[0], x1) + 1, min(box[3], y2) - max(box[1], y1) + 1
                if w <= 0 or h <= 0:
                    continue
                gw, gh = x2 - x1 + 1, y2 - y1 + 1
                union = (box[2] - box[0] + 1) * (box[3] - box[1] + 1) + gw * gh - w * h
                if w * h / union >= min(0.5, gw * gh / ((gw + 10) * (gh + 10))) and w * h / union > best_overlap:
                    best, best_overlap = k, w * h / union
            total += 1
            if best is not None:
                taken.add((image, best))
                hits += 1
            points.append((hits / positives if positives else math.nan, hits / total))
        if of_class and not positives:
            aps[label] = math.nan
            continue
        area, reached = 0.0, 0.0
        for i, (recall, _) in enumerate(points):
            area += (recall - reached) * max(precision for _, precision in points[i:])
            reached = recall
        aps[label] = area
    return aps


@pytest.mark.parametrize("seed", range(30))
def test_random_cases_with_ties_and_duplicates_follow_the_rules(seed: int) -> None:
    generator = np.random.default_rng(seed)

    def box(near: list | None = None) -> list[float]:
        if near is not None:  # near an object, or exactly on it
            return [float(x) for x in np.array(near) + generator.integers(-3, 4, 4) * generator.integers(0, 2)]
        corner, size = generator.integers(1, 60, 2), generator.integers(-2, 45, 2)
        return [*map(float, corner), *map(float, corner + np.maximum(size, 0))]

    pictures = [
        [(int(generator.integers(1, 5)), box()) for _ in range(generator.integers(0, 7))] for _ in range(12)
    ] + [[(4, box())]]
    detections = []
    for _ in range(150):
        image = int(generator.integers(1, 14))
        objects = pictures[image - 1]
        near = objects[generator.integers(len(objects))] if objects and generator.random() < 0.7 else None
        label = near[0] if near and generator.random() < 0.8 else int(generator.integers(1, 7))
        detections.append([image, label, int(generator.integers(0, 8)) / 8, *box(near[1] if near else None)])
    blacklist = {(int(generator.integers(1, 14)), int(generator.integers(1, 5))) for _ in range(4)}
    got = evaluate(truth(pictures), submission(detections), blacklist)
    assert got.ap == pytest.approx(slow_ap(pictures, detections, blacklist), abs=1e-12, rel=0, nan_ok=True)


def test_a_detection_whose_preferred_object_is_taken_finds_the_next_free_object() -> None:
    # By score: the first detection takes the upper object. The second also prefers the upper object, but only the lower
    # object is free. The third fits the lower object exactly, but the second has taken it.
    objects = [(1, [1, 1, 100, 100]), (1, [1, 21, 100, 120])]
    rows = [[1, 1, 0.7, 1, 21, 100, 120], [1, 1, 0.8, 1, 5, 100, 104], [1, 1, 0.9, 1, 1, 100, 100]]
    got = evaluate(truth([objects]), submission(rows))
    assert got.matched.tolist() == [-1, 1, 0]
    assert got.classes[0].curve.true_positives.tolist() == [1, 2, 2]
    assert got.classes[0].curve.false_positives.tolist() == [0, 0, 1]


def test_the_order_of_pictures_and_of_detections_without_ties_does_not_matter() -> None:
    pictures = [[(1, BOX)], [(1, [5, 5, 30, 40]), (2, BOX)], []]
    rows = [[1, 1, 0.9, *BOX], [2, 1, 0.8, *BOX], [2, 2, 0.7, *BOX], [3, 1, 0.6, *BOX]]
    gt = truth(pictures)
    reordered = GroundTruth.from_arrays(gt.image_indices[::-1], gt.images[::-1], gt.labels[::-1], gt.inclusive[::-1])
    assert evaluate(reordered, submission(rows[::-1])).ap == evaluate(gt, submission(rows)).ap


def test_without_detections_ap_is_zero_with_a_notice() -> None:
    got = evaluate(truth([[(1, BOX)]]), submission([]))
    assert got.ap == {1: 0.0}
    assert "no detections" in got.notices[0]


def test_inverted_boxes_and_classes_above_the_largest_are_noticed() -> None:
    rows = [[1, 1, 0.9, 60, 60, 11, 11], [1, 5, 0.8, *BOX]]
    got = evaluate(truth([[(1, BOX)]]), submission(rows))
    assert got.ap == {1: 0.0}
    assert got.notices == (
        "1 detections have an inverted box (xmax < xmin or ymax < ymin) and match no object",
        "1 detections of classes above 1, the largest in the ground truth, are left out",
    )


def test_blacklisted_pictures_that_are_not_listed_are_noticed() -> None:
    got = evaluate(truth([[(1, BOX)]]), submission([[1, 1, 0.9, *BOX]]), [(9, 1)])
    assert got.ap == {1: 1.0}
    assert got.notices == ("1 of 1 blacklisted pairs are in pictures that are not listed",)


def test_infinite_scores_rank_first_and_last() -> None:
    rows = [[1, 1, -math.inf, *BOX], [1, 1, 0.5, 1, 1, 5, 5], [1, 1, math.inf, 1, 1, 5, 5]]
    got = evaluate(truth([[(1, BOX)]]), submission(rows))
    assert got.ap[1] == pytest.approx(1 / 3)
    assert got.classes[0].best_f1 is not None
    assert got.classes[0].best_f1.score == -math.inf


def test_the_example_in_the_documentation_gives_the_numbers_that_it_shows() -> None:
    text = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("# From files.")[0]
    names: dict = {}
    exec(code, names)
    got = names["evaluation"]
    assert (got.ap[1], got.ap[58], got.ap[124], len(got.ap)) == (0.0, 1.0, 0.0, 124)
    assert got.mean_ap() == 0.5
    assert got.matched.tolist() == [0, -1]
    assert got.classes[57].best_f1 == OperatingPoint(score=0.9, precision=1.0, recall=1.0, f1=1.0)
    counts = names["analyse"](got).counts
    assert (counts["background"], counts["missed"], sum(counts.values())) == (1, 1, 2)


def huge_ids(*ids: int) -> tuple[GroundTruth, Submission]:
    """An object of each class in picture 1, each found by a detection except the first."""
    boxes = np.array([[10.0 * n, 0, 10 * n + 9, 9] for n in range(len(ids))])
    categories = [Category(number, str(number), str(number)) for number in ids]
    truth = GroundTruth.from_arrays([1], [1] * len(ids), list(ids), boxes, categories=categories)
    return truth, Submission.from_boxes([1] * (len(ids) - 1), ids[1:], [0.5] * (len(ids) - 1), boxes[1:])


def test_with_huge_class_ids_only_the_classes_that_occur_are_listed() -> None:
    truth, detections = huge_ids(3, 7, 10**8, 2**53 - 1)
    evaluation = evaluate(truth, detections)
    assert evaluation.ap == {3: 0, 7: 1, 10**8: 1, 2**53 - 1: 1}
    assert evaluation.mean_ap() == 0.75
    assert evaluation.mean_ap("official") == 3 / (2**53 - 1)
    analysis = analyse(evaluation)
    assert analysis.counts["missed"] == 1
    assert len(worst_mistakes(evaluation, analysis)) == 4
    assert bootstrap(evaluation, 5).aps.shape == (5, 4)


def test_the_official_mean_is_the_same_whether_absent_classes_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, detections = huge_ids(3, 7)
    listed = evaluate(truth, detections)
    assert [result.category.id for result in listed.classes] == [1, 2, 3, 4, 5, 6, 7]
    monkeypatch.setattr(ilsvrc, "_LARGEST_LISTED_ID", 6)
    occurring = evaluate(truth, detections)
    assert [result.category.id for result in occurring.classes] == [3, 7]
    assert listed.mean_ap("official") == occurring.mean_ap("official") == 1 / 7


def test_class_0_of_a_coco_file_is_evaluated() -> None:
    evaluation = evaluate(*huge_ids(1, 0))
    assert evaluation.ap == {0: 1, 1: 0}
    assert evaluation.mean_ap("official") == 0.5


def test_a_number_of_the_blacklist_beyond_64_bits_is_an_evaluation_error() -> None:
    with pytest.raises(EvaluationError, match="64 bits"):
        evaluate(*huge_ids(1, 2), blacklist=[(2**64, 1)])
