"""The detector: picture -> proposals -> warped regions -> ensemble of networks -> non-maximum suppression.

"Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 8, on R-CNN's frame (Girshick et al., 2014).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torchvision.ops import batched_nms

from ..data.boxes import iou
from ..data.categories import Category
from ..data.images import MAX_PIXELS, ImageError, read_image
from ..data.prefetch import prefetch
from ..proposals.files import ProposalFile, ProposalFileError
from ..proposals.proposals import Proposals
from ..proposals.selective_search import selective_search
from .engine import CROP_SIZE, Engine
from .model_files import Model, load_model
from .warp import warp_regions

# Regions of one class that overlap a better one by more than this are taken for the same object (R-CNN's choice).
NMS_THRESHOLD = 0.3
# On 51 pictures of val, mean AP over six classes was 0.578 with 0.5, 0.572 with 0.6, 0.561 with 0.7, 0.559 unvoted.
VOTE_IOU = 0.5
# Regions warped in one go, and how many such lots may wait for the network: 19 MB each. Warping keeps reduced copies of
# a huge picture for as long as one call, so lots are larger than the network's batches on a CPU.
_LOT = 128
_LOTS_AHEAD = 3


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one picture, best first.

    Attributes:
        boxes: float32 [N, 4], (x1, y1, x2, y2) in pixels of the upright full-size picture, see `data.boxes`.
        scores: float32 [N], probabilities.
        labels: int64 [N], `Category.id` (DET ids with the shipped model).
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Those that score at least `score`."""
        keep = self.scores >= score
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])


@dataclass(frozen=True, eq=False)
class FileResult:
    """What became of one picture file.

    Attributes:
        path: the file.
        image: uint8 RGB [H, W, 3], or None where it could not be read.
        detections: what was found, or None.
        error: why there are no detections, or None.
    """

    path: Path
    image: np.ndarray | None
    detections: Detections | None
    error: ImageError | None


# A picture, and the boxes to look at where they are given.
_Work: TypeAlias = tuple[FileResult, np.ndarray | None]


@dataclass(frozen=True, eq=False)
class _Lot:
    """Some of a picture's regions, warped: boxes [n, 4], crops uint8 [n, 224, 224, 3]; `last` closes the picture."""

    item: FileResult
    boxes: np.ndarray
    crops: np.ndarray
    last: bool


def select_detections(
    boxes: np.ndarray,
    probabilities: np.ndarray,
    ids: np.ndarray,
    *,
    score_threshold: float,
    max_detections: int,
    nms_threshold: float = NMS_THRESHOLD,
) -> Detections:
    """Scores of regions to detections, by greedy non-maximum suppression in each class (R-CNN, section 2.2).

    A region is rejected if it overlaps a selected one of the same class that scores higher with an IoU above
    `nms_threshold`. A region can be detected as several classes.

    Args:
        boxes: float32 [N, 4].
        probabilities: float32 [N, 1 + classes], column 0 the background.
        ids: int64 [classes], the label of each class.
        score_threshold: least score of a detection.
        max_detections: best detections kept, over all classes.

    Returns:
        Detections, best first; of equal scores the one earlier in `boxes` first.
    """
    regions, classes = np.nonzero(probabilities[:, 1:] >= score_threshold)
    scores = probabilities[regions, classes + 1]
    keep = batched_nms(
        torch.from_numpy(boxes[regions]), torch.from_numpy(scores), torch.from_numpy(classes), nms_threshold
    ).numpy()[:max_detections]
    return Detections(boxes[regions[keep]], scores[keep], ids[classes[keep]])


def vote_boxes(found: Detections, boxes: np.ndarray, probabilities: np.ndarray, ids: np.ndarray) -> Detections:
    """Each detection's box, replaced by the mean of the regions that overlap it by `VOTE_IOU` or more, itself among
    them, weighted by their probability of its class (Gidaris & Komodakis, ICCV 2015, section 4, "box voting").

    Not in the paper; regions around an object agree on it better than the best of them knows its border.

    Args:
        found: detections from `select_detections`.
        boxes, probabilities, ids: what they were selected from.

    Returns:
        The same detections with other boxes.
    """
    voted = found.boxes.copy()
    for label in np.unique(found.labels):
        chosen = np.flatnonzero(found.labels == label)
        weights = probabilities[:, 1 + np.flatnonzero(ids == label)[0]].astype(np.float64)  # no mean leaves the picture
        votes = (iou(found.boxes[chosen], boxes) >= VOTE_IOU) * weights
        voted[chosen] = votes @ boxes / votes.sum(axis=1, keepdims=True)
    return replace(found, boxes=voted)


class Detector:
    """Finds objects in pictures.

        detector = Detector.load("default")
        detections = detector(image)  # uint8 RGB [H, W, 3]

    Args:
        model: networks, class list and region settings.
        device: "auto", "cpu", "cuda" or "cuda:N".
        score_threshold: detections below it are dropped; in 0..1. The default keeps what an evaluation wants to
            rank; for showing, 0.5 is a good start.
        max_detections: best detections kept of one picture.
        seed: of the proposals' ranking.

    Attributes:
        categories: the classes it knows.
        engines: the compiled networks, one for each member of the ensemble.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        score_threshold: float = 0.01,
        max_detections: int = 100,
        seed: int = 0,
    ):
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold is {score_threshold}, expected 0 to 1")
        if max_detections < 1:
            raise ValueError(f"max_detections is {max_detections}, expected at least 1")
        self.categories: tuple[Category, ...] = model.categories
        self.regions = model.regions
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.seed = seed
        self.engines = [Engine(member, device=device) for member in model.members]
        self._ids = np.array([category.id for category in model.categories], np.int64)

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path = "default",
        *,
        device: str = "auto",
        score_threshold: float = 0.01,
        max_detections: int = 100,
        seed: int = 0,
    ) -> "Detector":
        """A detector from a model folder, or the shipped model by its name, "default".

        Raises:
            ModelError: no such model, or it is damaged. EngineError: `device` is not there.
        """
        return cls(
            load_model(name_or_folder),
            device=device,
            score_threshold=score_threshold,
            max_detections=max_detections,
            seed=seed,
        )

    def propose(self, image: np.ndarray) -> Proposals:
        """The regions that the networks look at: image uint8 RGB [H, W, 3] -> proposals, best first."""
        return selective_search(
            image,
            superpixel_scale=self.regions.superpixel_scale,
            min_side=self.regions.min_side,
            seed=self.seed,
        )

    def __call__(self, image: np.ndarray) -> Detections:
        """Find objects: image uint8 RGB [H, W, 3] -> detections, best first."""
        (result,) = self._run([(FileResult(Path(), image, None, None), None)])
        assert result.detections is not None
        return result.detections

    def detect_files(
        self,
        paths: Iterable[str | Path],
        max_pixels: int = MAX_PIXELS,
        proposals: ProposalFile | None = None,
    ) -> Iterator[FileResult]:
        """Find objects in files, one result for each, in the order given.

        Reading, proposals and warping run ahead in a thread while the networks work; memory does not grow with the
        number of files. A file that cannot be read becomes a result with an `error`, and the others go on.

        Args:
            paths: picture files.
            max_pixels: larger pictures are refused, see `read_image`.
            proposals: boxes to use in place of `propose`; a picture that the file lacks, or has in another size,
                becomes a result with an `error`.
        """

        def read() -> Iterator[_Work]:
            for path in map(Path, paths):
                try:
                    image = read_image(path, max_pixels)
                    boxes = None
                    if proposals is not None:
                        found = proposals.find(path, (image.shape[1], image.shape[0]))
                        if found is None:
                            raise ImageError(path, "the proposals file has nothing for this picture")
                        boxes = found.boxes
                    yield FileResult(path, image, None, None), boxes
                except ImageError as error:
                    yield FileResult(path, None, None, error), None
                except ProposalFileError as error:
                    yield FileResult(path, None, None, ImageError(path, str(error))), None

        return self._run(read())

    def _run(self, items: Iterable[_Work]) -> Iterator[FileResult]:
        boxes: list[np.ndarray] = []
        probabilities: list[np.ndarray] = []
        for lot in prefetch(self._lots(items), _LOTS_AHEAD):
            if lot.item.image is None:
                yield lot.item
                continue
            boxes.append(lot.boxes)
            probabilities.append(np.mean([engine(lot.crops) for engine in self.engines], axis=0))
            if lot.last:
                detections = self._detections(np.concatenate(boxes), np.concatenate(probabilities))
                yield replace(lot.item, detections=detections)
                boxes, probabilities = [], []

    def _detections(self, boxes: np.ndarray, probabilities: np.ndarray) -> Detections:
        found = select_detections(
            boxes,
            probabilities,
            self._ids,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )
        return vote_boxes(found, boxes, probabilities, self._ids)

    def _lots(self, items: Iterable[_Work]) -> Iterator[_Lot]:
        nothing = np.zeros((0, 4), np.float32), np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        for item, given in items:
            if item.image is None:
                yield _Lot(item, *nothing, last=True)
                continue
            proposals = self.propose(item.image).boxes if given is None else given
            if not len(proposals):
                yield _Lot(item, *nothing, last=True)
            for start in range(0, len(proposals), _LOT):
                boxes = proposals[start : start + _LOT]
                crops = warp_regions(item.image, boxes, padding=self.regions.padding, mode=self.regions.warp_mode)
                yield _Lot(item, boxes, crops, last=start + _LOT >= len(proposals))
