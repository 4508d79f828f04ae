"""The compiled MultiBox network: from a picture to its best class-agnostic boxes."""

import threading

import numpy as np

from ...proposals.multibox import MultiBox, multibox_proposals
from ...proposals.proposals import Proposals
from ..warping.warp import warp_regions
from .engine import CompiledForward


class MultiBoxEngine:
    """MultiBox proposals of a picture: warping, the compiled forward pass, and selection of the best boxes.

    Several threads may call an engine at the same time.

        engine = MultiBoxEngine(model.multibox)
        proposals = engine(image)  # uint8 RGB [H, W, 3] -> at most 200 boxes

    Args:
        network: the MultiBox network, which is copied. It is compiled once for each of `network.sizes`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of OpenVINO; None for all.
    """

    def __init__(self, network: MultiBox, *, device: str = "auto", threads: int | None = None):
        self._sizes = network.sizes
        self._forwards = [
            CompiledForward(network, device=device, batch_size=1, threads=threads, size=size) for size in network.sizes
        ]
        self._priors = [network.priors(size) for size in network.sizes]
        self._lock = threading.Lock()  # a compiled network serves one thread at a time

    def __call__(self, image: np.ndarray) -> Proposals:
        """Return the best boxes of a picture, uint8 RGB [H, W, 3], in pixels, with confidences in 0..1 as scores."""
        height, width = image.shape[:2]
        whole = np.array([[0, 0, width, height]], np.float32)
        crops = [warp_regions(image, whole, size=size, padding=0) for size in self._sizes]
        with self._lock:
            predictions = [forward(crop)[0] for forward, crop in zip(self._forwards, crops, strict=True)]
        return multibox_proposals(predictions, self._priors, self._sizes, width, height)
