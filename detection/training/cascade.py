"""From which probability on a region is worth the other members' while (`Model.cascade`)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...data.dataset import Dataset, Sample
from ...data.images import read_image
from ...proposals.proposals import Proposals
from ..backbones import Backbone
from ..engine import Engine
from ..model_files import RegionSettings
from ..warp import warp_regions

# The share of regions that the first member passes on: six members then cost 1 + 5 * 0.09 = 1.45 times one. One picture
# has one region in thirty on an object, so this leaves room for a first member that is often wrong.
PASSED = 0.09
# Regions that the threshold is read off: the share that it passes is then known to half a per cent.
PICTURES = 64
REGIONS_PER_PICTURE = 64


def fit_cascade(
    first: Backbone,
    dataset: Dataset,
    proposals: Callable[[Sample], Proposals],
    regions: RegionSettings,
    file: Path,
    *,
    seed: int,
    device: str = "auto",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> float:
    """The probability of being an object that the `PASSED` most likely of all regions have, by the first member.

    Args:
        first: the first member of the ensemble, as it will be used.
        dataset: training pictures; some regions of some of them are looked at.
        proposals: all regions of a picture.
        regions: how regions are warped.
        file: keeps the result; where it is, it is taken from there.
        seed: of the choice.
        report: called with the number of pictures done, and of all.
    """
    if file.exists():
        return float(json.loads(file.read_text())["cascade"])
    rng = np.random.default_rng([seed, 5])
    engine = Engine(first, device=device)
    chosen = rng.permutation(len(dataset))[:PICTURES]
    likely = []
    for done, index in enumerate(chosen):
        sample = dataset[int(index)]
        boxes = proposals(sample).boxes
        boxes = boxes[rng.permutation(len(boxes))[:REGIONS_PER_PICTURE]]
        crops = warp_regions(read_image(sample.path), boxes, padding=regions.padding, mode=regions.warp_mode)
        likely.append(1 - engine(crops)[:, 0])
        report(done + 1, len(chosen))
    threshold = float(np.quantile(np.concatenate(likely), 1 - PASSED))
    partial = file.with_name(file.name + ".partial")
    partial.write_text(json.dumps({"cascade": threshold}))
    partial.replace(file)
    return threshold
