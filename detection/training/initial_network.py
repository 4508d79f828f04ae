"""The networks that training starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...proposals.multibox import MultiBox
from ...proposals.screen import Screen
from ..calibration import ScoreCalibration
from ..classifier_files import load_classifier
from ..model_files import find_model, load_model
from ..networks.backbones import Backbone, TorchvisionGoogLeNet
from ..networks.caffemodel import load_caffemodel
from ..networks.googlenet import GoogLeNet
from ..networks.weights import ModelError


@dataclass(frozen=True)
class InitialScreen:
    """The screen of the model that training starts from, the calibration of its qualities, and its part of the card."""

    screen: Screen
    calibration: ScoreCalibration | None
    card: dict[str, Any]


def initial_network(init: str) -> Backbone:
    """The network that training starts from.

    Args:
        init: a .caffemodel file; a .safetensors file of detect-train-classifier; "torchvision" for the GoogLeNet that
            torchvision downloads; "scratch" for random weights, with batch norm, because so deep a network does not
            learn detection from scratch without it; else a model folder or the name of a shipped model, for its first
            member.

    Raises:
        ModelError, CaffeModelError: there is no such model, or a file is damaged.
    """
    if init == "scratch":
        return GoogLeNet(batch_norm=True, auxiliary=False)
    if init == "torchvision":
        return TorchvisionGoogLeNet(pretrained=True)
    if init.endswith(".caffemodel"):
        return load_caffemodel(init)
    if init.endswith(".safetensors"):
        return load_classifier(init)
    return load_model(init).members[0]


def check_initial_network(init: str) -> None:
    """Check that the network to start from exists, without loading it.

    Raises:
        ModelError: there is no such file or model.
    """
    if init.endswith((".caffemodel", ".safetensors")):
        if not Path(init).is_file():
            raise ModelError(f"no file {init!r:.300}: expected the network to start from")
    elif _is_model(init):
        find_model(init)


def initial_multibox(init: str) -> tuple[MultiBox | None, dict[str, Any]]:
    """The MultiBox network of the model `init` and its part of the model's card.

    Returns:
        (None, {}) if `init` is not a model folder or shipped model, or the model has no MultiBox network.

    Raises:
        ModelError: there is no such model, or a file is damaged.
    """
    if not _is_model(init):
        return None, {}
    model = load_model(init)
    return model.multibox, model.card.get("multibox", {})


def initial_screen(init: str) -> InitialScreen | None:
    """The screen of the model `init`; None if `init` is not a model folder or shipped model, or has no screen.

    Raises:
        ModelError: there is no such model, or a file is damaged.
    """
    model = load_model(init) if _is_model(init) else None
    if model is None or model.screen is None:
        return None
    return InitialScreen(model.screen, model.calibration, model.card.get("screen", {}))


def _is_model(init: str) -> bool:
    return init not in ("scratch", "torchvision") and not init.endswith((".caffemodel", ".safetensors"))
