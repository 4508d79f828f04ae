"""From which probability on a region is worth the other members' while (`Model.cascade`)."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ...data.dataset import Dataset
from ...data.images import read_image
from ..detector import Detector
from ..model_files import Model
from ..warping.warp import warp_regions

# The share of regions that the first member passes on: six members then cost 1 + 5 * 0.09 = 1.45 times one. One picture
# has one region in thirty on an object, so this leaves room for a first member that is often wrong.
PASSED = 0.09
# Regions that the threshold is read off: the share that it passes is then known to half a per cent.
PICTURES = 64
REGIONS_PER_PICTURE = 64


def fit_cascade(
    model: Model,
    dataset: Dataset,
    folder: Path,
    *,
    seed: int,
    device: str = "auto",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """The probability of being an object that the `PASSED` most likely of all regions have, by the first member.

    Args:
        model: the ensemble, with what proposes its regions.
        dataset: training pictures; some regions of some of them are looked at.
        folder: a threshold that was fitted there to the same networks is taken from there.
        seed: of the choice.
        report: called with the number of pictures done, and of all.
    """
    file = folder / f"cascade_{_digest(model)}.json"
    if file.exists():
        return float(json.loads(file.read_text())["cascade"])
    rng = np.random.default_rng([seed, 5])
    detector = Detector(replace(model, members=model.members[:1], regressor=None), device=device, seed=seed)
    chosen = rng.permutation(len(dataset))[:PICTURES]
    likely = []
    for done, index in enumerate(chosen):
        image = read_image(dataset[int(index)].path)
        boxes = detector.propose(image).boxes
        boxes = boxes[rng.permutation(len(boxes))[:REGIONS_PER_PICTURE]]
        crops = warp_regions(image, boxes, padding=model.regions.padding, mode=model.regions.warp_mode)
        likely.append(1 - detector.engines[0](crops)[:, 0])
        report(done + 1, len(chosen))
    threshold = float(np.quantile(np.concatenate(likely), 1 - PASSED))
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps({"cascade": threshold}))
    partial.replace(file)
    return threshold


def _digest(model: Model) -> str:
    """Of the first member and of all that regions depend on."""
    digest = hashlib.sha256(json.dumps(asdict(model.regions)).encode())
    for network in (model.members[0], model.multibox):
        for value in [] if network is None else network.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
