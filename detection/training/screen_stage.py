"""The stages of `train_detector` for the screen: it is trained before the networks, its thresholds are fitted last."""

from dataclasses import asdict

from ...data.categories import Category
from ...data.dataset import Dataset
from ...proposals.multibox import MultiBox
from ...proposals.screen import Screen
from ..model_files import Model, RegionSettings
from .known_classes import with_known_classes
from .regions import all_regions
from .screen import ScreenSettings, train_screen
from .screen_thresholds import fit_thresholds_once
from .split import ONE_UNSEEN_IN
from .training_run import TrainingRun


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
        unseen: the pictures to fit on, which are not trained on; without pictures, the thresholds stay mild.

    Raises:
        TrainingError: a picture cannot be read.
    """
    assert model.screen is not None
    card = {"data": run.dataset.name, "pictures": len(run.dataset), "settings": asdict(settings)}
    model.card["screen"] = card
    if not len(unseen):
        run.say(f"screen: trained, with mild thresholds: fewer than {ONE_UNSEEN_IN} pictures to fit them on")
        return
    known = with_known_classes(unseen, model.categories)
    fitted = fit_thresholds_once(model, known, run.folder, device=run.device, report=run.report)
    model.screen.thresholds, model.calibration = fitted.thresholds, fitted.calibration
    card["thresholds"] = figures = fitted.figures
    run.say(
        f"screen: trained, it keeps {figures['regions']:.0f} regions of a picture and loses {figures['lost']:.1%} of "
        f"the objects that are found without it (on {figures['pictures']} pictures not trained on)"
    )


def keep_screen(run: TrainingRun, model: Model, kept: Model) -> None:
    """Give the model the screen of the initial model `kept`, whose MultiBox network and members it has."""
    model.screen, model.calibration = kept.screen, kept.calibration
    model.card["screen"] = kept.card.get("screen", {})
    run.say(f"screen: kept from {run.init}")
