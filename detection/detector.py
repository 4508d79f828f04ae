"""The detector: picture -> proposals -> screen -> warped regions -> ensemble of networks -> non-maximum suppression.

The system of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 8, which follows R-CNN (Girshick et
al., CVPR 2014).
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from ..data.categories import Category, Subclass
from ..data.images import MAX_PIXELS, ImageError, read_image, to_rgb
from ..proposals.combine import combine
from ..proposals.files import ProposalFile, ProposalFileError
from ..proposals.multibox import MultiBox
from ..proposals.proposals import Proposals
from ..proposals.screen import Screen
from ..proposals.selective_search import selective_search
from ..runtime.prefetch import map_ahead, prefetch
from ..runtime.remote import is_url
from .class_choice import choose_classes, with_classes
from .detections import Detections
from .engines.choice import Kind, choose
from .engines.ensemble import EnsembleEngine
from .engines.multibox import MultiBoxEngine, WholeImageView
from .model_files import Model, load_model
from .pipeline import Crops, RegionBatch, ScoredRegions, batch_regions, score_regions
from .suppression import select_detections, vote_boxes
from .warping.on_device import warp_on_device
from .warping.warp import warp_regions

_NO_PROPOSALS = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

# Smallest number of regions in a batch (19 MB), and number of batches warped ahead of the network. On a CPU a batch is
# larger than the engine's own, because warping a huge picture makes reduced copies of it for every batch.
_BATCH_REGIONS = 128
_BATCHES_AHEAD = 3
# Largest number of pictures that are read ahead of the networks, and of pictures that wait in `_finish`.
_PICTURES_AHEAD = 4


Picture: TypeAlias = np.ndarray | Image.Image | str | Path
"""A picture: an array or a PIL picture, see `data.images.to_rgb`; or a file or a URL, see `data.images.read_image`."""


@dataclass(frozen=True, eq=False)
class FileResult:
    """The detections in one picture, or the error that prevented them.

    Attributes:
        path: the picture file or its URL; for a picture in memory, its number in the stream, from 0.
        image: the picture, uint8 RGB [H, W, 3]; None if there is an error, or with keep_image=False.
        detections: the objects found; None if there is an error.
        error: why the picture could not be used; None if it was.
        size: width and height of the upright picture in pixels; None if there is an error.
    """

    path: Path | str | int
    image: np.ndarray | None
    detections: Detections | None
    error: ImageError | None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """A picture whose regions the networks have scored.

    Attributes:
        result: the picture, or the error; the detections are still missing.
        proposals: the N regions; none if there is an error.
        scores: the networks' scores of the regions.
    """

    result: FileResult
    proposals: Proposals
    scores: ScoredRegions


@dataclass(eq=False)
class _Picture:
    """A picture on its way to the networks.

    Attributes:
        result: the picture, or the error.
        proposals: the regions without duplicates; none if there is an error.
        uploaded: uint8 RGB [H, W, 3], the picture on the GPU; set by `_warp`, None if the networks run on a CPU.
    """

    result: FileResult
    proposals: Proposals
    uploaded: torch.Tensor | None = None


class Detector:
    """Finds objects in pictures. Any number of threads may use a detector at the same time.

        with Detector.load("default") as detector:
            detections = detector("photo.jpg")  # or an array, or a PIL picture

    Args:
        model: networks, classes and region settings.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N". Regions are warped on the device of the
            networks. Scores on a GPU differ from scores on a CPU within the tolerances that `on_device` and `engine`
            state.
        engine: the engine that runs the networks, see `choice`; "auto" chooses the fastest.
        score_threshold: smallest score of a detection, 0..1. The default suits evaluation, which ranks detections with
            low scores too. To show detections to people, 0.5 is a good choice.
        max_detections: number of detections kept in a picture, those with the highest scores.
        seed: seed of the pseudo-random ranking of proposals.
        members: number of networks to use, the first of the ensemble; None uses all.
        cascade: whether the first member decides which regions the other members score: those whose object probability
            is at least `Model.cascade`. With cascade=False, every member scores every region.
        box_regression: whether to apply the model's box regression, if the model has it.
        screen: whether the model's screen chooses the regions that the networks score, if the model has a screen. With
            screen=False, the networks score all regions, as in the paper.
        max_regions: the screen keeps this many of the best regions of a picture; None keeps the regions above the
            model's threshold.
        threads: number of CPU threads for the networks, and of threads that read pictures for a GPU; None uses all
            cores.
        classes: names or WNIDs of the classes to report, see `choose_classes`; None reports all classes of the model,
            "imagenet" all finest names of a model with subclasses.

    Attributes:
        categories: the classes that the detector finds.
        subclasses: the classes that its networks tell apart beneath them; empty if there are none.
        regions: how regions are proposed and warped.
        device: device of the networks: "cpu", "cuda" or "cuda:N".
        ensemble: the compiled networks.
        multibox: the compiled MultiBox network; None if the model has none.
        screen: the screen; None if the model has none or it is switched off.
        calibration: turns class probabilities and what the screen says into scores; None uses the class probabilities
            as scores.

    Raises:
        ValueError: an argument is out of range.
        CategoryError: the model lacks one of `classes`.
        EngineError: the device does not exist, or the engine does not run on it.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        engine: Kind = "auto",
        score_threshold: float = 0.001,
        max_detections: int = 100,
        seed: int = 0,
        members: int | None = None,
        cascade: bool = True,
        box_regression: bool = True,
        screen: bool = True,
        max_regions: int | None = None,
        threads: int | None = None,
        classes: Sequence[str] | str | None = None,
    ):
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold is {score_threshold}, expected a number from 0 to 1")
        if max_detections < 1:
            raise ValueError(f"max_detections is {max_detections}, expected at least 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected at least 0")
        choice = choose_classes(model.categories, model.subclasses, classes)
        columns = model.screen_columns()
        # A finest class has the screen's probability of its class.
        screen_columns = np.array([0 if row is None else columns[row] for row in choice.of_model], np.int64)
        model = with_classes(model, choice)
        self._reported = choice.rows
        self.categories: tuple[Category, ...] = choice.categories
        self.subclasses: tuple[Subclass, ...] = model.subclasses
        self.regions = model.regions
        self.score_threshold = score_threshold
        self.max_detections = max_detections
        self.seed = seed
        if max_regions is not None and max_regions < 1:
            raise ValueError(f"max_regions is {max_regions}, expected at least 1")
        if max_regions is not None and (model.screen is None or not screen):
            missing = "the screen is switched off" if model.screen is not None else "this model has no screen"
            raise ValueError(f"max_regions (--regions) needs a screen, which chooses the regions, but {missing}")
        self.max_regions = max_regions
        self._regressor = model.regressor if box_regression else None
        self._columns = model.output_columns()
        self._screen_columns = screen_columns
        self.screen = model.screen if screen else None
        self.calibration = model.calibration
        chosen = model.first_members(members)
        with ThreadPoolExecutor(2) as pool:  # the parts of a detector load at the same time
            kernels = pool.submit(_load_kernels)
            resolved = choose(engine, device)
            load_multibox = partial(_load_multibox, model.multibox, self.screen, resolved.device, threads)
            # torch compiles one network after the other.
            multibox = pool.submit(load_multibox) if resolved.kind.startswith("openvino") else None
            self.ensemble = EnsembleEngine(
                chosen,
                kind=engine,
                device=device,
                threads=threads,
                moments=self._regressor is not None,
                columns=self._columns,
                cascade=(model.cascade or 0.0) if cascade else 0.0,
                allow_8_bits=True,
            )
            self.device = self.ensemble.device
            self.multibox = multibox.result() if multibox is not None else load_multibox()
            kernels.result()
        # Networks on a CPU need the cores themselves, and one reader keeps them busy. A GPU needs as many as possible.
        self._readers = 1 if self.device == "cpu" else threads or os.cpu_count() or 1
        self._ids = np.array([category.id for category in self.categories], np.int64)
        self._closed = False

    @classmethod
    def load(
        cls,
        name_or_folder: str | Path = "default",
        *,
        device: str = "auto",
        engine: Kind = "auto",
        score_threshold: float = 0.001,
        max_detections: int = 100,
        seed: int = 0,
        members: int | None = None,
        cascade: bool = True,
        box_regression: bool = True,
        screen: bool = True,
        max_regions: int | None = None,
        threads: int | None = None,
        classes: Sequence[str] | str | None = None,
    ) -> Detector:
        """Make a detector from a model folder, or from a shipped model by its name ("default").

        The other arguments are those of `Detector`.

        Raises:
            ModelError: the model does not exist or is damaged.
            EngineError: the device does not exist, or the engine does not run on it.
            ValueError: an argument is out of range.
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
            screen=screen,
            max_regions=max_regions,
            threads=threads,
            classes=classes,
        )

    def close(self) -> None:
        """Free the memory of the networks. The detector cannot be used afterwards, and no thread may be using it."""
        if not self._closed:
            self._closed = True
            del self.ensemble, self.multibox, self.screen
            if self.device != "cpu":
                torch.cuda.empty_cache()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the detector is closed; load it again")

    def propose(self, image: np.ndarray, threads: int | None = None) -> Proposals:
        """Propose the regions that the networks score.

        The proposals come from selective search and, if the model has a MultiBox network, from MultiBox;
        `Proposals.source` tells which method proposed a region. If the model has a screen, it keeps the best regions:
        `Proposals.scores` is then the probability of showing an object times the quality.

        Args:
            image: uint8 RGB [H, W, 3].
            threads: number of threads for selective search; None uses all cores. It does not change the proposals.

        Returns:
            Proposals, best first.

        Raises:
            ValueError: the detector is closed.
        """
        self._check_open()
        selective = selective_search(
            image,
            superpixel_scale=self.regions.superpixel_scale,
            min_side=self.regions.min_side,
            connectivity=self.regions.connectivity,
            seed=self.seed,
            threads=threads,
        )
        if self.multibox is None:
            return selective
        view = self.multibox.look(image)
        return self._screened(combine(selective, view.proposals), view, image)

    def _screened(self, proposals: Proposals, view: WholeImageView, image: np.ndarray) -> Proposals:
        """The proposals that the screen keeps, or all proposals without a screen."""
        if self.screen is None or view.feature_map is None:
            return proposals
        height, width = image.shape[:2]
        return self.screen.keep(proposals, view.feature_map, width, height, self.max_regions)

    def __call__(self, image: Picture) -> Detections:
        """Find objects in a picture. Returns detections, best first.

        Args:
            image: uint8 RGB [H, W, 3], a PIL picture, a picture file or a URL.

        Raises:
            ImageError: the picture cannot be read.
            ValueError: the detector is closed.
        """
        self._check_open()
        pixels = _read_picture(image, MAX_PIXELS)
        picture = _Picture(FileResult(0, pixels, None, None), _without_duplicates(self.propose(pixels)))
        (result,) = self._finished([picture], keep_image=False)
        assert result.detections is not None
        return result.detections

    def detect_images(
        self, images: Iterable[Picture], max_pixels: int = MAX_PIXELS, *, keep_image: bool = False
    ) -> Generator[FileResult, None, None]:
        """Find objects in a stream of pictures, such as the frames of a video. Yields one result for each, in order.

        Pictures are taken from the stream a few ahead of the results, in another thread. A picture that cannot be used
        gives a result with an `error`. `close()` of the generator ends the work early.

        Args:
            images: arrays uint8 RGB [H, W, 3], PIL pictures, picture files or URLs. The stream may be endless.
            max_pixels: a picture file with more pixels gives an error, see `read_image`.
            keep_image: whether results hold their picture. A list of results without pictures needs little memory.

        Raises:
            ValueError: the detector is closed.
        """
        self._check_open()
        numbered = enumerate(images)
        read = map_ahead(lambda one: self._read(*one, max_pixels, None), numbered, self._readers, _PICTURES_AHEAD)
        return self._finished(read, keep_image)

    def detect_files(
        self,
        paths: Iterable[str | Path],
        max_pixels: int = MAX_PIXELS,
        proposals: ProposalFile | None = None,
        *,
        keep_image: bool = True,
    ) -> Generator[FileResult, None, None]:
        """Find objects in picture files. Yields one result for each file, in the order of the files.

        Threads read pictures, propose regions and warp them ahead of the networks. A batch can hold regions of several
        pictures. Memory does not grow with the number of files. A file that cannot be read gives a result with an
        `error`; the other files are not affected.

        Args:
            paths: picture files, or URLs that fsspec reads.
            max_pixels: a picture with more pixels gives an error, see `read_image`.
            proposals: boxes to use as regions, which the screen thins like any others; None to propose regions. A
                picture that the file lacks, or holds with another size, gives an error.
            keep_image: whether results hold their picture. A list of results without pictures needs little memory.

        Raises:
            ValueError: the detector is closed.
        """
        self._check_open()
        return self._finished(self._read_ahead(paths, max_pixels, proposals), keep_image)

    def score_files(self, paths: Iterable[str | Path]) -> Iterator[ScoredPicture]:
        """Score the regions of picture files, without making detections. Yields the pictures in the order of the files.

        `detections` makes detections of a scored picture.
        """
        self._check_open()
        return self._score(self._read_ahead(paths, MAX_PIXELS, None))

    def detections(self, picture: ScoredPicture) -> Detections:
        """Make detections of scored regions: box regression, non-maximum suppression and box voting.

        The scores are calibrated if the screen has rated the regions and there is a `calibration`.

        Args:
            picture: a picture without error.
        """
        assert picture.result.image is not None
        boxes, probabilities = picture.proposals.boxes, picture.scores.probabilities
        if self._regressor is not None:
            height, width = picture.result.image.shape[:2]
            boxes = self._regressor.regress(
                boxes, probabilities, picture.scores.features, picture.scores.kept, width, height
            )
        if len(self._reported) < probabilities.shape[1] - 1:
            probabilities = probabilities[:, np.r_[0, 1 + self._reported]]
            boxes = boxes if boxes.ndim == 2 else boxes[:, self._reported]
        if self.calibration is not None and picture.proposals.quality is not None:
            by_screen = self.by_screen(picture.proposals)
            scores = self.calibration.scores(probabilities[:, 1:], picture.proposals.quality, by_screen)
            probabilities = np.concatenate([probabilities[:, :1], scores], axis=1)
        found = select_detections(
            boxes,
            probabilities,
            self._ids,
            score_threshold=self.score_threshold,
            max_detections=self.max_detections,
        )
        found = vote_boxes(found, boxes, probabilities, self._ids)
        subclasses = self._subclasses_of(found, picture.scores)
        return replace(found, subclasses=subclasses, categories=self.categories, finest=self.subclasses)

    def by_screen(self, proposals: Proposals) -> np.ndarray | None:
        """The screen's probabilities of the reported classes in N regions.

        Returns:
            float32 [N, reported classes], NaN for classes that the screen does not know; None if no screen has seen the
            regions.
        """
        if proposals.classes is None:
            return None
        columns = self._screen_columns[self._reported]
        return np.where(columns > 0, proposals.classes[:, columns], np.float32(np.nan))

    def _subclasses_of(self, found: Detections, scores: ScoredRegions) -> np.ndarray | None:
        """The likeliest subclass of each detection's class, by the first member; None without subclasses."""
        if self._columns is None or found.regions is None:
            return None
        places = np.full(len(scores.probabilities), -1)
        places[scores.kept] = np.arange(len(scores.kept))
        rows = places[found.regions]
        known = np.flatnonzero(rows >= 0)
        rows_of_ids = {label: row for label, row in zip(self._ids.tolist(), self._reported, strict=True)}
        columns = 1 + np.array([rows_of_ids[label] for label in found.labels[known].tolist()], np.int64)
        outputs = self.ensemble.engines[0].outputs(scores.features[rows[known]])  # [n, 1 + subclasses]
        best = np.where(self._columns == columns[:, None], outputs, -1).argmax(axis=1)
        subclasses = np.full(len(found), -1)
        subclasses[known] = best - 1
        return subclasses

    def _read_ahead(
        self, paths: Iterable[str | Path], max_pixels: int, proposals: ProposalFile | None
    ) -> Iterator[_Picture]:
        numbered = enumerate(paths)
        return map_ahead(lambda one: self._read(*one, max_pixels, proposals), numbered, self._readers, _PICTURES_AHEAD)

    def _read(self, number: int, source: Picture, max_pixels: int, proposals: ProposalFile | None) -> _Picture:
        """Reads a picture and proposes its regions, or takes them from a file.

        If that fails, the picture has no regions, and its result holds the error.
        """
        path: Path | str | int = number
        if isinstance(source, str | Path):
            path = source if is_url(source) else Path(source)
        try:
            image = _read_picture(source, max_pixels)
            if proposals is None:
                regions = self.propose(image, threads=1)
            else:
                assert not isinstance(path, int)
                found = proposals.find(path, (image.shape[1], image.shape[0]))
                if found is None:
                    raise ImageError(path, "the proposals file does not contain this picture")
                regions = found if self.multibox is None else self._screened(found, self.multibox.look(image), image)
            return _Picture(FileResult(path, image, None, None), _without_duplicates(regions))
        except ImageError as error:
            return _Picture(FileResult(path, None, None, error), _NO_PROPOSALS)
        except ProposalFileError as error:
            assert not isinstance(path, int)  # pictures in memory have no proposals file
            return _Picture(FileResult(path, None, None, ImageError(path, str(error))), _NO_PROPOSALS)

    def _finished(self, pictures: Iterable[_Picture], keep_image: bool) -> Generator[FileResult, None, None]:
        """Detects in pictures, in order, and yields each picture as soon as its regions are scored.

        The networks, reading and warping run in threads of their own, `_finish` runs in the caller's thread.
        """
        with closing(prefetch(self._score(pictures), _PICTURES_AHEAD)) as scored:
            for picture in scored:
                yield self._finish(picture, keep_image)

    def _score(self, pictures: Iterable[_Picture]) -> Iterator[ScoredPicture]:
        """Scores all regions of pictures, in order."""
        batches = prefetch(self._batches((picture, picture.proposals.boxes) for picture in pictures), _BATCHES_AHEAD)
        wait_for = self._batch_regions() if len(self.ensemble.engines) > 1 else 0
        for picture, scores in score_regions(self.ensemble, batches, wait_for):
            yield ScoredPicture(picture.result, picture.proposals, scores)

    def _finish(self, picture: ScoredPicture, keep_image: bool) -> FileResult:
        image = picture.result.image
        if image is None:
            return picture.result
        height, width = image.shape[:2]
        return replace(
            picture.result,
            image=image if keep_image else None,
            detections=self.detections(picture),
            size=(width, height),
        )

    def _batches(self, regions: Iterable[tuple[_Picture, np.ndarray]]) -> Iterator[RegionBatch[_Picture]]:
        """Warps pairs of a picture and boxes [n, 4] into batches, whose size is a multiple of the engine's."""
        return batch_regions(regions, self._batch_regions(), self._warp, self.device)

    def _batch_regions(self) -> int:
        """Regions in a batch: `_BATCH_REGIONS`, rounded up to a multiple of the engine's batch size."""
        rows = self.ensemble.batch_size
        return -(-_BATCH_REGIONS // rows) * rows

    def _warp(self, picture: _Picture, boxes: np.ndarray, out: Crops) -> None:
        """Warps regions of a picture into `out`, on the device of `out`. An image is uploaded to a GPU once."""
        image, padding, mode = picture.result.image, self.regions.padding, self.regions.warp_mode
        assert image is not None
        if isinstance(out, np.ndarray):
            warp_regions(image, boxes, padding=padding, mode=mode, out=out)
            return
        if picture.uploaded is None:
            picture.uploaded = torch.from_numpy(image).to(out.device)
        out.copy_(warp_on_device(picture.uploaded, boxes, padding=padding, mode=mode))


def _read_picture(source: Picture, max_pixels: int) -> np.ndarray:
    """The picture, uint8 RGB [H, W, 3]; raises an ImageError."""
    return read_image(source, max_pixels) if isinstance(source, str | Path) else to_rgb(source)


def _load_multibox(
    network: MultiBox | None, screen: Screen | None, device: str, threads: int | None
) -> MultiBoxEngine | None:
    return None if network is None else MultiBoxEngine(network, screen, device=device, threads=threads)


def _load_kernels() -> None:
    """Loads the compiled kernels of selective search, warping and the classifier, which takes a second."""
    from ..proposals import selective_search as proposals
    from .engines.classifier_kernel import linear

    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = 255
    proposals.selective_search(image)
    warp_regions(image, np.array([[0, 0, 16, 16]], np.float32))
    matrix = np.zeros((1, 1), np.float32)
    linear(matrix, matrix, matrix[0], matrix)


def _without_duplicates(proposals: Proposals) -> Proposals:
    """The proposals without repetitions of equal boxes, in the same order.

    Nearly equal boxes stay: of 45,000 boxes of selective search, only 0.06 % had a crop within half a pixel of another
    box's crop.
    """
    _, first = np.unique(proposals.boxes, axis=0, return_index=True)
    return proposals[np.sort(first)]
