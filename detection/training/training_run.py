"""What the stages of `train_detector` share."""

from dataclasses import dataclass
from pathlib import Path

from ...data.dataset import Dataset
from .progress import Report, Say


@dataclass(frozen=True)
class TrainingRun:
    """What the stages of `train_detector` share.

    Attributes:
        dataset: the pictures to train on, without those that the thresholds of the screen are fitted on.
        folder: for intermediate files, which an interrupted training resumes from.
        init: the model or network that training starts from, see `initial_network`.
        seed: of all random choices.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the progress of each stage.
        say: called with the outcome of each stage.
    """

    dataset: Dataset
    folder: Path
    init: str
    seed: int
    device: str
    report: Report
    say: Say
