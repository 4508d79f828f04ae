"""The windows that a region classifier is trained on, and their batches (R-CNN, Girshick et al. 2014, section 2.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...data import boxes as box_ops
from ...data.dataset import Dataset, Sample
from ...proposals.proposals import Proposals
from .errors import TrainingError
from .progress import Report, no_report

POSITIVE_IOU = 0.5
# A background window with at least this IoU with an object teaches the most ("[0.1, 0.5)", Fast R-CNN, Girshick 2015,
# section 2.3). Half of the backgrounds of a picture are such windows, if it has enough of them.
NEAR_IOU = 0.1
# Limits for one picture. They bound the memory for large data sets. They also keep large objects, which hundreds of
# proposals overlap, from outnumbering small objects.
POSITIVES_PER_OBJECT = 16
BACKGROUNDS_PER_IMAGE = 64
# Largest share of backgrounds that the screen kept. The others teach a detector whose screen is switched off.
SCREENED_SHARE = 0.75
# Share of the positive windows from which on a class is not rare.
FREQUENT = 0.01

IGNORED = -1


@dataclass(frozen=True)
class Windows:
    """Windows over the pictures of a data set.

    Attributes:
        images: int32 [N], index of the picture in the data set.
        boxes: float32 [N, 4], in pixels of the picture.
        labels: int64 [N], category id or index of a network output; 0 for background.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: np.ndarray) -> "Windows":
        return Windows(self.images[index], self.boxes[index], self.labels[index])


def label_windows(boxes: np.ndarray, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label windows of a picture by the object that each of them overlaps most.

    A window with IoU >= 0.5 gets the class of the object, or is ignored if the object is marked difficult. Other
    windows are background.

    Args:
        boxes: float32 [N, 4].
        sample: the picture's objects.

    Returns:
        labels: int64 [N], category id, 0 for background, -1 for ignored;
        objects: int64 [N], index of the object that the window overlaps most, 0 if the picture has no objects;
        overlaps: float32 [N], IoU with that object, 0 if the picture has no objects.
    """
    if not len(sample.boxes) or not len(boxes):
        return np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.int64), np.zeros(len(boxes), np.float32)
    iou = box_ops.iou(boxes, sample.boxes)
    objects = iou.argmax(axis=1)
    overlaps = iou[np.arange(len(boxes)), objects]
    labels = np.where(overlaps >= POSITIVE_IOU, sample.labels[objects], 0)
    labels[(labels > 0) & sample.difficult[objects]] = IGNORED
    return labels, objects, overlaps


def windows_of_image(
    proposals: Proposals, sample: Sample, rng: np.random.Generator, screened: Proposals | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Choose training windows of a picture from its proposals and the boxes of its objects.

    Args:
        proposals: all regions of the picture.
        sample: the picture's objects.
        rng: of the random choice.
        screened: the regions that the screen keeps, so those that the classifier will see; most backgrounds are taken
            from them. None without a screen.

    Returns:
        boxes: float32 [n, 4];
        labels: int64 [n], category id, 0 for background.
    """
    boxes = np.concatenate([sample.boxes, proposals.boxes])
    labels, objects, overlaps = label_windows(boxes, sample)
    kept = []
    for number in range(len(sample.boxes)):
        hits = np.flatnonzero((labels > 0) & (objects == number))
        kept.append(_at_most(hits, POSITIVES_PER_OBJECT, rng))
    hard = np.zeros((0, 4), np.float32)
    if screened is not None:
        backgrounds = screened.boxes[label_windows(screened.boxes, sample)[0] == 0]
        hard = backgrounds[_at_most(np.arange(len(backgrounds)), int(SCREENED_SHARE * BACKGROUNDS_PER_IMAGE), rng)]
    others = BACKGROUNDS_PER_IMAGE - len(hard)
    near = _at_most(np.flatnonzero((labels == 0) & (overlaps >= NEAR_IOU)), others // 2, rng)
    far = _at_most(np.flatnonzero((labels == 0) & (overlaps < NEAR_IOU)), others - len(near), rng)
    index = np.concatenate([*kept, near, far]).astype(np.int64)
    return np.concatenate([boxes[index], hard]), np.concatenate([labels[index], np.zeros(len(hard), np.int64)])


def collect_windows(
    dataset: Dataset,
    proposals: Callable[[Sample], Proposals],
    seed: int,
    report: Report = no_report,
    screened: Callable[[Sample], Proposals] | None = None,
) -> Windows:
    """Choose the training windows of all pictures, in the order of the data set.

    Args:
        dataset: the pictures.
        proposals: returns the proposals of a picture.
        seed: of the random choice. The choice for a picture depends only on the seed and on its place in the data set.
        report: called with the stage "proposals" and the number of pictures done.
        screened: returns the proposals of a picture that the screen keeps; None without a screen.
    """
    images, boxes, labels = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    for index, sample in enumerate(dataset):
        rng = np.random.default_rng([seed, index])
        kept = None if screened is None else screened(sample)
        kept_boxes, kept_labels = windows_of_image(proposals(sample), sample, rng, kept)
        images.append(np.full(len(kept_boxes), index, np.int32))
        boxes.append(kept_boxes)
        labels.append(kept_labels)
        report("proposals", index + 1, len(dataset), {})
    return Windows(np.concatenate([np.zeros(0, np.int32), *images]), np.concatenate(boxes), np.concatenate(labels))


def draw_pool(windows: Windows, size: int, seed: int) -> Windows:
    """Draw at most `size` of the windows, a third of them positive, and keep their order.

    The pool is drawn when the features of each window are stored. A batch has only a quarter of positives, but a
    background window teaches less than a positive window, so the pool can do with fewer backgrounds. Windows of rare
    classes are drawn more often, see `repeat_factors`.
    """
    rng = np.random.default_rng([seed, 1])
    positives = np.flatnonzero(windows.labels > 0)
    if len(positives) > size // 3:
        # The largest of u^(1 / weight) are a weighted draw without replacement (Efraimidis & Spirakis, 2006).
        keys = rng.random(len(positives)) ** (1 / repeat_factors(windows.labels[positives]))
        positives = positives[np.argsort(-keys, kind="stable")[: size // 3]]
    backgrounds = _at_most(np.flatnonzero(windows.labels == 0), size - len(positives), rng)
    return windows[np.sort(np.concatenate([positives, backgrounds]))]


def repeat_factors(labels: np.ndarray) -> np.ndarray:
    """How much more often a window is drawn because its class is rare, at least 1: int64 [N] -> float64 [N].

    The factor is sqrt(`FREQUENT` / share of the class) for classes with a smaller share of the windows than `FREQUENT`
    (Gupta et al., "LVIS", CVPR 2019, section 5.4).
    """
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.maximum(1, np.sqrt(FREQUENT * len(labels) / counts))[places]


class BatchSampler:
    """Batches of positive and background windows, as a function of the step.

    Positives and backgrounds are each dealt from a shuffled deck, which is shuffled again when it is used up. All
    positives therefore occur equally often, and so do all backgrounds.

    Args:
        labels: int64 [N], as in `Windows`.
        seed: of the shuffles.
        positives, backgrounds: windows of each kind in a batch (R-CNN and the paper's entry: 32 and 96).

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
        """Indices of the windows in the batch of `step`, counted from 0: int64 [positives + backgrounds]."""
        return np.concatenate([self._deal(kind, step) for kind in (0, 1)])

    def _deal(self, kind: int, step: int) -> np.ndarray:
        count, size = self._counts[kind], len(self._decks[kind])
        places = range(step * count, (step + 1) * count)
        return np.array([self._shuffled_deck(kind, place // size)[place % size] for place in places], np.int64)

    def _shuffled_deck(self, kind: int, turn: int) -> np.ndarray:
        known = self._shuffled.get(kind)
        if known is None or known[0] != turn:
            order = np.random.default_rng([self._seed, 2, kind, turn]).permutation(self._decks[kind])
            known = self._shuffled[kind] = (turn, order)
        return known[1]


def _at_most(index: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` random elements of `index` in their order, or all if there are fewer."""
    return index if len(index) <= count else np.sort(rng.choice(index, count, replace=False))
