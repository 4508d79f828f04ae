"""The priors of a MultiBox network, clustered from the objects of the training views."""

from collections.abc import Sequence

import numpy as np

from ...proposals.multibox import PriorGrid, cluster_shapes
from .errors import TrainingError
from .views import View

# Sizes of priors (square root of the area, in input pixels) at which the map changes. Priors below CLOSE_BELOW are on
# the map of stride 16 with two by two places in each cell, priors below FINE_BELOW on the same map with one place in
# each cell, and the others on the map of stride 32.
CLOSE_BELOW, FINE_BELOW = 45, 130
# Objects with a side below this number of view pixels are not clustered: no prior would match them.
_SMALLEST = 4


def prior_grids(views: Sequence[View], shapes: int, seed: int) -> list[PriorGrid]:
    """Cluster the objects of the views into `shapes` priors, each on the map that suits its size.

    Raises:
        TrainingError: see `object_sides`.
    """
    clustered = np.round(cluster_shapes(object_sides(views, shapes), shapes, seed))
    scale = np.sqrt(clustered.prod(axis=1))
    chosen = (scale < CLOSE_BELOW, (scale >= CLOSE_BELOW) & (scale < FINE_BELOW), scale >= FINE_BELOW)
    return [
        PriorGrid(stride, division, tuple((float(w), float(h)) for w, h in clustered[of_grid]))
        for (stride, division), of_grid in zip(((16, 2), (16, 1), (32, 1)), chosen, strict=True)
        if of_grid.any()
    ]


def object_sides(views: Sequence[View], shapes: int) -> np.ndarray:
    """Widths and heights of the objects in the views, in view pixels: float32 [N, 2].

    Raises:
        TrainingError: the objects have fewer different sizes than `shapes`.
    """
    sides = np.concatenate([view.boxes[:, 2:] - view.boxes[:, :2] for view in views] or [np.zeros((0, 2), np.float32)])
    sides = sides[(sides >= _SMALLEST).all(axis=1)]
    different = len(np.unique(sides, axis=0))
    if different < shapes:
        raise TrainingError(
            f"{len(views)} views show {different} different sizes of objects, fewer than the {shapes} shapes of "
            "priors: train on more pictures"
        )
    return sides
