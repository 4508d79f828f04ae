"""Mini-batches of views, with what each prior shall predict."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Dataset
from ...data.images import read_image
from ...proposals.multibox import encode, match
from .views import View, render_view


class ViewBatches:
    """Mini-batches as a function of the step: all pictures are met once, in a random order, before any is met again,
    each time in another of its views.

    Args:
        dataset: the pictures.
        views: from `all_views`.
        features: what frozen blocks made of each view, or None to render views anew, with other colours each time.
        priors: float32 [P, 4], over the network's input.
        size: side of a view in pixels.
        batch: views of a mini-batch.
        seed: of the order, and of the colours of views that are rendered.
    """

    def __init__(
        self,
        dataset: Dataset,
        views: list[View],
        features: np.ndarray | None,
        priors: np.ndarray,
        *,
        size: int,
        batch: int,
        seed: int,
    ):
        self._dataset, self._views, self._features, self._priors = dataset, views, features, priors
        self._each = len(views) // len(dataset)
        self._size, self._batch, self._seed = size, batch, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [N, c, h, w] or pixels [N, size, size, 3], assignment [N, P], offsets [N, P, 4]."""
        rows = self._rows(step)
        assignment = np.stack([match(self._priors, self._views[row].boxes, self._views[row].ignored) for row in rows])
        offsets = np.zeros((*assignment.shape, 4), np.float32)
        for number, row in enumerate(rows):
            positive = np.flatnonzero(assignment[number] >= 0)
            objects = self._views[row].boxes[assignment[number, positive]]
            offsets[number, positive] = encode(objects, self._priors[positive])
        inputs = np.stack([self._input(row, step) for row in rows])
        return torch.from_numpy(inputs), torch.from_numpy(assignment), torch.from_numpy(offsets)

    def pictures(self, step: int) -> list[Path]:
        """The pictures of a mini-batch, a row each."""
        return [self._dataset[row // self._each].path for row in self._rows(step)]

    def _rows(self, step: int) -> list[int]:
        return [self._row(place) for place in range(step * self._batch, (step + 1) * self._batch)]

    def _row(self, place: int) -> int:
        turn, position = divmod(place, len(self._dataset))
        picture = int(np.random.default_rng([self._seed, 8, turn]).permutation(len(self._dataset))[position])
        first = int(np.random.default_rng([self._seed, 9, picture]).integers(self._each))
        return picture * self._each + (first + turn) % self._each

    def _input(self, row: int, step: int) -> np.ndarray:
        if self._features is not None:
            return self._features[row]
        image = read_image(self._dataset[row // self._each].path)
        rng = np.random.default_rng([self._seed, 10, step, row])
        return render_view(image, self._views[row], self._size, rng)
