"""The first stage of `train_detector`: a MultiBox network is trained, or that of the initial model is kept."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...proposals.multibox import MultiBox
from ..networks.backbones import Backbone
from .errors import TrainingError
from .initial_network import initial_multibox
from .multibox import MultiBoxSettings, check_multibox, train_multibox
from .training_run import TrainingRun


def check_multibox_stage(run: TrainingRun, network: Backbone, settings: MultiBoxSettings, out: Path) -> None:
    """Check, before anything is trained, that MultiBox can be trained.

    Args:
        network: the initial trunk.
        settings: the recipe.
        out: the model folder; it is created if missing.

    Raises:
        TrainingError: see `check_multibox`.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _multibox_errors():
        check_multibox(network, settings, run.dataset, out)


def trained_or_kept_multibox(
    run: TrainingRun, network: Backbone, settings: MultiBoxSettings | None
) -> tuple[MultiBox | None, dict[str, Any]]:
    """Train a MultiBox network, or take that of the initial model.

    Args:
        network: the initial trunk. It is not changed.
        settings: the recipe; None takes the network of the initial model.

    Returns:
        The network and its part of the card; (None, {}) if the initial model has no MultiBox network.

    Raises:
        TrainingError: see `train_multibox`.
    """
    if settings is None:
        kept, card = initial_multibox(run.init)
        run.say(
            f"MultiBox: none, {run.init} has none and none was to be trained"
            if kept is None
            else f"MultiBox: kept from {run.init}"
        )
        return kept, card

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        run.report(f"MultiBox, {stage}", done, total, figures)

    with _multibox_errors():
        trained = train_multibox(
            copy.deepcopy(network), run.dataset, settings, run.folder, device=run.device, report=report
        )
    run.say(f"MultiBox: trained in {settings.iterations:,} steps")
    # Rounded as in a model folder, so that the screen is trained on the maps that it will see.
    return trained.half().float(), {
        "data": run.dataset.name,
        "pictures": len(run.dataset),
        "settings": asdict(settings),
    }


@contextmanager
def _multibox_errors() -> Iterator[None]:
    """Add to an error that it concerns MultiBox, and what the user can do."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(
            f"MultiBox: {error}\nNothing is trained yet; --no-multibox leaves MultiBox out, and "
            "detect-train-multibox, which has more options, can add it later"
        ) from error
