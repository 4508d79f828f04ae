"""PNG plots of an evaluation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...runtime.atomic_write import atomic_write
from .average_precision import envelope
from .error_analysis import ERRORS, ErrorAnalysis
from .result import ClassResult, Evaluation, Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 110
_BLUE, _RED = "#4f7cac", "#d1242f"
_MOST_NAMED = 10  # curves in one plot whose colours can be told apart


def write_plots(
    folder: str | Path, evaluation: Evaluation, analysis: ErrorAnalysis, mean: Mean = "present"
) -> list[Path]:
    """Writes the plots of an evaluation to a folder. A missing folder is created.

    ``classes.png`` shows AP of each class, ``errors.png`` the gain from correcting each kind of mistake, ``curves.png``
    the precision/recall curves of all classes, and ``curves/<id>_<name>.png`` the curve of one class.

    Returns:
        The files.
    """
    folder = Path(folder)
    present = [result for result in evaluation.classes if result.positives]
    files = [
        _save(_class_bars(present, evaluation.mean_ap(mean)), folder / "classes.png"),
        _save(_error_bars(analysis), folder / "errors.png"),
        _save(_all_curves(present), folder / "curves.png"),
    ]
    for result in present:
        name = re.sub(r"[^\w-]+", "_", result.category.name)[:60]  # 60 letters have at most 240 bytes
        files.append(_save(_one_curve(result), folder / "curves" / f"{result.category.id:03}_{name}.png"))
    return files


def _class_bars(results: list[ClassResult], mean_ap: float) -> Figure:
    figure, axes = _figure(7, 1.2 + 0.19 * len(results))
    results = sorted(results, key=lambda result: result.ap)
    names = [f"{_plain(result.category.name)} ({result.positives})" for result in results]
    axes.barh(names, [result.ap for result in results], color=_BLUE, label="AP of a class")
    axes.axvline(mean_ap, color=_RED, linewidth=1, label=f"mean {mean_ap:.4f}")
    axes.set(xlim=(0, 1), xlabel="AP", ylabel="class (number of objects)", ylim=(-0.7, len(results) - 0.3))
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(loc="lower right")
    return figure


def _error_bars(analysis: ErrorAnalysis) -> Figure:
    figure, axes = _figure(7, 3.2)
    kinds = list(ERRORS)[::-1]
    bars = axes.barh(
        [f"{kind} ({analysis.counts[kind]:,})" for kind in kinds],
        [analysis.gains[kind] for kind in kinds],
        color=_BLUE,
        label="if all mistakes of the kind were corrected",
    )
    axes.bar_label(bars, [f"{analysis.gains[kind]:+.4f}" for kind in kinds], padding=3)
    axes.margins(x=0.15)
    axes.set(xlabel=f"gain in mAP (now {analysis.mean_ap:.4f})", ylabel="mistake (number)")
    figure.legend(loc="outside upper right", fontsize=8)
    return figure


def _all_curves(results: list[ClassResult]) -> Figure:
    figure, axes = _figure(6, 5)
    are_few = len(results) <= _MOST_NAMED
    for number, result in enumerate(results):
        if are_few:
            _draw_curve(axes, result, linewidth=1.2, label=f"{_plain(result.category.name)}: AP {result.ap:.4f}")
        else:
            label = f"each of {len(results)} classes" if number == 0 else "_"  # matplotlib does not list "_"
            _draw_curve(axes, result, linewidth=0.7, alpha=0.35, color=_BLUE, label=label)
    if not are_few:
        recalls = np.linspace(0, 1, 101)
        mean = np.mean([_precision_at(recalls, result) for result in results], axis=0)
        axes.plot(recalls, mean, color=_RED, linewidth=2, label="mean precision of the classes")
    if results:
        axes.legend(loc="upper right", fontsize=8)
    axes.set_title(f"{len(results)} class{'' if len(results) == 1 else 'es'}")
    return figure


def _precision_at(recalls: NDArray[np.float64], result: ClassResult) -> NDArray[np.float64]:
    """Returns the precision of the envelope at each recall; 0 where it is not reached."""
    recall, precision = envelope(result.curve)
    return np.append(precision, 0.0)[np.searchsorted(recall, recalls)]


def _one_curve(result: ClassResult) -> Figure:
    figure, axes = _figure(4.5, 4)
    _draw_curve(axes, result, linewidth=1.6, color=_BLUE, label="precision, never rising with recall")
    point = result.best_f1
    if point is not None:
        label = f"best F1 {point.f1:.3f} at score {point.score:.3f}"
        axes.plot(point.recall, point.precision, "o", color=_RED, label=label)
    figure.legend(loc="outside lower center", fontsize=8)
    axes.set_title(f"{_plain(result.category.name)}: AP {result.ap:.4f}")
    return figure


def _draw_curve(axes: Axes, result: ClassResult, **style: object) -> None:
    recall, precision = envelope(result.curve)
    if not len(recall):  # there are no detections
        recall, precision = np.zeros(1), np.zeros(1)
    axes.step([0, *recall, recall[-1]], [precision[0], *precision, 0], where="pre", **style)  # type: ignore[arg-type]
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")


def _plain(name: str) -> str:
    """Escapes dollar signs, because matplotlib reads the text between two of them as a formula."""
    return name.replace("$", r"\$")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # not pyplot, which keeps global state and may open a display

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return figure, axes


def _save(figure: Figure, file: Path) -> Path:
    with atomic_write(file) as partial:
        figure.savefig(partial, dpi=_DPI, format="png")
    return file
