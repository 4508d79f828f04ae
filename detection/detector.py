"""The detector: picture -> proposals -> warped regions -> ensemble of networks -> non-maximum suppression.

"Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 8, on R-CNN's frame (Girshick et al., 2014).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import batched_nms

from ..data.categories import Category
from ..data.images import MAX_PIXELS, ImageError, read_image
from ..data.prefetch import prefetch
from ..proposals.proposals import Proposals
from ..proposals.selective_search import selective_search
from .engine import Engine
from .model_files import Model, load_model
from .warp import warp_regions

# Regions of one class that overlap a better one by more than this are taken for the same object (R-CNN's choice).
NMS_THRESHOLD = 0.3
# Batches of warped regions that may wait for the network: 2.4 MB each.
_BATCHES_AHEAD = 8


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
        error: why the file could not be read, or None.
    """

    path: Path
    image: np.ndarray | None
    detections: Detections | None
    error: ImageError | None


@dataclass(frozen=True, eq=False)
class _Batch:
    """Up to one batch of an image's regions; `last` closes the image. `item` is whatever the image came as."""

    item: FileResult
    boxes: np.ndarray
    crops: np.ndarray
    last: bool


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
        (result,) = self._run([FileResult(Path(), image, None, None)])
        assert result.detections is not None
        return result.detections

    def detect_files(self, paths: Iterable[str | Path], max_pixels: int = MAX_PIXELS) -> Iterator[FileResult]:
        """Find objects in files, one result for each, in the order given.

        Reading, proposals and warping run ahead in a thread while the networks work; memory does not grow with the
        number of files. A file that cannot be read becomes a result with an `error`, and the others go on.

        Args:
            paths: picture files.
            max_pixels: larger pictures are refused, see `read_image`.
        """

        def read() -> Iterator[FileResult]:
            for path in map(Path, paths):
                try:
                    yield FileResult(path, read_image(path, max_pixels), None, None)
                except ImageError as error:
                    yield FileResult(path, None, None, error)

        return self._run(read())

    def _run(self, items: Iterable[FileResult]) -> Iterator[FileResult]:
        boxes: list[np.ndarray] = []
        probabilities: list[np.ndarray] = []
        for batch in prefetch(self._batches(items), _BATCHES_AHEAD):
            if batch.item.image is None:
                yield batch.item
                continue
            boxes.append(batch.boxes)
            probabilities.append(np.mean([engine(batch.crops) for engine in self.engines], axis=0))
            if batch.last:
                detections = self._suppress(np.concatenate(boxes), np.concatenate(probabilities))
                yield FileResult(batch.item.path, batch.item.image, detections, None)
                boxes, probabilities = [], []

    def _batches(self, items: Iterable[FileResult]) -> Iterator[_Batch]:
        size = self.engines[0].batch_size
        for item in items:
            if item.image is None:
                yield _Batch(item, np.zeros((0, 4), np.float32), np.zeros((0, 224, 224, 3), np.uint8), True)
                continue
            proposals = self.propose(item.image).boxes
            for start in range(0, max(len(proposals), 1), size):
                some = proposals[start : start + size]
                crops = warp_regions(item.image, some, padding=self.regions.padding, mode=self.regions.warp_mode)
                yield _Batch(item, some, crops, start + size >= len(proposals))

    def _suppress(self, boxes: np.ndarray, probabilities: np.ndarray) -> Detections:
        """Per-class non-maximum suppression: boxes [N, 4], probabilities [N, 1 + classes] -> detections."""
        regions, classes = np.nonzero(probabilities[:, 1:] >= self.score_threshold)
        candidates = boxes[regions]
        scores = probabilities[regions, classes + 1]
        keep = batched_nms(
            torch.from_numpy(candidates),
            torch.from_numpy(scores),
            torch.from_numpy(classes),
            NMS_THRESHOLD,
        ).numpy()[: self.max_detections]
        return Detections(candidates[keep], scores[keep], self._ids[classes[keep]])
