"""Progress bars."""

import re
import time
from io import StringIO

from rich.console import Console
from rich.progress import Progress

from inception_rcnn.tools.progress import MeanRate, StageProgress, progress_bar


def rate_of(pictures: int, seconds: float, *, finished: bool) -> str:
    """The rate that the column shows after `seconds`, in which `pictures` of 5 were done, all at the same time."""
    clock = [0.0]
    progress = Progress(get_time=lambda: clock[0])
    task = progress.add_task("detecting", total=pictures if finished else 5)
    clock[0] = seconds
    for _ in range(pictures):
        progress.advance(task)
    clock[0] += 60 if finished else 0  # while files are written, the rate of a finished task does not fall
    return MeanRate("images").render(progress.tasks[0]).plain


def test_the_rate_is_the_mean_of_the_whole_run() -> None:
    assert rate_of(4, 100, finished=False) == "0.04 images/s"
    assert rate_of(5, 125, finished=True) == "0.04 images/s"
    assert rate_of(0, 10, finished=False) == ""


def test_the_bar_shows_steps_done_and_their_rate() -> None:
    stream = StringIO()
    with progress_bar(Console(file=stream, width=120), "images") as progress:
        task = progress.add_task("detecting", total=5)
        time.sleep(0.2)
        progress.update(task, completed=5)
    shown = stream.getvalue()
    assert "5/5" in shown
    rate = re.search(r"([\d.]+) images/s", shown)
    assert rate
    assert 1 < float(rate[1]) <= 25  # 5 images in at least 0.2 s


def test_stages_show_figures_and_markup_in_warnings_is_not_interpreted() -> None:
    stream = StringIO()
    with StageProgress(Console(file=stream, width=120)) as progress:
        progress.report("training", 3, 10, {"loss": 0.4123})
        progress.report("training", 10, 10, {"loss": 0.25, "learning rate": 0.0001})
        progress.warn("class [red] has 2 boxes")
    shown = stream.getvalue()
    assert "10/10" in shown
    assert "loss 0.25, learning rate 0.0001" in shown
    assert "warning: class [red] has 2 boxes" in shown
