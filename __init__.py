"""inception-rcnn: the detection system of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015).

    from inception_rcnn import Detector
    detections = Detector.load("default")(image)  # image: uint8 RGB [H, W, 3]

The names in `__all__` are imported on first use, so `import inception_rcnn` does not wait for torch and numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.images import ImageError, read_image
    from .detection.detector import Detector
    from .detection.networks.googlenet import GoogLeNet
    from .detection.suppression import Detections
    from .proposals.proposals import Proposals
    from .proposals.selective_search import selective_search

__version__ = "0.1.0"
__all__ = ["Detector", "Detections", "GoogLeNet", "ImageError", "Proposals", "read_image", "selective_search"]

_MODULE_OF = {
    "Detections": ".detection.suppression",
    "Detector": ".detection.detector",
    "GoogLeNet": ".detection.networks.googlenet",
    "ImageError": ".data.images",
    "Proposals": ".proposals.proposals",
    "read_image": ".data.images",
    "selective_search": ".proposals.selective_search",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
