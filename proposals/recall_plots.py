"""Plots and an HTML page of the measures from `recall.recall_figures`, to compare several sets of proposals."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TEMPLATE = Path(__file__).with_name("recall.html")


def recall_plots(methods: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Plots the recall curves of several methods.

    The number of proposals on the horizontal axis is the mean number of existing boxes, as in Hosang et al., fig. 7.
    The curve of a method with few boxes therefore ends early.

    Args:
        methods: results of `recall_figures`.

    Returns:
        matplotlib figures by name: "recall-iou", "recall-count" (at IoU 0.5 and 0.7) and "average-recall-count".
    """
    curves = _figure("IoU threshold", "recall", "Recall of all proposals")
    counts = _figure("proposals per image", "recall", "Recall of the first proposals; IoU 0.5, dashed 0.7")
    average = _figure("proposals per image", "AR", "Average recall of the first proposals")
    most = max((method["boxes_per_image"] for method in methods), default=0)
    for figure in (counts, average):
        _axes(figure).set(xscale="log", xlim=(1, max(10, 1.2 * most)))
        _axes(figure).xaxis.set_major_formatter("{x:,.0f}")
    for number, method in enumerate(methods):
        colour = f"C{number % 10}"
        steps = method["by_count"]
        boxes = [step["boxes_per_image"] for step in steps]
        # matplotlib would interpret an unescaped dollar sign as the beginning of a formula.
        label = f"{method['name']} ({method['boxes_per_image']:,.0f})".replace("$", r"\$")
        if label.startswith("_"):
            label = " " + label  # a legend leaves out names that begin with "_"
        _axes(curves).plot(method["curve"]["iou"], method["curve"]["recall"], color=colour, label=label)
        for threshold, line in (("0.5", "-"), ("0.7", "--")):
            values = [step["recall"][threshold] for step in steps]
            _axes(counts).plot(boxes, values, line, marker=".", color=colour, label=label if line == "-" else None)
        _axes(average).plot(boxes, [step["AR"] for step in steps], marker=".", color=colour, label=label)
    _axes(curves).set_xlim(0.5, 1)
    figures = {"recall-iou": curves, "recall-count": counts, "average-recall-count": average}
    for figure in figures.values():
        _axes(figure).legend(fontsize=8)
    return figures


def recall_page(report: Mapping[str, Any]) -> str:
    """Returns a self-contained HTML page with the tables and curves of a report.

    Args:
        report: the content of the JSON file that `detect-recall --json` writes.
    """
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    pictures = [_as_data(figure) for figure in recall_plots(report["methods"]).values()]
    return template.render(report=report, pictures=pictures)


def _figure(x: str, y: str, title: str) -> Figure:
    # pyplot is avoided because it opens windows and keeps figures in global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.9), layout="constrained", dpi=150)
    axes = figure.add_subplot(xlabel=x, ylabel=y, title=title, ylim=(0, 1))
    axes.grid(alpha=0.3)
    return figure


def _axes(figure: Figure) -> Axes:
    return figure.axes[0]


def _as_data(figure: Figure) -> str:
    """Returns the figure as a data URL for an <img>. The ids of several inline SVGs would collide."""
    stream = BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
