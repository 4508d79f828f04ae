"""The stages of `train_detector` for the screen: it is trained before the networks, its thresholds are fitted last."""

import copy
from dataclasses import asdict, replace

from ...data.categories import Category
from ...data.dataset import Dataset
from ...proposals.multibox import MultiBox
from ...proposals.screen import MILD, Screen
from ..model_files import Model, RegionSettings
from .initial_network import InitialScreen
from .known_classes import with_known_classes
from .regions import all_regions
from .screen import ScreenSettings, train_screen
from .screen_thresholds import fit_thresholds_once
from .split import FEWEST_UNSEEN_OBJECTS, ONE_UNSEEN_IN
from .training_run import TrainingRun

# The score threshold of an initial screen is multiplied with this number for new members. Objects that a screen has not
# learned get lower scores, and new members are mostly a single network, which can score more regions than six. The
# table in docs/proposals.md, of `benchmarks/small_screen.py`, shows the recall that this brings.
_NEW_MEMBERS = 0.25
# The same table shows that a screen trained on some tens of pictures is no better than the initial screen, and that its
# scores are on a scale that only a fit of the thresholds can tell.
_TOO_SMALL = f"because a new screen needs about {FEWEST_UNSEEN_OBJECTS * ONE_UNSEEN_IN} objects"


def trained_screen(
    run: TrainingRun,
    multibox: MultiBox,
    categories: tuple[Category, ...],
    regions: RegionSettings,
    settings: ScreenSettings,
    start: Screen | None,
) -> Screen:
    """Train a screen with mild thresholds on the objects of `categories`. Its weights are rounded as in a model folder.

    The arguments are those of `train_screen`.
    """
    with all_regions(run.folder / "proposals.sqlite", regions, multibox, run.device) as propose:
        screen = train_screen(
            multibox,
            with_known_classes(run.dataset, categories),
            lambda sample: propose(sample.path),
            categories,
            settings,
            run.folder,
            start=start,
            device=run.device,
            report=run.report,
        )
    return screen.half().float()


def fit_screen(run: TrainingRun, model: Model, settings: ScreenSettings, unseen: Dataset) -> None:
    """Fit the thresholds of the model's new screen and the calibration of the scores, and describe them in the card.

    Args:
        model: the complete detector, which is changed.
        settings: the recipe of the screen.
        unseen: the pictures to fit on, which are not trained on.

    Raises:
        TrainingError: a picture cannot be read.
    """
    assert model.screen is not None
    card = {"data": run.dataset.name, "pictures": len(run.dataset), "settings": asdict(settings)}
    model.card["screen"] = card
    known = with_known_classes(unseen, model.categories)
    fitted = fit_thresholds_once(model, known, run.folder, device=run.device, report=run.report)
    model.screen.thresholds, model.calibration = fitted.thresholds, fitted.calibration
    card["thresholds"] = figures = fitted.figures
    run.say(
        f"screen: trained, it keeps {figures['regions']:.0f} regions of a picture and loses {figures['lost']:.1%} of "
        f"the objects that are found without it (on {figures['pictures']} pictures not trained on)"
    )


def why_no_screen(*, wanted: bool, has_multibox: bool) -> str:
    """Why the detector has no screen, in words."""
    if not wanted:
        return "screen: none"
    return f"screen: none, {_TOO_SMALL}" if has_multibox else "screen: none, it needs a MultiBox network"


def mild_screen(screen: Screen) -> Screen:
    """A copy of a screen that keeps more regions, from which training windows are drawn."""
    mild = copy.deepcopy(screen)
    mild.thresholds = MILD
    return mild


def keep_screen(run: TrainingRun, model: Model, initial: InitialScreen, *, new_members: bool) -> None:
    """Give the model the screen of the initial model, whose MultiBox network it has, and the calibration.

    The calibration is right for the initial model's members. New members keep it for the order of their detections: a
    region that fits an object badly gets a lower score.

    Args:
        model: the complete detector, which is changed.
        initial: from `initial_screen`.
        new_members: whether the members were trained, and not kept.
    """
    model.screen, model.calibration = copy.deepcopy(initial.screen), initial.calibration
    model.card["screen"] = initial.card
    if new_members:
        thresholds = initial.screen.thresholds
        model.screen.thresholds = replace(thresholds, score=thresholds.score * _NEW_MEMBERS)
    run.say(f"screen: kept from {run.init}{f', {_TOO_SMALL}' if new_members else ''}")
