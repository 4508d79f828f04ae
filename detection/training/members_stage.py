"""The stage of `train_detector` that fine-tunes the networks of the ensemble, and their part of the model's card."""

import copy
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.categories import Category
from ...data.dataset import Dataset
from ...data.images import read_image
from ..engines.quantisation import measure_input_ranges
from ..model_files import Model, RegionSettings
from ..networks.backbones import Backbone, with_classes
from ..warping.warp import warp_regions
from .finetune import FineTuneSettings, discard_features, fine_tune
from .teacher import Lesson, with_teachers_classifier
from .training_run import TrainingRun
from .windows import Windows

# A batch has three backgrounds to each positive window, a picture about thirty. Without a correction, the classifier
# therefore finds objects everywhere. Adding log(30 / 3) = 2.3 to the background's logit corrects its prior completely
# (Saerens et al., Neural Computation 2002). This smaller shift keeps clear single objects above a score of 0.5. On 61
# pictures of val, before boxes were voted, the mean AP of six classes was 0.539 without a shift, 0.585 with this shift,
# and 0.589 with a shift of 2.4. A detector with a screen needs no shift, because its scores are calibrated.
BACKGROUND_SHIFT = 1.5

# Number of windows on which the inputs of convolutions are measured, for engines that compute in 8 bits.
_MEASURED_WINDOWS = 64


def fine_tuned_members(
    run: TrainingRun,
    network: Backbone,
    members: int,
    windows: Windows,
    regions: RegionSettings,
    classes: int,
    lesson: Lesson | None,
    settings: FineTuneSettings,
    background_shift: float,
) -> list[Backbone]:
    """Fine-tune the members of an ensemble, each from `network` with a new classifier.

    Args:
        network: the initial network. Its classifier is replaced.
        members: number of networks.
        windows: the training windows, with the index of a network output as label.
        regions: how windows are warped.
        classes: number of classes.
        lesson: the outputs that are right for each window, and a teacher; None if the labels are the outputs.
        settings: the recipe.
        background_shift: added to the background's bias after the training.

    Raises:
        TrainingError: see `fine_tune`.
    """
    torch.manual_seed(run.seed)
    if lesson is None or lesson.teacher is None:
        with_classes(network, classes + 1)
    else:
        with_teachers_classifier(network, lesson.teacher, 1 + len(lesson.subclasses))
    crops = some_crops(run.dataset, windows, regions, run.seed)
    trained = []
    for number in range(1, members + 1):
        member = copy.deepcopy(network)
        fine_tune(
            member,
            run.dataset,
            windows,
            regions,
            settings,
            run.folder,
            lesson=lesson,
            member=number,
            device=run.device,
            stage="training" if members == 1 else f"training member {number} of {members}",
            report=run.report,
        )
        with torch.no_grad():
            member.classifier.bias[0] += background_shift
        member.input_ranges = measure_input_ranges(member, crops)
        trained.append(member)
    discard_features(run.folder)
    run.say(f"networks: {members} trained in {settings.iterations:,} steps" + (" each" if members > 1 else ""))
    return trained


def card_of_training(
    run: TrainingRun,
    categories: tuple[Category, ...],
    counts: Mapping[int, int],
    taught: Collection[int | None],
    members: int,
    settings: FineTuneSettings,
) -> dict[str, Any]:
    """The card of a detector whose members are trained.

    Args:
        categories: its classes.
        counts: the number of objects of each category id.
        taught: the ids of the categories that a teacher knows.
        members, settings: see `fine_tuned_members`.
    """
    return {
        "data": run.dataset.name,
        "pictures": len(run.dataset),
        "objects": {category.name: counts.get(category.id, 0) for category in categories},
        "taught": [category.name for category in categories if category.id in taught],
        "init": Path(run.init).name,
        "members": members,
        "settings": asdict(settings),
    }


def card_of_kept_members(kept: Model) -> dict[str, Any]:
    """The card of kept members, without the parts that are made anew."""
    return {name: value for name, value in kept.card.items() if name not in ("multibox", "screen", "evaluation")}


def some_crops(dataset: Dataset, windows: Windows, regions: RegionSettings, seed: int) -> np.ndarray:
    """Random training windows, undistorted: uint8 RGB [N, 224, 224, 3], N at most `_MEASURED_WINDOWS`."""
    rng = np.random.default_rng([seed, 4])
    rows = rng.choice(len(windows), min(_MEASURED_WINDOWS, len(windows)), replace=False)
    crops = [
        warp_regions(
            read_image(dataset[int(windows.images[row])].path),
            windows.boxes[row : row + 1],
            padding=regions.padding,
            mode=regions.warp_mode,
        )
        for row in rows
    ]
    return np.concatenate(crops)
