"""Batches of views, and what MultiBox should predict for each prior."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...data.dataset import Dataset
from ...data.images import read_image
from ...proposals.multibox import encode, match
from .views import View, render_view


class ViewBatches:
    """Batches of views as a function of the step.

    Each epoch shows every picture once, in a random order. Successive epochs show different views of a picture.

    Args:
        dataset: the pictures.
        views: from `all_views`.
        features: float16 [views, c, h, w], the features of frozen blocks for each view. None to render the views for
            each step, with other colours each time.
        priors: float32 [P, 4], over the network's input.
        size: side of a view in pixels.
        batch: views in a batch.
        seed: of the order of the pictures, and of the colours of rendered views.
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
        self._views_per_picture = len(views) // len(dataset)
        self._size, self._batch, self._seed = size, batch, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of a step.

        Returns:
            features float16 [N, c, h, w], or pixels uint8 [N, size, size, 3] if there are no features;
            assignment int64 [N, P], see `match`;
            offsets float32 [N, P, 4], see `encode`; 0 for priors without an object.
        """
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
        """The picture file of each view in the batch of a step."""
        return [self._dataset[row // self._views_per_picture].path for row in self._rows(step)]

    def _rows(self, step: int) -> list[int]:
        return [self._row(place) for place in range(step * self._batch, (step + 1) * self._batch)]

    def _row(self, place: int) -> int:
        """The row of `views` at a place in the sequence of all epochs."""
        epoch, position = divmod(place, len(self._dataset))
        picture = int(np.random.default_rng([self._seed, 8, epoch]).permutation(len(self._dataset))[position])
        first = int(np.random.default_rng([self._seed, 9, picture]).integers(self._views_per_picture))
        return picture * self._views_per_picture + (first + epoch) % self._views_per_picture

    def _input(self, row: int, step: int) -> np.ndarray:
        if self._features is not None:
            return self._features[row]
        image = read_image(self._dataset[row // self._views_per_picture].path)
        rng = np.random.default_rng([self._seed, 10, step, row])
        return render_view(image, self._views[row], self._size, rng)
