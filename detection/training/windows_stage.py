"""The stage of `train_detector` that collects the windows of all training pictures."""

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from ...data.categories import Category
from ...data.dataset import Dataset
from ...proposals.multibox import MultiBox
from ...proposals.screen import Screen
from ..model_files import RegionSettings
from .regions import all_regions, screened_regions
from .training_run import TrainingRun
from .windows import Windows, collect_windows


def training_windows(
    run: TrainingRun,
    dataset: Dataset,
    categories: tuple[Category, ...],
    regions: RegionSettings,
    multibox: MultiBox | None,
    screen: Screen | None,
) -> Windows:
    """The training windows of all pictures, labelled with the outputs of a network that knows `categories`.

    Args:
        dataset: the pictures, whose objects all belong to `categories`.
        regions, multibox, screen: propose the regions, see `all_regions` and `screened_regions`.
    """
    file = run.folder / "proposals.sqlite"
    with ExitStack() as stack:
        everything = stack.enter_context(all_regions(file, regions, multibox, run.device))
        screened = None
        if multibox is not None and screen is not None:
            screened = stack.enter_context(screened_regions(file, regions, multibox, screen, run.device))
        windows = collect_windows(
            dataset,
            lambda sample: everything(sample.path),
            run.seed,
            run.report,
            None if screened is None else lambda sample: screened(sample.path),
        )
    return with_outputs(windows, categories)


def with_outputs(windows: Windows, categories: Sequence[Category]) -> Windows:
    """The windows with the output of a network that knows `categories` as label, in place of the category id."""
    outputs = {0: 0, **{category.id: output for output, category in enumerate(categories, 1)}}
    labels = np.array([outputs[label] for label in windows.labels.tolist()], np.int64)
    return Windows(windows.images, windows.boxes, labels)
