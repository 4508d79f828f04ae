"""The detector: picture -> proposals -> warped regions -> ensemble of networks -> non-maximum suppression.

"Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 8, on R-CNN's frame (Girshick et al., 2014).
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..data.categories import Category
from ..data.images import MAX_PIXELS, ImageError, read_image
from ..proposals.combine import combine
from ..proposals.files import ProposalFile, ProposalFileError
from ..proposals.proposals import Proposals
from ..proposals.selective_search import selective_search
from ..runtime.prefetch import map_ahead, prefetch
from ..runtime.remote import is_url
from .engines.choice import Kind
from .engines.engine import Engine
from .engines.multibox import MultiBoxEngine
from .model_files import Model, load_model
from .pipeline import Crops, batch_regions, pooled_features
from .regression import LEAST_PROBABILITY
from .suppression import Detections, select_detections, vote_boxes
from .warping.on_device import warp_on_device
from .warping.warp import warp_regions

T = TypeVar("T")

_NO_BOXES = np.zeros((0, 4), np.float32)

# Regions of a batch, and how many batches may wait for the network: 19 MB each. Warping keeps reduced copies of a huge
# picture for as long as one call, so these batches are larger than the network's own on a CPU.
_BATCH_REGIONS = 128
_BATCHES_AHEAD = 3
# Pictures read ahead, with their proposals, and finished behind.
_PICTURES_AHEAD = 4


@dataclass(frozen=True, eq=False)
class FileResult:
    """What became of one picture file.

    Attributes:
        path: the file, or its URL.
        image: uint8 RGB [H, W, 3], or None where it could not be read.
        detections: what was found, or None.
        error: why there are no detections, or None.
    """

    path: Path | str
    image: np.ndarray | None
    detections: Detections | None
    error: ImageError | None


@dataclass(eq=False)
class _Picture:
    """A picture on its way.

    Attributes:
        item: the result to be.
        boxes: float32 [N, 4], distinct.
        features: float32 [R, D], features of the first member for a regressor, of regions that may be objects.
        regressed: int64 [R], which regions these are.
        probabilities: float32 [N, 1 + classes], as far as the networks have spoken.
        uploaded: the pixels, uint8 [H, W, 3], where networks on a GPU have seen it.
    """

    item: FileResult
    boxes: np.ndarray
    features: np.ndarray | None = None
    regressed: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    uploaded: torch.Tensor | None = None


class Detector:
    """Finds objects in pictures.

        detector = Detector.load("default")
        detections = detector(image)  # uint8 RGB [H, W, 3]

    Args:
        model: networks, class list and region settings.
        device: "auto", "cpu", "cuda" or "cuda:N". On a GPU regions are cropped and resized there too, from pictures
            uploaded once; scores differ from a CPU's as the tolerances of `on_device` and `engine` allow.
        engine: what runs the networks, see `choice`; "auto" is the fastest.
        score_threshold: detections below it are dropped; in 0..1. The default keeps what an evaluation wants to
            rank; for showing, 0.5 is a good start.
        max_detections: best detections kept of one picture.
        seed: of the proposals' ranking.
        members: how many networks of the ensemble to use, the first ones; None for all.
        cascade: regions that the first member is sure are background are not shown to the others, where the model
            says from which probability on it is (`Model.cascade`). Off, every member looks at every region.
        box_regression: move boxes as the model's box regression says, where it has one.
        threads: CPU threads of the networks, and readers that feed a GPU; None for all cores.

    Attributes:
        categories: the classes it knows.
        device: where they run: "cpu", "cuda" or "cuda:N".
        engines: the compiled networks, one for each member of the ensemble.
        multibox: the compiled MultiBox network, or None where the model has none.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        engine: Kind = "auto",
        score_threshold: float = 0.01,
        max_detections: int = 100,
        seed: int = 0,
        members: int | None = None,
        cascade: bool = True,
        box_regression: bool = True,
        threads: int | None = None,
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
        self._regressor = model.regressor if box_regression else None
        self.engines = [
            Engine(
                member,
                kind=engine,
                device=device,
                threads=threads,
                moments=number == 0 and self._regressor is not None,
            )
            for number, member in enumerate(model.first_members(members))
        ]
        self.device = self.engines[0].device
        self.multibox = (
            MultiBoxEngine(model.multibox, device=self.device, threads=threads) if model.multibox is not None else None
        )
        self._least_object = (model.cascade or 0.0) if cascade else 0.0
        # One reader keeps networks on a CPU busy, which want the cores themselves; a GPU needs all that there are.
        self._readers = 1 if self.device == "cpu" else threads or os.cpu_count() or 1
        self._ids = np.array([category.id for category in model.categories], np.int64)

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path = "default",
        *,
        device: str = "auto",
        engine: Kind = "auto",
        score_threshold: float = 0.01,
        max_detections: int = 100,
        seed: int = 0,
        members: int | None = None,
        cascade: bool = True,
        box_regression: bool = True,
    ) -> "Detector":
        """A detector from a model folder, or the shipped model by its name, "default".

        Raises:
            ModelError: no such model, or it is damaged.
            EngineError: `device` is not there, or `engine` does not run on it.
        """
        return cls(
            load_model(name_or_folder),
            device=device,
            engine=engine,
            score_threshold=score_threshold,
            max_detections=max_detections,
            seed=seed,
            members=members,
            cascade=cascade,
            box_regression=box_regression,
        )

    def propose(self, image: np.ndarray, threads: int | None = None) -> Proposals:
        """The regions that the networks look at: image uint8 RGB [H, W, 3] -> proposals, best first.

        Selective search's and, where the model has a MultiBox network, MultiBox's; `Proposals.source` tells which.
        They are the same for any number of threads; None uses all cores.
        """
        selective = selective_search(
            image,
            superpixel_scale=self.regions.superpixel_scale,
            min_side=self.regions.min_side,
            connectivity=self.regions.connectivity,
            seed=self.seed,
            threads=threads,
        )
        return selective if self.multibox is None else combine(selective, self.multibox(image))

    def __call__(self, image: np.ndarray) -> Detections:
        """Find objects: image uint8 RGB [H, W, 3] -> detections, best first."""
        item = FileResult(Path(), image, None, None)
        (result,) = self._run([_Picture(item, self.propose(image).boxes)], _same)
        assert result.detections is not None
        return result.detections

    def detect_files(
        self,
        paths: Iterable[str | Path],
        max_pixels: int = MAX_PIXELS,
        proposals: ProposalFile | None = None,
    ) -> Generator[FileResult, None, None]:
        """Find objects in files, one result for each, in the order given.

        Reading, proposals and warping run ahead in threads while the networks work on batches that regions of several
        pictures share; memory does not grow with the number of files. A file that cannot be read becomes a result with
        an `error`, and the others go on.

        Args:
            paths: picture files, or URLs that fsspec reads.
            max_pixels: larger pictures are refused, see `read_image`.
            proposals: boxes to use in place of `propose`; a picture that the file lacks, or has in another size,
                becomes a result with an `error`.
        """

        def read(path: str | Path) -> _Picture:
            path = path if is_url(path) else Path(path)
            try:
                image = read_image(path, max_pixels)
                if proposals is None:
                    boxes = self.propose(image, threads=1).boxes
                else:
                    found = proposals.find(path, (image.shape[1], image.shape[0]))
                    if found is None:
                        raise ImageError(path, "the proposals file has nothing for this picture")
                    boxes = found.boxes
                return _Picture(FileResult(path, image, None, None), boxes)
            except ImageError as error:
                return _Picture(FileResult(path, None, None, error), _NO_BOXES)
            except ProposalFileError as error:
                return _Picture(FileResult(path, None, None, ImageError(path, str(error))), _NO_BOXES)

        return self._run(paths, read)

    def _run(self, items: Iterable[T], read: Callable[[T], _Picture]) -> Generator[FileResult, None, None]:
        """Reading and proposals, warping, the networks and what follows them: each in threads of its own."""
        size = -(-_BATCH_REGIONS // self.engines[0].batch_size) * self.engines[0].batch_size
        pictures = map_ahead(lambda item: _distinct(read(item)), items, self._readers, _PICTURES_AHEAD)
        batches = prefetch(
            batch_regions(((one, one.boxes) for one in pictures), size, self._warp, self.device), _BATCHES_AHEAD
        )
        scored = self._scored(pooled_features(self.engines[:1], batches))
        if len(self.engines) > 1:
            scored = self._averaged(scored, size)
        return map_ahead(self._finish, scored, 1, _PICTURES_AHEAD)

    def _warp(self, picture: _Picture, boxes: np.ndarray, out: Crops) -> None:
        image, padding, mode = picture.item.image, self.regions.padding, self.regions.warp_mode
        assert image is not None
        if isinstance(out, np.ndarray):
            warp_regions(image, boxes, padding=padding, mode=mode, out=out)
            return
        if picture.uploaded is None:
            picture.uploaded = torch.from_numpy(image).to(out.device)
        out.copy_(warp_on_device(picture.uploaded, boxes, padding=padding, mode=mode))

    def _scored(self, pictures: Iterable[tuple[_Picture, list[np.ndarray]]]) -> Iterator[_Picture]:
        """What the first member says of all regions."""
        for picture, (features,) in pictures:
            picture.probabilities = self.engines[0].classify(features)
            # Features are large, and pictures wait for others: regions that are hardly an object to the first member
            # are not moved, whatever the others say of them.
            if self._regressor is not None:
                picture.regressed = np.flatnonzero(1 - picture.probabilities[:, 0] >= LEAST_PROBABILITY)
                picture.features = features[picture.regressed]
            yield picture

    def _averaged(self, pictures: Iterable[_Picture], size: int) -> Iterator[_Picture]:
        """What all members say, on average, of the regions that the first one passes on; the others are background."""

        def passed(picture: _Picture) -> np.ndarray:
            assert picture.probabilities is not None
            return 1 - picture.probabilities[:, 0] >= self._least_object

        batches = batch_regions(((one, one.boxes[passed(one)]) for one in pictures), size, self._warp, self.device)
        for picture, features in pooled_features(self.engines[1:], batches):
            assert picture.probabilities is not None
            rows = passed(picture)
            others = [engine.classify(values) for engine, values in zip(self.engines[1:], features, strict=True)]
            mean = np.mean([picture.probabilities[rows], *others], axis=0)
            picture.probabilities = np.zeros_like(picture.probabilities)
            picture.probabilities[:, 0] = 1
            picture.probabilities[rows] = mean
            yield picture

    def _finish(self, picture: _Picture) -> FileResult:
        if picture.item.image is None:
            return picture.item
        assert picture.probabilities is not None
        boxes = picture.boxes
        if self._regressor is not None:
            assert picture.features is not None
            assert picture.regressed is not None
            height, width = picture.item.image.shape[:2]
            boxes = self._regressor.regress(
                boxes, picture.probabilities, picture.features, picture.regressed, width, height
            )
        found = select_detections(
            boxes,
            picture.probabilities,
            self._ids,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )
        return replace(picture.item, detections=vote_boxes(found, boxes, picture.probabilities, self._ids))


def _same(picture: _Picture) -> _Picture:
    return picture


def _distinct(picture: _Picture) -> _Picture:
    """Without the second of two equal boxes, which some lists of proposals have.

    Boxes that are nearly equal are left: of 45,000 that selective search found, 0.06 % were within half a pixel of
    another one's crop.
    """
    _, first = np.unique(picture.boxes, axis=0, return_index=True)
    return replace(picture, boxes=picture.boxes[np.sort(first)])
