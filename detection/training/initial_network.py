"""What training starts from."""

from typing import Any

from ...proposals.multibox import MultiBox
from ..model_files import load_classifier, load_model
from ..networks.backbones import Backbone, TorchvisionGoogLeNet
from ..networks.caffemodel import load_caffemodel
from ..networks.googlenet import GoogLeNet


def initial_network(init: str) -> Backbone:
    """The network that training starts from.

    Args:
        init: a .caffemodel file; a .safetensors file of detect-train-classifier; "torchvision" (its GoogLeNet,
            downloaded by torchvision); "scratch" (random weights, with batch norm, without which so deep a network does
            not learn detection from scratch); else a model folder or a shipped model's name, whose first member it is.

    Raises:
        ModelError, CaffeModelError: no such model or a damaged file.
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


def initial_multibox(init: str) -> tuple[MultiBox | None, dict[str, Any]]:
    """The network that proposes regions in the model folder `init`, and what its card says of it.

    None where `init` is no folder or has none.

    Raises:
        ModelError: no such model or a damaged file.
    """
    if init in ("scratch", "torchvision") or init.endswith((".caffemodel", ".safetensors")):
        return None, {}
    model = load_model(init)
    return model.multibox, model.card.get("multibox", {})
