"""The COCO protocol gives the numbers that pycocotools computes from the files."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from inception_rcnn.data.coco import read_instances
from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.predictions import read_predictions
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation import coco
from inception_rcnn.detection.evaluation.checks import EvaluationError
from inception_rcnn.detection.evaluation.coco import evaluate_coco


@pytest.fixture(params=range(3))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """An annotation file with crowds, gaps between ids, areas of outlines and fractional boxes; and a result file."""
    generator = np.random.default_rng(request.param)
    images = [{"id": int(number), "file_name": f"{number:012}.jpg"} for number in generator.permutation(900)[:25]]
    categories = [{"id": number, "name": f"class {number}"} for number in (1, 3, 17, 90)]
    annotations, results = [], []
    for image in images:
        for _ in range(generator.integers(0, 8)):
            box = [round(float(x), 2) for x in (*generator.uniform(0, 300, 2), *generator.gamma(2, 40, 2) + 2)]
            category = int(generator.choice([1, 3, 17]))
            crowd = int(generator.random() < 0.1)
            area = round(box[2] * box[3] * float(generator.uniform(0.4, 1)), 3)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": area,
                    "iscrowd": crowd,
                }
            )
            for _ in range(generator.integers(0, 4)):
                moved = [round(float(x), 3) for x in np.array(box) * generator.normal(1, 0.08, 4)]
                label = category if generator.random() < 0.85 else int(generator.choice([1, 3, 17, 90]))
                score = round(float(generator.random()), 2)
                results.append({"image_id": image["id"], "category_id": label, "bbox": moved, "score": score})
    truth, found = tmp_path / "instances.json", tmp_path / "results.json"
    truth.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    found.write_text(json.dumps(results))
    return truth, found


def run_pycocotools(truth: Path, found: Path) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(truth))
        run = COCOeval(ground_truth, ground_truth.loadRes(str(found)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def test_all_numbers_equal_those_of_pycocotools(files: tuple[Path, Path]) -> None:
    official = run_pycocotools(*files)
    truth = read_instances(files[0])
    detections, _ = read_predictions(files[1], truth)
    got = evaluate_coco(truth, detections)
    assert list(got.measures.values()) == official.stats.tolist()
    assert got.mean_ap() == pytest.approx(official.stats[0], abs=1e-12)
    precision = official.eval["precision"]
    for result in got.classes:
        of_class = precision[:, :, official.params.catIds.index(result.category.id), 0, -1]
        assert result.ap == of_class.mean()
        assert result.measures["AP50"] == of_class[0].mean()
        assert result.measures["AP75"] == of_class[5].mean()


def test_matching_at_half_overlap_gives_the_recall_of_pycocotools(files: tuple[Path, Path]) -> None:
    official = run_pycocotools(*files)
    truth = read_instances(files[0])
    got = evaluate_coco(truth, read_predictions(files[1], truth)[0])
    recall = official.eval["recall"][0, :, 0, -1]
    for result in got.classes:
        expected = recall[official.params.catIds.index(result.category.id)]
        assert result.curve.recall[-1] == pytest.approx(expected, abs=1e-12)


def test_boxes_of_xml_files_are_evaluated_as_coco_boxes() -> None:
    truth = GroundTruth.from_arrays([1, 2], [1], [3], [[11, 21, 60, 60]])
    got = evaluate_coco(truth, Submission(*map(np.array, ([1], [3], [0.5], [[11.0, 21, 60, 60]]))))  # type: ignore[arg-type]
    assert got.ap == {3: pytest.approx(1.0)}
    assert got.measures["AP_medium"] == pytest.approx(1.0)
    assert np.isnan(got.measures["AP_small"])


def test_no_detections_give_zero() -> None:
    truth = GroundTruth.from_arrays([1, 2], [1], [3], [[11, 21, 60, 60]])
    empty = Submission(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty((0, 4)))
    assert evaluate_coco(truth, empty).ap == {3: 0.0}


def test_only_the_hundred_best_of_a_class_in_a_picture_count() -> None:
    truth = GroundTruth.from_arrays([1], [1], [1], [[11, 11, 60, 60]])
    wrong, right = [[1, 1, 0.9, 200, 200, 220, 220]] * 100, [[1, 1, 0.5, 11, 11, 60, 60]]
    table = np.array(wrong + right, dtype=np.float64)
    rows = Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:])
    got = evaluate_coco(truth, rows)
    assert got.ap == {1: 0.0}
    assert got.ignored.tolist() == [False] * 100 + [True]


def test_too_many_pictures_and_classes_for_pycocotools_are_an_error(files: tuple[Path, Path], monkeypatch) -> None:
    truth = read_instances(files[0])
    monkeypatch.setattr(coco, "_MOST_PAIRS", 25)
    with pytest.raises(EvaluationError, match=r"pairs of a picture and a class, expected at most 25"):
        evaluate_coco(truth, Submission.from_boxes([], [], [], np.zeros((0, 4))))
