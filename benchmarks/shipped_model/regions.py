"""The regions of all training pictures, from which the screen and the networks learn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch

from inception_rcnn.data.boxes import iou
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.engines.multibox import MultiBoxEngine
from inception_rcnn.detection.model_files import load_model
from inception_rcnn.detection.training.screen_stage import mild_screen
from inception_rcnn.detection.training.windows import NEAR_IOU, label_windows, windows_of_image
from inception_rcnn.proposals.combine import combine
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.selective_search import selective_search

# Largest numbers of a picture's regions that the screen learns from: regions that overlap an object, and others.
_OVERLAPPING, _OTHERS = 200, 100


@dataclass(frozen=True, eq=False)
class Regions:
    """Boxes in the N pictures of a data set.

    Attributes:
        candidates: float32 [C, 4], the regions that the screen learns from.
        candidates_of: int64 [N + 1], the first row of each picture in `candidates`, and C.
        images: int32 [W], the picture of each window that the networks learn from.
        boxes: float32 [W, 4], the windows.
        labels: int64 [W], their category ids, 0 for background.
        overlaps: float32 [W], the IoU of each window with the object that it overlaps most.
    """

    candidates: np.ndarray
    candidates_of: np.ndarray
    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray

    def save(self, file: Path) -> None:
        """Write the regions to an .npz file."""
        np.savez_compressed(file, **vars(self))

    @classmethod
    def load(cls, file: Path) -> Regions:
        """Read the file that `save` wrote."""
        with np.load(file) as arrays:
            return cls(**{name: arrays[name] for name in arrays.files})


def collect_regions(dataset: Dataset, init: str, seed: int) -> Regions:
    """Choose the regions of all pictures, in as many processes as the machine has processors.

    Args:
        dataset: the training pictures.
        init: a model with a MultiBox network and a screen. Both propose regions; the screen finds hard backgrounds.
        seed: of the random choices.
    """
    work = [(number, sample, seed) for number, sample in enumerate(dataset)]
    with get_context("spawn").Pool(os.cpu_count(), _Proposer.start, (init,)) as pool:
        of_pictures = pool.map(_Proposer.regions, work, chunksize=16)
    candidates, images, boxes, labels, overlaps = zip(*of_pictures, strict=True)
    return Regions(
        np.concatenate(candidates),
        np.cumsum([0, *map(len, candidates)]),
        np.concatenate(images),
        np.concatenate(boxes),
        np.concatenate(labels),
        np.concatenate(overlaps),
    )


class _Proposer:
    """Proposes the regions of pictures in a process of its own.

    Args:
        init: see `collect_regions`.
    """

    _of_process: _Proposer

    def __init__(self, init: str):
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        model = load_model(init)
        assert model.multibox is not None
        assert model.screen is not None
        self._settings, self._screen = model.regions, mild_screen(model.screen)
        self._engine = MultiBoxEngine(model.multibox, self._screen, device="cpu", threads=1)

    @classmethod
    def start(cls, init: str) -> None:
        """Load the networks of this process."""
        cls._of_process = cls(init)

    @classmethod
    def regions(cls, work: tuple[int, Sample, int]) -> tuple[np.ndarray, ...]:
        """The candidates and the windows of a picture: the attributes of `Regions` without `candidates_of`."""
        number, sample, seed = work
        proposals, kept = cls._of_process.propose(read_image(sample.path))
        candidates = _candidates(proposals, sample, np.random.default_rng([seed, number, 1]))
        boxes, labels = windows_of_image(proposals, sample, np.random.default_rng([seed, number]), kept)
        return candidates, np.full(len(boxes), number, np.int32), boxes, labels, label_windows(boxes, sample)[2]

    def propose(self, image: np.ndarray) -> tuple[Proposals, Proposals]:
        """All proposals of a picture, and those that the screen keeps."""
        settings = self._settings
        selective = selective_search(
            image,
            superpixel_scale=settings.superpixel_scale,
            min_side=settings.min_side,
            connectivity=settings.connectivity,
        )
        look = self._engine.look(image)
        assert look.feature_map is not None
        proposals = combine(selective, look.proposals)
        return proposals, self._screen.keep(proposals, look.feature_map, image.shape[1], image.shape[0])


def _candidates(proposals: Proposals, sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture's proposals, most of which overlap an object: float32 [n, 4]."""
    boxes = proposals.boxes
    overlap = iou(boxes, sample.boxes).max(axis=1, initial=0) if len(sample.boxes) else np.zeros(len(boxes))
    groups = ((overlap >= NEAR_IOU, _OVERLAPPING), (overlap < NEAR_IOU, _OTHERS))
    return boxes[np.concatenate([rng.permutation(np.flatnonzero(group))[:most] for group, most in groups])]
