"""Trains MultiBox and the screen together, with all blocks of their trunk from inception_3a on.

Each step shows views of whole pictures. MultiBox learns to predict the objects in a view, the screen to tell regions of
the view apart. Both read the same feature maps, so the trunk learns from both.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from pictures import Pictures, distort_colours
from regions import Regions
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from inception_rcnn.data import boxes as box_ops
from inception_rcnn.data.dataset import Dataset
from inception_rcnn.detection.model_files import Model
from inception_rcnn.detection.training.loop import cosine, mixed_precision, moving_average
from inception_rcnn.detection.training.screen import NEAR_IOU
from inception_rcnn.detection.training.views import SHOWN, draw_view
from inception_rcnn.detection.training.windows import POSITIVE_IOU
from inception_rcnn.proposals.multibox import encode, match, multibox_loss


@dataclass(frozen=True)
class LocatorSettings:
    """The recipe.

    Attributes:
        steps: number of steps.
        batch: views in a batch.
        learning_rate: largest learning rate of MultiBox's heads. It rises during the first steps and then falls to 0
            along a cosine.
        trunk_factor, screen_factor: the learning rates of trunk and screen, as multiples of it.
        whole: share of the views that show the whole picture.
        positives, near, far: largest numbers of regions of a view, see `ScreenSettings`.
        jittered: boxes near each object that are added to the regions.
        smallest: least side of a region in pixels of the view.
        average_decay: of the moving average of the weights.
        seed: of all random choices.
    """

    steps: int = 4600
    batch: int = 32
    learning_rate: float = 3e-4
    trunk_factor: float = 0.3
    screen_factor: float = 2.0
    whole: float = 0.4
    positives: int = 24
    near: int = 36
    far: int = 20
    jittered: int = 12
    smallest: float = 8.0
    average_decay: float = 0.998
    seed: int = 0


class _Batches(TorchDataset):  # type: ignore[type-arg]
    """The batch of each step, without pixels."""

    def __init__(
        self,
        dataset: Dataset,
        sizes: np.ndarray,
        regions: Regions,
        columns: dict[int, int],
        priors: np.ndarray,
        size: int,
        settings: LocatorSettings,
    ):
        self._samples = list(dataset)
        self._sizes, self._regions, self._columns, self._priors = sizes, regions, columns, priors
        self._size, self._settings = size, settings
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self._settings.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        places = range(step * self._settings.batch, (step + 1) * self._settings.batch)
        pictures = [self._picture(place) for place in places]
        views = [self._view(picture, place) for picture, place in zip(pictures, places, strict=True)]
        columns = list(zip(*views, strict=True))
        numbers = np.concatenate([np.full(len(rows), number) for number, rows in enumerate(columns[3])])
        return {
            "pictures": np.array(pictures),
            "windows": np.stack(columns[0]),
            "mirrored": np.array(columns[1]),
            "assignment": np.stack(columns[2]),
            "places": np.stack([numbers, np.concatenate(columns[3])]),
            "offsets": np.concatenate(columns[4]),
            "boxes": list(columns[5]),
            "labels": np.concatenate(columns[6]),
            "overlaps": np.concatenate(columns[7]),
        }

    def _picture(self, place: int) -> int:
        epoch, position = divmod(place, len(self._samples))
        if epoch not in self._orders:
            rng = np.random.default_rng([self._settings.seed, epoch])
            self._orders = {epoch: rng.permutation(len(self._samples))}
        return int(self._orders[epoch][position])

    def _view(self, picture: int, place: int) -> tuple[Any, ...]:
        settings, sample, size = self._settings, self._samples[picture], self._size
        rng = np.random.default_rng([settings.seed, 1, place])
        width, height = self._sizes[picture].tolist()
        view = draw_view(sample, width, height, size, int(rng.random() >= settings.whole), rng)
        objects, shown = self._seen(sample.boxes, view.window, view.mirrored)
        found = (shown >= SHOWN) & ~sample.difficult
        ignored = objects[(shown > 0) & ~found]
        labels, objects = sample.labels[found], objects[found]

        assignment = match(self._priors, objects, ignored)
        places = np.flatnonzero(assignment >= 0)
        offsets = encode(objects[assignment[places]], self._priors[places])

        first, last = self._regions.candidates_of[picture : picture + 2]
        candidates, shown = self._seen(self._regions.candidates[first:last], view.window, view.mirrored)
        boxes = np.concatenate([candidates[shown >= SHOWN], objects, self._jittered(objects, rng)])
        boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) >= settings.smallest).all(axis=1)]
        overlaps, of_object = _largest_iou(boxes, objects)
        usable = _largest_iou(boxes, ignored)[0] < POSITIVE_IOU
        if sample.annotated is not None:
            usable &= overlaps >= NEAR_IOU
        positive = usable & (overlaps >= POSITIVE_IOU)
        near = usable & ~positive & (overlaps >= NEAR_IOU)
        groups = (
            (positive, settings.positives),
            (near, settings.near),
            (usable & ~positive & ~near, settings.far),
        )
        rows = np.concatenate([rng.permutation(np.flatnonzero(group))[:most] for group, most in groups])
        columns = np.array([self._columns[label] for label in labels.tolist()], np.int64)
        of_rows = np.where(positive[rows], columns[of_object[rows]], 0) if len(labels) else np.zeros(len(rows), int)
        return (
            view.window,
            view.mirrored,
            assignment.astype(np.int16),
            places,
            offsets,
            boxes[rows].astype(np.float32),
            of_rows,
            overlaps[rows].astype(np.float32),
        )

    def _seen(self, boxes: np.ndarray, window: np.ndarray, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of the picture in pixels of a view, clipped to it, and the share of each that the view shows."""
        scale = self._size / (window[2:] - window[:2])
        moved = ((boxes.astype(np.float64) - np.tile(window[:2], 2)) * np.tile(scale, 2)).astype(np.float32)
        clipped = box_ops.clip(moved, self._size, self._size)
        if mirrored:
            clipped = box_ops.flip_horizontal(clipped, self._size)
        return clipped, box_ops.area(clipped) / np.maximum(box_ops.area(moved), 1e-6)

    def _jittered(self, objects: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Boxes near the objects: each side moves by up to a quarter of the object's width or height."""
        boxes = np.repeat(objects, self._settings.jittered, axis=0)
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = boxes + sides * rng.uniform(-0.25, 0.25, boxes.shape)
        return box_ops.clip(moved.astype(np.float32), self._size, self._size)


def _largest_iou(boxes: np.ndarray, objects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest IoU of each box with an object, and the number of the object."""
    if not len(objects) or not len(boxes):
        return np.zeros(len(boxes), np.float32), np.zeros(len(boxes), np.int64)
    overlaps = box_ops.iou(boxes, objects)
    return overlaps.max(axis=1), overlaps.argmax(axis=1)


def train_locator(
    model: Model, dataset: Dataset, pictures: Pictures, regions: Regions, settings: LocatorSettings, device: str
) -> nn.ModuleDict:
    """Train the MultiBox network and the screen of a model, which are changed.

    Args:
        model: knows the classes of the data set.
        dataset: the training pictures.
        pictures: their pixels.
        regions: their regions.
        settings: the recipe.
        device: "cpu" or "cuda".

    Returns:
        "multibox" and "screen" with the averaged weights.
    """
    multibox, screen = model.multibox, model.screen
    assert multibox is not None
    assert screen is not None
    columns = {category.id: column for column, category in enumerate(model.categories, 1)}
    size = multibox.sizes[0]
    both = nn.ModuleDict({"multibox": multibox, "screen": screen}).to(device, memory_format=torch.channels_last)
    blocks = multibox.trunk.trunk
    names = [name for name, _ in blocks.named_children()]
    blocks[: names.index("inception_3a")].requires_grad_(False)
    average = moving_average(both, settings.average_decay).to(device).eval()
    average.n_averaged.fill_(1)
    trunk = [parameter for parameter in blocks.parameters() if parameter.requires_grad]
    of_trunk = {id(parameter) for parameter in multibox.trunk.parameters()}
    heads = [parameter for parameter in multibox.parameters() if id(parameter) not in of_trunk]
    groups: list[dict[str, Any]] = [
        {"params": trunk, "factor": settings.trunk_factor},
        {"params": heads, "factor": 1.0},
        {"params": list(screen.parameters()), "factor": settings.screen_factor, "weight_decay": 1e-2},
    ]
    optimiser = torch.optim.AdamW(groups, settings.learning_rate, weight_decay=1e-4)
    batches = _Batches(dataset, pictures.sizes, regions, columns, multibox.priors(size), size, settings)
    loader = DataLoader(batches, batch_size=None, num_workers=os.cpu_count() or 1, prefetch_factor=4)
    both.train()
    mixed = mixed_precision(device)
    started, sums = time.perf_counter(), torch.zeros(5, device=device)
    for step, batch in enumerate(loader):
        rng = np.random.default_rng([settings.seed, 2, step])
        rows = batch["pictures"].numpy()
        views = pictures.windows(rows, batch["windows"].numpy(), batch["mirrored"].numpy(), size=size, padding=0)
        views = distort_colours(views, rng).contiguous(memory_format=torch.channels_last)
        assignment = batch["assignment"].to(device).long()
        places = batch["places"].to(device)
        offsets = torch.zeros(*assignment.shape, 4, device=device)
        offsets[places[0], places[1]] = batch["offsets"].to(device)
        with mixed:
            fine, coarse = multibox.trunk_maps(views)
            predictions = multibox.from_maps(fine, coarse)
            maps = screen.feature_map(fine, coarse)
            logits, quality = screen(maps.float(), [boxes.to(device) for boxes in batch["boxes"]])
        found, (confidence, location) = multibox_loss(predictions.float(), assignment, offsets)
        classes = nn.functional.cross_entropy(logits.float(), batch["labels"].to(device))
        fit = nn.functional.binary_cross_entropy_with_logits(quality.float(), batch["overlaps"].to(device))
        loss = found + classes + 2 * fit
        rate = settings.learning_rate * min(1.0, (step + 1) / 100) * cosine(step, settings.steps)
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * rate
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 20.0)
        optimiser.step()
        average.update_parameters(both)
        sums += torch.stack([loss.detach(), confidence, location, classes.detach(), fit.detach()])
        if (step + 1) % 100 == 0 or step + 1 == settings.steps:
            mean = (sums / ((step + 1) % 100 or 100)).tolist()
            seconds = time.perf_counter() - started
            print(f"locator {step + 1} {seconds:.1f} s", [round(one, 4) for one in mean], flush=True)
            sums.zero_()
    return cast(nn.ModuleDict, average.module)
