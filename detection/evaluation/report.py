"""Writes an evaluation as JSON for programs and as an HTML page for people."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...data.images import ImageError, read_image
from ...runtime.atomic_write import atomic_write
from .average_precision import Curve, envelope
from .bootstrap import Bootstrap, interval
from .error_analysis import ERRORS, ErrorAnalysis
from .mistakes import Mistake, worst_mistakes
from .result import MEANS, ClassResult, Evaluation, Mean

PROTOCOLS = {
    "ilsvrc": "ILSVRC DET",
    "voc07": "PASCAL VOC 2007, 11 points",
    "voc12": "PASCAL VOC 2012, area under the curve",
    "coco": "COCO, AP@[.5:.95]",
}
_LONGER_SIDE = 320  # of a picture on the page, in pixels
_WORST_OF_ALL = 12  # mistakes shown before the table of classes


def summary(
    evaluation: Evaluation, analysis: ErrorAnalysis, mean: Mean = "present", intervals: Bootstrap | None = None
) -> dict[str, Any]:
    """Returns all numbers of an evaluation, ready for ``json.dumps(..., allow_nan=False)``. Undefined numbers are None.

    Args:
        evaluation: the evaluation.
        analysis: its error analysis.
        mean: selects the mean in "mAP". With "official", "ap" of a class without ground truth is what the official kit
            answers: 0, or None in place of NaN. With "present" it is None.
        intervals: adds "mAP_interval" and, for each class with ground truth, "ap_interval": the ends of the 95 %
            intervals, [low, high].
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
    """Writes a self-contained HTML page, with the pictures of the worst mistakes if their files are known."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    mistakes = worst_mistakes(evaluation, analysis)
    figures = {label: [_figure(mistake) for mistake in of_class] for label, of_class in mistakes.items()}
    all_figures = [figure for of_class in figures.values() for figure in of_class]
    false_positives = [figure for figure in all_figures if figure["score"] is not None]
    false_positives.sort(key=lambda figure: -figure["score"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = summary(evaluation, analysis, mean, intervals)
    class_summaries = {class_summary["det_id"]: class_summary for class_summary in data["classes"]}
    page = environment.get_template("report.html.j2").render(
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
        without_pictures=sum(figure["source"] is None for figure in all_figures),
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


def _figure(mistake: Mistake) -> dict[str, Any]:
    """Returns the variables with which the template draws a mistake; "source" is None without a readable picture."""
    source, width, height = _data_url(mistake.path)
    return {
        "kind": mistake.kind,
        "name": mistake.name,
        "picture": mistake.picture,
        "score": mistake.score,
        "iou": mistake.iou,
        "source": source,
        "width": width,
        "height": height,
        "box": _rectangle(mistake.box),
        "objects": [
            {"box": _rectangle(box), "name": name, "same_class": same_class}
            for box, name, same_class in mistake.objects
            if mistake.score is not None or box != mistake.box
        ],
    }


def _rectangle(box: Sequence[float]) -> dict[str, float]:
    """Returns a box, 1-based and inclusive, as the attributes of an SVG rectangle."""
    xmin, ymin, xmax, ymax = box
    return {"x": xmin - 1, "y": ymin - 1, "width": max(xmax - xmin + 1, 0), "height": max(ymax - ymin + 1, 0)}


def _data_url(path: Path | None) -> tuple[str | None, int, int]:
    """Returns a small JPEG as a data URL, and width and height of the full-size picture; None, 0, 0 if unreadable."""
    if path is None or not path.exists():
        return None, 0, 0
    try:
        picture = Image.fromarray(read_image(path))
    except ImageError:
        return None, 0, 0
    width, height = picture.size
    picture.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=68)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", width, height


def _svg_path(curve: Curve) -> str:
    """Returns the envelope as an SVG path in a square of 100 x 100. Larger precision is higher up."""
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
