"""The threshold of the cascade: the object probability from which on all members score a region (`Model.cascade`)."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ...data.dataset import Dataset
from ...data.images import read_image
from ...runtime.atomic_write import atomic_write
from ..detector import Detector
from ..model_files import Model
from ..warping.warp import warp_regions
from .progress import Report, no_report

# The share of regions that the other members score. Six members then cost 1 + 5 * 0.09 = 1.45 times as much as one.
# In a picture one region in thirty is on an object, so the share leaves room for errors of the first member.
PASSED_SHARE = 0.09
# The threshold is estimated from this many regions; the share is then accurate to half a per cent.
PICTURES = 64
REGIONS_PER_PICTURE = 64


def fit_cascade(
    model: Model,
    dataset: Dataset,
    folder: Path,
    *,
    seed: int,
    device: str = "auto",
    report: Report = no_report,
) -> float:
    """Find the object probability of the first member that the share `PASSED_SHARE` of all regions reaches.

    Args:
        model: the ensemble and its MultiBox network.
        dataset: training pictures, of which a random part is used.
        folder: for the file with the threshold. If the file exists for the same networks and region settings, its
            threshold is returned.
        seed: of the random choice of pictures and regions.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the stage "cascade" and the number of finished pictures.
    """
    file = folder / f"cascade_{_digest(model)}.json"
    if file.exists():
        return float(json.loads(file.read_text())["cascade"])
    rng = np.random.default_rng([seed, 5])
    detector = Detector(
        replace(model, members=model.members[:1], regressor=None, screen=None), device=device, seed=seed
    )
    chosen = rng.permutation(len(dataset))[:PICTURES]
    probabilities = []
    for done, index in enumerate(chosen):
        image = read_image(dataset[int(index)].path)
        boxes = detector.propose(image).boxes
        boxes = boxes[rng.permutation(len(boxes))[:REGIONS_PER_PICTURE]]
        crops = warp_regions(image, boxes, padding=model.regions.padding, mode=model.regions.warp_mode)
        probabilities.append(detector.ensemble(crops).objectness)
        report("cascade", done + 1, len(chosen), {})
    threshold = float(np.quantile(np.concatenate(probabilities), 1 - PASSED_SHARE))
    with atomic_write(file) as partial:
        partial.write_text(json.dumps({"cascade": threshold}))
    return threshold


def _digest(model: Model) -> str:
    """A digest of the first member, the MultiBox network and the region settings."""
    digest = hashlib.sha256(json.dumps(asdict(model.regions)).encode())
    for network in (model.members[0], model.multibox):
        for value in [] if network is None else network.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
