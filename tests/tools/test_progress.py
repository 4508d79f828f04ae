"""Progress on a terminal and in a pipe."""

import re
import time
from io import StringIO

import pytest
from rich.console import Console

from inception_rcnn.tools.progress import Rate, StageProgress, with_progress, working


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_the_mean_of_the_whole_run() -> None:
    """Pictures that share a batch end together. Their rate was once that of the last moment, 323 images/s."""
    clock = Clock()
    rate = Rate(clock=clock)
    assert rate.text("images", 8) == ""
    clock.now += 100
    for done in range(1, 5):
        rate.update(done)
    assert rate.text("images", 8) == "0.04 images/s, about 2 min left"
    clock.now += 100  # no picture is finished meanwhile
    assert rate.text("images", 8) == "0.02 images/s, about 3 min left"
    rate.update(8)
    clock.now += 60  # while files are written, the rate of finished steps does not fall
    assert rate.text("images", 8) == "0.04 images/s, 3 min"


def test_steps_of_an_earlier_run_do_not_count_for_the_rate() -> None:
    clock = Clock()
    rate = Rate(already=90, clock=clock)
    clock.now += 10
    rate.update(95)
    assert rate.text("images", 100) == "0.5 images/s, about 10 s left"


def test_in_a_pipe_a_line_tells_how_far_the_run_is_at_any_time() -> None:
    clock, stream = Clock(), StringIO()
    progress = StageProgress(Console(file=stream, width=80), "images", clock=clock)
    progress.report("detecting", 40, 400, {})
    clock.now += 120
    progress.report("detecting", 100, 400, {})
    assert progress.line() == "detecting: 100 of 400 images (25 %), 0.5 images/s, about 10 min left"
    clock.now += 480
    assert progress.line() == "detecting: 100 of 400 images (25 %), 0.1 images/s, about 50 min left"


def test_in_a_pipe_lines_come_also_while_nothing_is_finished() -> None:
    stream = StringIO()
    with StageProgress(Console(file=stream, width=40), "images", every=0.01) as progress:
        deadline = time.monotonic() + 10
        while stream.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.report("detecting", 0, 5, {})
        while stream.getvalue().count("0 of 5 images (0 %)\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        progress.report("detecting", 5, 5, {})
    lines = stream.getvalue().splitlines()
    assert lines[0] == "working for 0 s"
    assert lines.count("detecting: 0 of 5 images (0 %)") >= 3
    assert re.fullmatch(r"detecting: 5 of 5 images \(100 %\), [\d.,]+ images/s, \d+ s", lines[-1])


def test_on_a_terminal_a_bar_shows_steps_done_and_their_rate() -> None:
    stream = StringIO()
    with StageProgress(Console(file=stream, width=120, force_terminal=True), "images") as progress:
        progress.report("detecting [b]", 0, 5, {})
        time.sleep(0.2)
        progress.report("detecting [b]", 5, 5, {})
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "detecting [b]" in shown
    assert "5 of 5 images (100 %)" in shown
    rate = re.search(r"([\d.]+) images/s", shown)
    assert rate
    assert 1 < float(rate[1]) <= 25  # 5 images in at least 0.2 s


@pytest.mark.parametrize("terminal", [False, True])
def test_stages_show_figures_and_markup_in_warnings_is_not_interpreted(terminal: bool) -> None:
    stream = StringIO()
    with StageProgress(Console(file=stream, width=160, force_terminal=terminal)) as progress:
        progress.report("training", 3, 10, {"loss": 0.4123})
        progress.report("training", 10, 10, {"loss": 0.25, "learning rate": 0.0001})
        progress.warn("class [red] has 2 boxes")
        progress.print("[b] is kept")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "10 of 10 steps (100 %)" in shown
    assert "loss 0.25, learning rate 0.0001" in shown
    assert "warning: class [red] has 2 boxes" in shown
    assert "[b] is kept" in shown


def test_a_bar_stays_on_one_line_of_a_narrow_terminal() -> None:
    clock, stream = Clock(), StringIO()
    console = Console(file=stream, width=80, force_terminal=True, color_system=None)
    progress = StageProgress(console, clock=clock)
    progress.report("training member 1 of 6", 0, 3000, {})
    clock.now += 100
    progress.report("training member 1 of 6", 137, 3000, {"loss": 0.4123, "learning rate": 0.00199})
    console.print(progress._bars)
    (line,) = stream.getvalue().splitlines()
    assert "training member 1 of 6: 137 of 3,000 steps (4 %), 1.37 steps/s, about" in line


def test_a_disabled_progress_prints_nothing() -> None:
    stream = StringIO()
    with StageProgress(Console(file=stream), disable=True) as progress:
        progress.report("training", 10, 10, {})
        progress.warn("a warning")
    assert stream.getvalue() == ""


def test_items_come_through_the_progress_unchanged() -> None:
    stream = StringIO()
    assert list(with_progress(Console(file=stream), "proposing", ["a", "b"])) == ["a", "b"]
    assert stream.getvalue().startswith("proposing: 2 of 2 images (100 %)")


def test_work_without_steps_is_named_in_a_pipe() -> None:
    stream = StringIO()
    with working(Console(file=stream), "loading [the model]", every=0.01):
        time.sleep(0.1)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "loading [the model] ..."
    assert lines[1] == "loading [the model]: 0 s so far"
