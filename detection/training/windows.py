"""Which windows a region classifier is trained on, and in which order (R-CNN, Girshick et al. 2014, section 2.3)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from ...data import boxes as box_ops
from ...data.dataset import Dataset, Sample
from ...proposals.proposals import Proposals
from .errors import TrainingError

POSITIVE_IOU = 0.5
# Backgrounds that touch an object teach the most ("[0.1, 0.5)", Fast R-CNN, Girshick 2015, section 2.3): half of the
# backgrounds kept of a picture are such, if it has that many.
NEAR_IOU = 0.1
# What is kept of one picture bounds memory on large data sets, and keeps large objects, which hundreds of
# proposals hit, from outvoting small ones.
POSITIVES_PER_OBJECT = 16
BACKGROUNDS_PER_IMAGE = 64

IGNORED = -1


@dataclass(frozen=True)
class Windows:
    """Windows over the pictures of a data set.

    Attributes:
        images: int32 [N], index of the picture in the data set.
        boxes: float32 [N, 4].
        labels: int64 [N], category id, 0 for background.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: np.ndarray) -> "Windows":
        return Windows(self.images[index], self.boxes[index], self.labels[index])


def label_windows(boxes: np.ndarray, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each window shows.

    A window belongs to the object that it overlaps most. It is positive for that object's class at IoU >= 0.5 and
    background below; windows positive for an object marked difficult are ignored.

    Args:
        boxes: float32 [N, 4].
        sample: the picture's objects.

    Returns:
        labels: int64 [N], category id, 0 for background, -1 for ignored;
        objects: int64 [N], index of the object overlapped most (0 where there is none);
        overlaps: float32 [N], IoU with it.
    """
    if not len(sample.boxes) or not len(boxes):
        return np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.float32)
    iou = box_ops.iou(boxes, sample.boxes)
    objects = iou.argmax(axis=1)
    overlaps = iou[np.arange(len(boxes)), objects]
    labels = np.where(overlaps >= POSITIVE_IOU, sample.labels[objects], 0)
    labels[(labels > 0) & sample.difficult[objects]] = IGNORED
    return labels, objects, overlaps


def windows_of_image(proposals: Proposals, sample: Sample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The windows kept of one picture, from its proposals and its objects' own boxes: boxes [n, 4], labels [n]."""
    boxes = np.concatenate([sample.boxes, proposals.boxes])
    labels, objects, overlaps = label_windows(boxes, sample)
    kept = []
    for number in range(len(sample.boxes)):
        hits = np.flatnonzero((labels > 0) & (objects == number))
        kept.append(_some(hits, POSITIVES_PER_OBJECT, rng))
    near = _some(np.flatnonzero((labels == 0) & (overlaps >= NEAR_IOU)), BACKGROUNDS_PER_IMAGE // 2, rng)
    far = _some(np.flatnonzero((labels == 0) & (overlaps < NEAR_IOU)), BACKGROUNDS_PER_IMAGE - len(near), rng)
    index = np.concatenate([*kept, near, far]).astype(np.int64)
    return boxes[index], labels[index]


def collect_windows(
    dataset: Dataset,
    proposals: Callable[[Sample], Proposals],
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda indices: indices,
) -> Windows:
    """The windows of all pictures, in the order of the data set.

    Args:
        proposals: gives the proposals of a sample, such as a `ProposalCache` on its path.
        seed: what is kept of a picture depends on it and on the picture's place in the data set alone.
        progress: wraps the iteration over picture indices, to show it.
    """
    images, boxes, labels = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    for index in progress(range(len(dataset))):
        sample = dataset[index]
        some_boxes, some_labels = windows_of_image(proposals(sample), sample, np.random.default_rng([seed, index]))
        images.append(np.full(len(some_boxes), index, np.int32))
        boxes.append(some_boxes)
        labels.append(some_labels)
    return Windows(np.concatenate([np.zeros(0, np.int32), *images]), np.concatenate(boxes), np.concatenate(labels))


def draw_pool(windows: Windows, size: int, seed: int) -> Windows:
    """At most `size` of the windows, a third of them positive, in the order that they had.

    Used where each window's features are stored: a third, not the quarter of a mini-batch, because backgrounds
    teach less each and can be met less often.
    """
    rng = np.random.default_rng([seed, 1])
    positives = _some(np.flatnonzero(windows.labels > 0), size // 3, rng)
    backgrounds = _some(np.flatnonzero(windows.labels == 0), size - len(positives), rng)
    return windows[np.sort(np.concatenate([positives, backgrounds]))]


class BatchSampler:
    """Mini-batches of positives and backgrounds, as a function of the step alone.

    Positives and backgrounds are each dealt out from a shuffled deck that is shuffled anew when it is used up, so all
    are met equally often. A training that resumes at step s meets the batches that it would have met.

    Args:
        labels: int64 [N], as in `Windows`.
        positives, backgrounds: of each mini-batch (the paper's entry, as R-CNN: 32 and 96).
        seed: of the shuffles.

    Raises:
        TrainingError: there are no positive windows, or no backgrounds.
    """

    def __init__(self, labels: np.ndarray, seed: int, positives: int = 32, backgrounds: int = 96):
        self._decks = (np.flatnonzero(labels > 0), np.flatnonzero(labels == 0))
        self._counts = (positives, backgrounds)
        self._seed = seed
        for deck, kind in zip(self._decks, ("positive", "background"), strict=True):
            if not len(deck):
                raise TrainingError(f"there are no {kind} windows to train on")
        self._shuffled: dict[int, tuple[int, np.ndarray]] = {}

    def __call__(self, step: int) -> np.ndarray:
        """Indices of the windows of mini-batch `step` (from 0): int64 [positives + backgrounds]."""
        return np.concatenate([self._deal(kind, step) for kind in (0, 1)])

    def _deal(self, kind: int, step: int) -> np.ndarray:
        count, size = self._counts[kind], len(self._decks[kind])
        places = range(step * count, (step + 1) * count)
        return np.array([self._shuffle(kind, place // size)[place % size] for place in places], np.int64)

    def _shuffle(self, kind: int, turn: int) -> np.ndarray:
        known = self._shuffled.get(kind)
        if known is None or known[0] != turn:
            order = np.random.default_rng([self._seed, 2, kind, turn]).permutation(self._decks[kind])
            known = self._shuffled[kind] = (turn, order)
        return known[1]


def _some(index: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return index if len(index) <= count else np.sort(rng.choice(index, count, replace=False))
