"""MultiBox, compiled: a picture in, its best class-agnostic boxes out."""

import threading

import numpy as np

from ...proposals.multibox import MultiBox, multibox_proposals
from ...proposals.proposals import Proposals
from ..warping.warp import warp_regions
from .engine import CompiledForward


class MultiBoxEngine:
    """The compiled forward pass of a MultiBox network, with everything before and after it.

        engine = MultiBoxEngine(model.multibox)
        proposals = engine(image)  # uint8 RGB [H, W, 3] -> at most 200 boxes

    Args:
        network: its weights are copied into the compiled ones, one for each of `network.sizes`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None for all.
    """

    def __init__(self, network: MultiBox, *, device: str = "auto", threads: int | None = None):
        self._sizes = network.sizes
        self._forwards = [
            CompiledForward(network, device=device, batch_size=1, threads=threads, size=size) for size in network.sizes
        ]
        self._priors = [network.priors(size) for size in network.sizes]
        self._lock = threading.Lock()  # a compiled network serves one caller at a time, pictures may be read by several

    def __call__(self, image: np.ndarray) -> Proposals:
        """The best boxes of a picture, uint8 RGB [H, W, 3], in its pixels; scores are confidences in 0..1."""
        height, width = image.shape[:2]
        whole = np.array([[0, 0, width, height]], np.float32)
        looks = [warp_regions(image, whole, size=size, padding=0) for size in self._sizes]
        with self._lock:
            predictions = [forward(look)[0] for forward, look in zip(self._forwards, looks, strict=True)]
        return multibox_proposals(predictions, self._priors, self._sizes, width, height)
