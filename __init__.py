"""inception-rcnn: the detection system of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015).

    from inception_rcnn import Detector
    for found in Detector.load("default")("photo.jpg"):
        print(found.name, found.score, found.box)

The names in `__all__` are imported on first use, so `import inception_rcnn` does not wait for torch and numba.
Messages go to the logger "inception_rcnn"; `logging.getLogger("inception_rcnn").setLevel("ERROR")` silences them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.images import ImageError, read_image
    from .detection.detections import Detection, Detections
    from .detection.detector import Detector, FileResult
    from .detection.engines.choice import EngineError
    from .detection.evaluation.ilsvrc import evaluate
    from .detection.model_files import load_model
    from .detection.networks.googlenet import GoogLeNet
    from .detection.networks.weights import ModelError
    from .detection.training.train_detector import train_detector
    from .proposals.proposals import Proposals
    from .proposals.selective_search import selective_search

__version__ = "0.1.0"
__all__ = [
    "Detector",
    "Detections",
    "Detection",
    "FileResult",
    "EngineError",
    "GoogLeNet",
    "ImageError",
    "ModelError",
    "Proposals",
    "evaluate",
    "load_model",
    "read_image",
    "selective_search",
    "train_detector",
]

_MODULE_OF = {
    "Detection": ".detection.detections",
    "Detections": ".detection.detections",
    "Detector": ".detection.detector",
    "EngineError": ".detection.engines.choice",
    "FileResult": ".detection.detector",
    "GoogLeNet": ".detection.networks.googlenet",
    "ImageError": ".data.images",
    "ModelError": ".detection.networks.weights",
    "Proposals": ".proposals.proposals",
    "evaluate": ".detection.evaluation.ilsvrc",
    "load_model": ".detection.model_files",
    "read_image": ".data.images",
    "selective_search": ".proposals.selective_search",
    "train_detector": ".detection.training.train_detector",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
