"""Plots are PNG files, also for classes with unusual names."""

from pathlib import Path

import numpy as np
from PIL import Image

from inception_rcnn.data.categories import Category
from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation import plots
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.plots import write_plots


def test_a_class_name_may_hold_slashes_and_what_matplotlib_takes_for_a_formula(tmp_path: Path) -> None:
    box = [[11.0, 11, 60, 60]]
    categories = [Category(1, "dog", "dog"), Category(2, "note", r"5$ / 10$ \frac{ note")]
    truth = GroundTruth.from_arrays([1], [1], [2], box, categories=categories)
    evaluation = evaluate(truth, Submission(np.array([1]), np.array([2]), np.array([0.9]), np.array(box)))
    files = write_plots(tmp_path / "new" / "plots", evaluation, analyse(evaluation))
    names = ["classes.png", "errors.png", "curves.png", "curves/002_5_10_frac_note.png"]
    assert files == [tmp_path / "new" / "plots" / name for name in names]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(files)
    for file in files:
        with Image.open(file) as picture:
            assert picture.format == "PNG"


def test_every_plot_has_axis_names_and_a_legend() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 3, 30):  # with more than ten classes, the curves are one entry of the legend
        labels = np.arange(1, count + 1)
        boxes = np.array([[1.0, 1, 50, 50]] * count)
        truth = GroundTruth.from_arrays([1], [1] * count, labels, boxes)
        found = Submission(np.ones(count, int), labels, rng.random(count), boxes)
        evaluation = evaluate(truth, found)
        results = list(evaluation.classes[:count])
        figures = [
            plots._class_bars(results, 1.0),
            plots._error_bars(analyse(evaluation)),
            plots._all_curves(results),
            plots._one_curve(results[0]),
        ]
        for figure in figures:
            (axes,) = figure.axes
            assert axes.get_xlabel()
            assert axes.get_ylabel()
            legends = [*figure.legends, axes.get_legend()]
            assert any(legend is not None and legend.get_texts() for legend in legends)
