"""The threshold of the cascade: the object probability from which on all members score a region (`Model.cascade`)."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...data.dataset import Dataset
from ...data.images import read_image
from ...runtime.atomic_write import atomic_write
from ..detector import Detector
from ..model_files import Model
from ..warping.warp import warp_regions
from .keys import pictures_key, result_key
from .progress import Report, no_report

# The share of regions that the other members score. Six members then cost 1 + 5 * 0.09 = 1.45 times as much as one.
# In a picture one region in thirty is on an object, so the share leaves room for errors of the first member.
PASSED_SHARE = 0.09
# The threshold is estimated from this many regions; the share is then accurate to half a per cent.
PICTURES = 64
REGIONS_PER_PICTURE = 64

_logger = logging.getLogger(__name__.split(".")[0])


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
        folder: for the file with the threshold. If the file exists for the same networks, region settings, pictures and
            seed, its threshold is returned. A damaged file is replaced with a warning.
        seed: of the random choice of pictures and regions.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the stage "cascade" and the number of finished pictures.
    """
    rng = np.random.default_rng([seed, 5])
    chosen = rng.permutation(len(dataset))[:PICTURES]
    file = folder / f"cascade_{cascade_key(model, dataset, chosen, seed)}.json"
    stored = _stored_threshold(file)
    if stored is not None:
        return stored
    detector = Detector(
        replace(model, members=model.members[:1], regressor=None, screen=None), device=device, seed=seed
    )
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


def cascade_key(model: Model, dataset: Dataset, chosen: np.ndarray, seed: int) -> str:
    """The key of everything that the threshold depends on; `chosen` are the rows of the pictures in `dataset`."""
    return result_key(
        member=model.members[0],
        multibox=model.multibox,
        regions=model.regions,
        pictures=pictures_key(dataset, chosen),
        seed=seed,
        share=PASSED_SHARE,
        regions_per_picture=REGIONS_PER_PICTURE,
    )


def _stored_threshold(file: Path) -> float | None:
    """The threshold in a file; None if there is no file or it is damaged."""
    if not file.exists():
        return None
    try:
        threshold = json.loads(file.read_text(encoding="utf-8"))["cascade"]
        if isinstance(threshold, float) and 0 <= threshold <= 1:
            return threshold
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    _logger.warning("%s: damaged; the threshold is fitted again", file)
    return None
