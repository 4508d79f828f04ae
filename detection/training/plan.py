"""What a training will do: its stages, how much of each, and about how long they take on this machine."""

import time
from dataclasses import dataclass

import torch

from ...runtime.duration import duration
from ..engines.choice import resolve_device
from ..engines.engine import CROP_SIZE
from ..networks.backbones import Backbone
from .box_regression import MOST_WINDOWS
from .cascade import PICTURES, REGIONS_PER_PICTURE
from .finetune import FineTuneSettings, frozen_blocks
from .multibox import MultiBoxSettings
from .screen import ScreenSettings
from .windows import BACKGROUNDS_PER_IMAGE, POSITIVES_PER_OBJECT

# A step computes a forward pass and a backward pass, which takes twice as long.
_TRAINING = 3
# Selective search of a photograph takes about this many seconds on a CPU core.
_SEARCH_SECONDS = 0.5
# Regions of a picture that the networks score: those that the screen keeps, or those of selective search.
_SCREENED, _ALL_REGIONS = 100, 1500
_TIMED_CROPS = 8


@dataclass(frozen=True)
class Recipe:
    """What a training does: the arguments of `train_detector` of the same names.

    Attributes:
        screen: None also if there is no MultiBox network, which a screen needs, or the data set is too small.
        has_multibox, has_screen: whether the detector has a MultiBox network and a screen, trained or kept.
    """

    members: int
    settings: FineTuneSettings
    multibox: MultiBoxSettings | None
    screen: ScreenSettings | None
    regression: bool
    has_multibox: bool
    has_screen: bool


@dataclass(frozen=True)
class PlannedStage:
    """A stage of a training.

    Attributes:
        name: the stage, as in reports.
        amount: how much there is to do, in words ("3,000 steps of 128 windows").
        seconds: about how long it takes, by the speed of this machine. The true time can be half or twice as long.
    """

    name: str
    amount: str
    seconds: float


@dataclass(frozen=True)
class Speed:
    """How fast a network runs: seconds for a crop, for all blocks and for the frozen blocks."""

    crop: float
    frozen: float


def measure_speed(network: Backbone, freeze_below: str | None, device: str) -> Speed:
    """Time a forward pass of a network on a few crops.

    Args:
        network: the initial network.
        freeze_below: see `FineTuneSettings`.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """
    device = resolve_device(device)
    training = network.training
    network.to(device).eval()
    count = frozen_blocks(network, freeze_below)
    x = torch.zeros(_TIMED_CROPS, 3, CROP_SIZE, CROP_SIZE, device=device)

    def seconds(blocks: int) -> float:
        started = time.perf_counter()
        network.trunk[:blocks](x).sum().item()  # waits for a GPU
        return (time.perf_counter() - started) / _TIMED_CROPS

    with torch.inference_mode():
        seconds(len(network.trunk))  # the first pass also allocates memory
        speed = Speed(seconds(len(network.trunk)), seconds(count) if count else 0.0)
    network.to("cpu").train(training)
    return speed


def plan_stages(speed: Speed, recipe: Recipe, *, pictures: int, objects: int, measured: int) -> list[PlannedStage]:
    """The stages of `train_detector`, in order. Finished stages of an earlier call are in the plan too.

    Args:
        speed: from `measure_speed`.
        recipe: what is trained.
        pictures, objects: numbers in the training set.
        measured: number of pictures to measure on; 0 measures nothing.
    """
    settings, multibox, screen = recipe.settings, recipe.multibox, recipe.screen
    stages = []
    trained_share = max(speed.crop - speed.frozen, 0.0) * _TRAINING
    # A view of MultiBox has as many pixels as several crops.
    if multibox is not None:
        view = (multibox.size / CROP_SIZE) ** 2
        views = pictures * multibox.views
        steps = f"{multibox.iterations:,} steps of {multibox.batch} views"
        seconds = views * view * speed.frozen + multibox.iterations * multibox.batch * view * trained_share
        stages.append(PlannedStage("MultiBox", f"{views:,} views, {steps}", seconds))
    if screen is not None:
        steps_of_screen = min(screen.iterations, screen.passes * pictures // screen.batch)
        maps = min(screen.pictures, pictures)
        # The screen is small: a step takes as long as some crops.
        seconds = maps * (_SEARCH_SECONDS + 4 * speed.crop) + steps_of_screen * 8 * speed.crop
        stages.append(PlannedStage("screen", f"maps of {maps:,} pictures, {steps_of_screen:,} steps", seconds))
    if recipe.members or recipe.regression:
        seconds = pictures * (_SEARCH_SECONDS + (4 * speed.crop if recipe.has_multibox else 0))
        stages.append(PlannedStage("proposals", f"{pictures:,} pictures", seconds))
    windows = pictures * BACKGROUNDS_PER_IMAGE + objects * POSITIVES_PER_OBJECT
    if recipe.members:
        batch = settings.positives + settings.backgrounds
        if speed.frozen:
            stored = min(settings.pool, windows)
            stages.append(PlannedStage("frozen blocks", f"up to {stored:,} windows", stored * speed.frozen))
        name = "training" if recipe.members == 1 else f"training of {recipe.members} members"
        amount = f"{settings.iterations:,} steps of {batch} windows" + (" each" if recipe.members > 1 else "")
        stages.append(PlannedStage(name, amount, recipe.members * settings.iterations * batch * trained_share))
    if recipe.regression:
        near = min(MOST_WINDOWS, objects * POSITIVES_PER_OBJECT)
        stages.append(PlannedStage("box regression", f"up to {near:,} windows", near * speed.crop))
    if recipe.members > 1 and not recipe.has_screen:
        shown = min(PICTURES, pictures)
        seconds = shown * (_SEARCH_SECONDS + REGIONS_PER_PICTURE * speed.crop)
        stages.append(PlannedStage("cascade", f"{shown:,} pictures", seconds))
    if measured:
        regions = _SCREENED if recipe.has_screen else _ALL_REGIONS
        seconds = measured * (_SEARCH_SECONDS + regions * speed.crop)
        stages.append(PlannedStage("evaluation", f"{measured:,} pictures", seconds))
    return stages


def plan_sentences(stages: list[PlannedStage], pictures: int) -> list[str]:
    """The plan in words: a sentence for all stages together, and a line for each."""
    seconds = sum(stage.seconds for stage in stages)
    return [
        f"plan for {pictures:,} pictures, in all about {duration(seconds)} on this machine (a rough estimate; finished "
        "stages are skipped):",
        *(
            f"  {number}. {stage.name}: {stage.amount}, about {duration(stage.seconds)}"
            for number, stage in enumerate(stages, 1)
        ),
    ]
