"""Writes an evaluation as JSON for programs and as an HTML page for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...data.images import ImageError, read_size
from ...data.thumbnails import data_url, thumbnail
from ...runtime.atomic_write import atomic_write
from ...runtime.page_templates import page_template
from .average_precision import Curve, envelope
from .bootstrap import Bootstrap, interval
from .error_analysis import ERRORS, ErrorAnalysis
from .mistakes import LEAST_SCORE, Example, surest_finds, worst_mistakes
from .result import MEANS, ClassResult, Evaluation, Mean

PROTOCOLS = {
    "ilsvrc": "ILSVRC DET",
    "voc07": "PASCAL VOC 2007, 11 points",
    "voc12": "PASCAL VOC 2012, area under the curve",
    "coco": "COCO, AP@[.5:.95]",
}
_PAGES = Path(__file__).parents[1] / "pages"
_WORST_OF_ALL = 12  # mistakes shown before the table of classes
_FINDS_OF_ALL = 8  # finds shown there, of different classes


def summary(
    evaluation: Evaluation, analysis: ErrorAnalysis, mean: Mean = "present", intervals: Bootstrap | None = None
) -> dict[str, Any]:
    """Returns all numbers of an evaluation, ready for ``json.dumps(..., allow_nan=False)``. Undefined numbers are None.

    Args:
        evaluation: the evaluation.
        analysis: its error analysis.
        mean: selects the mean in "mAP". It also decides "ap" of a class without ground truth: with "present", "ap" is
            None; with "official", it is 0, or None where the official kit returns NaN.
        intervals: if given, the result also has "mAP_interval" and, for each class with ground truth, "ap_interval":
            the 95 % intervals as [low, high].
    """
    means = {name: _defined(evaluation.mean_ap(name)) for name in MEANS}
    truth = evaluation.ground_truth
    return {
        "protocol": evaluation.protocol,
        "mAP": means[mean],
        **({} if intervals is None else {"mAP_interval": [_defined(end) for end in interval(intervals.mean)]}),
        "mean": mean,
        "means": means,
        "measures": {name: _defined(value) for name, value in evaluation.measures.items()},
        "ground_truth": {
            "name": truth.name,
            "pictures": len(truth.image_indices),
            "objects": len(truth),
            "positives": int(evaluation.counted.sum()),
        },
        "detections": len(evaluation.detections),
        "notices": list(evaluation.notices),
        "errors": {
            "mAP": analysis.mean_ap,
            "kinds": {kind: {"count": analysis.counts[kind], "gain": analysis.gains[kind]} for kind in ERRORS},
            "gain_without_false_positives": analysis.gain_without_false_positives,
            "gain_without_misses": analysis.gain_without_misses,
        },
        "classes": [_class_summary(result, mean, intervals) for result in evaluation.classes],
    }


def write_json(
    file: str | Path,
    evaluation: Evaluation,
    analysis: ErrorAnalysis,
    mean: Mean = "present",
    intervals: Bootstrap | None = None,
) -> None:
    """Writes ``summary`` as JSON in full double precision."""
    data = summary(evaluation, analysis, mean, intervals)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(file) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_html(
    file: str | Path,
    evaluation: Evaluation,
    analysis: ErrorAnalysis,
    mean: Mean = "present",
    intervals: Bootstrap | None = None,
) -> None:
    """Writes a self-contained HTML page, with pictures of mistakes and finds if the files are known."""
    mistakes, finds = worst_mistakes(evaluation, analysis), surest_finds(evaluation)
    figures = {
        label: [_figure(example) for example in (*of_class, *finds[label])] for label, of_class in mistakes.items()
    }
    all_figures = sorted(
        (figure for of_class in figures.values() for figure in of_class if figure["score"] is not None),
        key=lambda figure: -figure["score"],
    )
    false_positives = [figure for figure in all_figures if figure["kind"] != "found"]
    found = {figure["name"]: figure for figure in reversed(all_figures) if figure["kind"] == "found"}
    data = summary(evaluation, analysis, mean, intervals)
    class_summaries = {class_summary["det_id"]: class_summary for class_summary in data["classes"]}
    page = page_template(_PAGES / "report.html.j2").render(
        summary=data,
        protocol=PROTOCOLS[evaluation.protocol],
        mean=MEANS[mean],
        errors=ERRORS,
        largest_gain=max([*analysis.gains.values(), 1e-9]),
        classes=[
            {
                "result": class_summaries[result.category.id],
                "curve": _svg_path(result.curve),
                "figures": figures[result.category.id],
            }
            for result in evaluation.classes
            if result.positives
        ],
        worst=false_positives[:_WORST_OF_ALL],
        finds=list(found.values())[::-1][:_FINDS_OF_ALL],
        least_score=LEAST_SCORE,
    )
    with atomic_write(file) as partial:
        partial.write_text(page, encoding="utf-8")


def _class_summary(result: ClassResult, mean: Mean, intervals: Bootstrap | None) -> dict[str, Any]:
    recall, precision = envelope(result.curve) if result.positives else (np.empty(0), np.empty(0))
    defined = result.positives > 0 or mean == "official"
    true_positives = int(result.curve.true_positives[-1]) if len(result.curve.true_positives) else 0
    ends = None
    if intervals is not None and result.positives:
        ends = [_defined(end) for end in interval(intervals.of(result.category.id))]
    best_f1 = None
    if result.best_f1 is not None:
        best_f1 = {name: _defined(value) for name, value in asdict(result.best_f1).items()}
    return {
        "det_id": result.category.id,
        "wnid": result.category.wnid,
        "name": result.category.name,
        "ap": _defined(result.ap) if defined else None,
        **({"ap_interval": ends} if ends is not None else {}),
        "positives": result.positives,
        "detections": result.detections,
        "true_positives": true_positives,
        "false_positives": result.detections - result.ignored - true_positives,
        "ignored": result.ignored,
        **{name: _defined(value) for name, value in result.measures.items()},
        "best_f1": best_f1,
        "curve": {"recall": recall.tolist(), "precision": precision.tolist()},
    }


def _figure(example: Example) -> dict[str, Any]:
    """Returns the variables from which the template draws an example; "source" is None if no picture can be read."""
    source, width, height = _picture(example.path)
    return {
        "kind": example.kind,
        "name": example.name,
        "picture": example.picture,
        "score": example.score,
        "iou": example.iou,
        "source": source,
        "width": width,
        "height": height,
        "box": _rectangle(example.box),
        "objects": [
            {"box": _rectangle(box), "name": name, "same_class": same_class}
            for box, name, same_class in example.objects
            if example.score is not None or box != example.box
        ],
    }


def _rectangle(box: Sequence[float]) -> dict[str, float]:
    """Returns a box, 1-based and inclusive, as the attributes of an SVG rectangle."""
    xmin, ymin, xmax, ymax = box
    return {"x": xmin - 1, "y": ymin - 1, "width": max(xmax - xmin + 1, 0), "height": max(ymax - ymin + 1, 0)}


def _picture(path: Path | None) -> tuple[str | None, int, int]:
    """Returns a small JPEG as a data URL, and the full-size picture's width and height; (None, 0, 0) if unreadable."""
    if path is None:
        return None, 0, 0
    try:
        return data_url(thumbnail(path)), *read_size(path)
    except ImageError:
        return None, 0, 0


def _svg_path(curve: Curve) -> str:
    """Returns the envelope as an SVG path in a square of 100 x 100 units: recall to the right, precision upwards."""
    recall, precision = envelope(curve)
    if not len(recall):
        return ""
    path = [f"M0,{100 - 100 * precision[0]:.1f}"]
    for r, p in zip(recall.tolist(), precision.tolist(), strict=True):
        path.append(f"V{100 - 100 * p:.1f}H{100 * r:.1f}")
    return "".join([*path, "V100"])


def _defined(value: float) -> float | None:
    """Returns None in place of NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None
