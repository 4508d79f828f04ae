from io import StringIO

from rich.console import Console
from rich.progress import Progress

from inception_rcnn.tools.progress import MeanRate, StageProgress


def rate_of(pictures: int, seconds: float, *, finished: bool) -> str:
    """What the column says after `pictures` of 5 were done, the last two of them within a moment."""
    clock = [0.0]
    progress = Progress(get_time=lambda: clock[0])
    task = progress.add_task("detecting", total=pictures if finished else 5)
    clock[0] = seconds
    for _ in range(pictures):
        progress.advance(task)
    clock[0] += 0 if not finished else 60  # a finished task's rate does not fall while the files are written
    return MeanRate("images").render(progress.tasks[0]).plain


def test_the_rate_is_that_of_the_whole_run_not_of_its_last_pictures() -> None:
    assert rate_of(4, 100, finished=False) == "0.04 images/s"
    assert rate_of(5, 125, finished=True) == "0.04 images/s"
    assert rate_of(0, 10, finished=False) == ""


def test_stages_show_figures_and_warnings_are_not_markup() -> None:
    stream = StringIO()
    with StageProgress(Console(file=stream, width=120)) as progress:
        progress.report("training", 3, 10, {"loss": 0.4123})
        progress.report("training", 10, 10, {"loss": 0.25, "learning rate": 0.0001})
        progress.warn("class [red] has 2 boxes")
    shown = stream.getvalue()
    assert "10/10" in shown
    assert "loss 0.25, learning rate 0.0001" in shown
    assert "warning: class [red] has 2 boxes" in shown
