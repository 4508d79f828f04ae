"""Which pictures are trained on, which the screen's thresholds are fitted on, and which the detector is measured on."""

from collections.abc import Callable

import numpy as np

from ...data.dataset import Dataset

# One training picture in so many, and at most so many, is not trained on but serves to fit the screen's thresholds and
# the calibration: enough for a percentage, few enough that the training does not miss them.
ONE_UNSEEN_IN, MOST_UNSEEN = 15, 80
# With fewer objects in these pictures, a percentage of them cannot be measured, and all pictures are trained on.
FEWEST_UNSEEN_OBJECTS = 50


def seen_and_unseen(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Divide the pictures at random into those that are trained on and the others.

    The thresholds of the screen and the calibration of the scores are fitted on the others, because feature maps and
    scores of training pictures look better than those of new pictures. If the others have fewer than
    `FEWEST_UNSEEN_OBJECTS` objects, all pictures are trained on.
    """
    count = min(MOST_UNSEEN, len(dataset) // ONE_UNSEEN_IN)
    order = np.random.default_rng([seed, 19]).permutation(len(dataset))
    unseen, seen = dataset.part(np.sort(order[:count]).tolist()), dataset.part(np.sort(order[count:]).tolist())
    if sum(int((~sample.difficult).sum()) for sample in unseen) < FEWEST_UNSEEN_OBJECTS:
        return dataset, dataset.part([])
    return seen, unseen


def untrained_pictures(validation: Dataset, dataset: Dataset, warn: Callable[[str], None]) -> Dataset | None:
    """The pictures of `validation` that are not in `dataset`; None, after a warning, if there are none."""
    untrained = validation.without(dataset)
    if not len(untrained):
        warn(f"{validation.name}: all of its pictures are trained on, so the detector is not measured")
        return None
    return untrained
