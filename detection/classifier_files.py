"""Saves and loads a classifier of whole pictures, from which the training of a detector can start.

The file is a safetensors file with the weights in float16. Its metadata "classifier" is a JSON object: "network" (the
architecture), "classes" (the names of the outputs) and "card" (about the training, for people).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..runtime.atomic_write import atomic_write
from .model_json import Architecture
from .networks.googlenet import GoogLeNet, Stem
from .networks.weights import ModelError, in_half, network_with_weights, read_weights


def save_classifier(network: GoogLeNet, classes: Sequence[str], file: Path, card: dict[str, Any]) -> None:
    """Write a classifier of whole pictures, from which `detect-train` can start.

    Args:
        network: saved in float16 without its auxiliary heads.
        classes: the class names of the outputs; saved in the file's metadata.
        file: the .safetensors file to write; its folder is made if it is missing.
        card: information about the training, for people; saved in the file's metadata.

    Raises:
        OSError: the file cannot be written.
    """
    architecture = Architecture("googlenet", network.stem, network.batch_norm)
    about = {"network": asdict(architecture), "classes": list(classes), "card": card}
    with atomic_write(file) as partial:
        save_file(in_half(network), partial, {"classifier": json.dumps(about)})


def load_classifier(file: str | Path) -> GoogLeNet:
    """Load a classifier that `save_classifier` wrote, in evaluation mode.

    Raises:
        ModelError: the file is missing, damaged or not a classifier.
    """
    file = Path(file)
    architecture, classes = _read_classifier(file)

    def build() -> GoogLeNet:
        return GoogLeNet(len(classes), auxiliary=False, stem=architecture.stem, batch_norm=architecture.batch_norm)

    declared = {"classifier.weight": (len(classes), None)}
    return network_with_weights(build, read_weights(file), file, declared).eval()


def classifier_classes(file: str | Path) -> tuple[str, ...]:
    """The class names of the outputs of a classifier that `save_classifier` wrote.

    Raises:
        ModelError: the file is missing, damaged or not a classifier.
    """
    return _read_classifier(Path(file))[1]


def _read_classifier(file: Path) -> tuple[Architecture, tuple[str, ...]]:
    """The architecture and the class names in the metadata of a classifier's file."""
    try:
        with safe_open(file, framework="pt") as tensors:
            about = json.loads((tensors.metadata() or {})["classifier"])
        network, classes = about["network"], about["classes"]
        batch_norm, stem = network.get("batch_norm", False), network.get("stem", "plain")
        if (
            not isinstance(classes, list)
            or not classes
            or not all(isinstance(name, str) for name in classes)
            or len(set(classes)) != len(classes)
            or not isinstance(batch_norm, bool)
            or stem not in get_args(Stem)
        ):
            raise ValueError(f"network {network!r:.100} with classes {classes!r:.100}")
    except FileNotFoundError:
        raise ModelError(f"{file}: there is no such file; detect-train-classifier writes one") from None
    except (SafetensorError, OSError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not a classifier of detect-train-classifier ({str(error)[:200]})") from error
    return Architecture("googlenet", stem, batch_norm), tuple(classes)
