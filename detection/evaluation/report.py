"""An evaluation as JSON for programs and as a page for people."""

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
from .average_precision import Curve, envelope
from .bootstrap import Bootstrap, interval
from .error_analysis import ERRORS, ErrorAnalysis
from .ilsvrc import MEANS, ClassResult, Evaluation, Mean
from .mistakes import Mistake, worst_mistakes

PROTOCOLS = {
    "ilsvrc": "ILSVRC DET",
    "voc07": "PASCAL VOC 2007, 11 points",
    "voc12": "PASCAL VOC 2012, area under the curve",
    "coco": "COCO, AP@[.5:.95]",
}
_SIDE = 320  # pixels of the longer side of a picture on the page
_WORST = 12  # mistakes shown before the classes


def summary(
    evaluation: Evaluation, analysis: ErrorAnalysis, mean: Mean = "present", intervals: Bootstrap | None = None
) -> dict[str, Any]:
    """Everything, ready for ``json.dumps(..., allow_nan=False)``: what is undefined is None.

    With ``intervals`` "mAP_interval" and each class's "ap_interval" are the 95 % intervals, [low, high].
    "ap" of a class without ground truth is None, or with the official mean what the official kit answers (0, or None
    for its NaN).
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
        "classes": [_class_summary(one, mean, intervals) for one in evaluation.classes],
    }


def write_json(
    file: str | Path,
    evaluation: Evaluation,
    analysis: ErrorAnalysis,
    mean: Mean = "present",
    intervals: Bootstrap | None = None,
) -> None:
    """Writes ``summary`` in full double precision."""
    data = summary(evaluation, analysis, mean, intervals)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    Path(file).write_text(text + "\n", encoding="utf-8")


def write_html(
    file: str | Path,
    evaluation: Evaluation,
    analysis: ErrorAnalysis,
    mean: Mean = "present",
    intervals: Bootstrap | None = None,
) -> None:
    """Writes the page: one file that needs no network. Pictures are in it as far as their files are known."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    mistakes = worst_mistakes(evaluation, analysis)
    shown = {label: [_figure(one) for one in of_class] for label, of_class in mistakes.items()}
    everything = [figure for figures in shown.values() for figure in figures]
    detected = sorted((one for one in everything if one["score"] is not None), key=lambda one: -one["score"])
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = summary(evaluation, analysis, mean, intervals)
    results = {one["det_id"]: one for one in data["classes"]}
    page = environment.get_template("report.html.j2").render(
        summary=data,
        protocol=PROTOCOLS[evaluation.protocol],
        mean=MEANS[mean],
        errors=ERRORS,
        largest_gain=max([*analysis.gains.values(), 1e-9]),
        classes=[
            {
                "result": results[one.category.id],
                "curve": _svg_path(one.curve),
                "figures": shown[one.category.id],
            }
            for one in evaluation.classes
            if one.positives
        ],
        worst=detected[:_WORST],
        without_pictures=sum(one["source"] is None for one in everything),
    )
    Path(file).write_text(page, encoding="utf-8")


def _class_summary(result: ClassResult, mean: Mean, intervals: Bootstrap | None) -> dict[str, Any]:
    recall, precision = envelope(result.curve) if result.positives else (np.empty(0), np.empty(0))
    defined = result.positives > 0 or mean == "official"
    hits = int(result.curve.hits[-1]) if len(result.curve.hits) else 0
    ends = None
    if intervals is not None and result.positives:
        ends = [_defined(end) for end in interval(intervals.of(result.category.id))]
    return {
        "det_id": result.category.id,
        "wnid": result.category.wnid,
        "name": result.category.name,
        "ap": _defined(result.ap) if defined else None,
        **({"ap_interval": ends} if ends is not None else {}),
        "positives": result.positives,
        "detections": result.detections,
        "true_positives": hits,
        "false_positives": result.detections - result.ignored - hits,
        "ignored": result.ignored,
        **{name: _defined(value) for name, value in result.measures.items()},
        "best_f1": {name: _defined(one) for name, one in asdict(result.best_f1).items()} if result.best_f1 else None,
        "curve": {"recall": recall.tolist(), "precision": precision.tolist()},
    }


def _figure(mistake: Mistake) -> dict[str, Any]:
    """What the template needs to draw a mistake; ``source`` is None where the picture is not at hand."""
    source, width, height = _embedded(mistake.path)
    return {
        "kind": mistake.kind,
        "name": mistake.name,
        "picture": mistake.picture,
        "score": mistake.score,
        "overlap": mistake.overlap,
        "source": source,
        "width": width,
        "height": height,
        "box": _rectangle(mistake.box),
        "objects": [
            {"box": _rectangle(box), "name": name, "same": same}
            for box, name, same in mistake.objects
            if mistake.score is not None or box != mistake.box
        ],
    }


def _rectangle(box: Sequence[float]) -> dict[str, float]:
    xmin, ymin, xmax, ymax = box
    return {"x": xmin - 1, "y": ymin - 1, "width": max(xmax - xmin + 1, 0), "height": max(ymax - ymin + 1, 0)}


def _embedded(path: Path | None) -> tuple[str | None, int, int]:
    """A small JPEG as a data URL, with the size of the picture itself."""
    if path is None or not path.exists():
        return None, 0, 0
    try:
        picture = Image.fromarray(read_image(path))
    except ImageError:
        return None, 0, 0
    width, height = picture.size
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=68)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", width, height


def _svg_path(curve: Curve) -> str:
    """The envelope as an SVG path in a square of 100 x 100, precision upwards."""
    recall, precision = envelope(curve)
    if not len(recall):
        return ""
    path = [f"M0,{100 - 100 * precision[0]:.1f}"]
    for r, p in zip(recall.tolist(), precision.tolist(), strict=True):
        path.append(f"V{100 - 100 * p:.1f}H{100 * r:.1f}")
    return "".join([*path, "V100"])


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None
