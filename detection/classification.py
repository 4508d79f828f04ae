"""Classifies whole pictures: crops -> networks -> mean of the probabilities.

The classification system of "Going Deeper with Convolutions" (Szegedy et al., CVPR 2015), section 7: "The softmax
probabilities are averaged over multiple crops and over all the individual classifiers to obtain the final prediction."
"""

import hashlib
import math
import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data.augment import crop_places, crops_at
from ..data.categories import Category
from ..data.classifier_classes import imagenet_classes, named_classes, read_classifier_classes
from ..data.images import MAX_PIXELS, ImageError, read_image
from ..runtime.prefetch import map_ahead
from ..runtime.remote import is_url
from .classifier_files import classifier_classes, load_classifier
from .engines.choice import Kind
from .engines.engine import CROP_SIZE
from .engines.ensemble import EnsembleEngine
from .model_files import find_model, load_model, model_digest
from .model_json import read_description
from .networks.backbones import Backbone, TorchvisionGoogLeNet
from .networks.caffemodel import load_caffemodel
from .networks.weights import ModelError

# Smallest number of pictures that are read ahead of the networks.
_PICTURES_AHEAD = 4


@dataclass(frozen=True, eq=False)
class PictureModel:
    """Networks that tell the same classes of whole pictures apart. `load` reads their weights.

    Attributes:
        name: what `find_picture_model` was given.
        digest: changes with the weights and the classes.
        classes: the C classes.
        networks: the number of networks.
        load: returns the networks and `columns`. The outputs of the networks have no background. `columns` is int64
            [outputs], the class to which the probability of each output is added; None if each output is a class.
            Raises ModelError, CaffeModelError or OSError if the weights are damaged or do not fit the classes.
    """

    name: str
    digest: str
    classes: tuple[Category, ...]
    networks: int
    load: Callable[[], tuple[list[Backbone], np.ndarray | None]]


def find_picture_model(name: str, classes: Path | None = None) -> PictureModel:
    """Finds networks that classify whole pictures. Their weights are not loaded yet.

    A detector's networks tell regions apart, of which one output is the background. This output is left out, so the
    probabilities of the detector's classes add up to 1. If the networks tell subclasses apart, the probability of a
    class is the sum over its subclasses.

    Args:
        name: a .caffemodel file; "torchvision" for the GoogLeNet that torchvision downloads; a .safetensors file of
            detect-train-classifier, or the folder with such files, for all of them; else the model folder of a detector
            or the name of a shipped model.
        classes: the class list of a .caffemodel file, see `read_classifier_classes`; None for ImageNet's 1,000 classes.

    Raises:
        ModelError, CategoryError: there is no such model, or a list of classes is damaged.
        OSError: a .caffemodel file cannot be read.
    """
    folder = Path(name)
    if name == "torchvision":
        import torchvision

        digest = f"torchvision {torchvision.__version__}"
        return PictureModel(name, digest, imagenet_classes(), 1, _load_from_torchvision)
    if name.endswith(".caffemodel"):
        known = imagenet_classes() if classes is None else read_classifier_classes(classes)
        digest = hashlib.sha256(folder.read_bytes() + repr(known).encode()).hexdigest()
        source = "ImageNet has" if classes is None else f"{classes} has"
        return PictureModel(name, digest, known, 1, partial(_load_caffemodel, folder, len(known), source))
    if name.endswith(".safetensors"):
        return _of_classifiers(name, [folder])
    if not (folder / "model.json").is_file() and (files := _classifier_files(folder)):
        return _of_classifiers(name, files)
    described = read_description(find_model(name) / "model.json")
    return PictureModel(
        name, model_digest(name), described.categories, described.members, partial(_load_without_background, name)
    )


def _load_from_torchvision() -> tuple[list[Backbone], None]:
    try:
        return [TorchvisionGoogLeNet(pretrained=True).eval()], None
    except (OSError, RuntimeError) as error:  # RuntimeError: the file that arrived has another hash
        raise ModelError(f"torchvision cannot load its GoogLeNet, which it downloads: {error}") from error


def _load_caffemodel(file: Path, classes: int, source: str) -> tuple[list[Backbone], None]:
    network = load_caffemodel(file)
    if classes != network.num_classes:
        raise ModelError(
            f"{file}: the network has {network.num_classes} outputs, but {source} {classes} classes; name a list "
            "with a line for each output with --classes"
        )
    return [network], None


def _of_classifiers(name: str, files: Sequence[Path]) -> PictureModel:
    """The networks of files that `save_classifier` wrote."""
    digest = hashlib.sha256()
    names = classifier_classes(files[0])
    for file in files:
        if classifier_classes(file) != names:
            raise ModelError(f"{file}: its classes are not those of {files[0]}")
        digest.update(file.read_bytes())
    return PictureModel(
        name, digest.hexdigest(), named_classes(names), len(files), lambda: ([*map(load_classifier, files)], None)
    )


def classifier_file(folder: Path, member: int) -> Path:
    """The file of a member, from 1, of the ensemble that detect-train-classifier writes to a folder."""
    return folder / ("classifier.safetensors" if member == 1 else f"classifier_{member}.safetensors")


def _classifier_files(folder: Path) -> list[Path]:
    """The files of detect-train-classifier in a folder, in the order of the members."""
    files: list[Path] = []
    while (file := classifier_file(folder, len(files) + 1)).is_file():
        files.append(file)
    return files


def _load_without_background(name: str) -> tuple[list[Backbone], np.ndarray | None]:
    """The members of a detector without the outputs that belong to no class, and `PictureModel.load`'s columns."""
    model = load_model(name)
    columns = model.output_columns()  # 0: the background and whatever is not detected
    kept = np.arange(1, len(model.categories) + 1) if columns is None else np.flatnonzero(columns)
    for member in model.members:
        old = member.classifier
        member.classifier = nn.Linear(old.in_features, len(kept))
        member.num_classes = len(kept)
        with torch.no_grad():
            member.classifier.weight.copy_(old.weight[kept])
            member.classifier.bias.copy_(old.bias[kept])
    return model.members, None if columns is None else columns[kept] - 1


@dataclass(frozen=True, eq=False)
class PictureProbabilities:
    """The classes of one picture file, or the error that prevented them.

    Attributes:
        path: the picture file or its URL.
        width, height: size of the upright picture in pixels; 0 if there is an error.
        probabilities: float32 [counts, networks, C], the mean over the crops, for each number of crops and each
            network; None if there is an error.
        error: why the file could not be read; None if it was.
    """

    path: Path | str
    width: int
    height: int
    probabilities: np.ndarray | None
    error: ImageError | None


@dataclass(frozen=True, eq=False)
class _CroppedPicture:
    """A picture on its way to the networks.

    Attributes:
        result: the picture without its probabilities, or the error.
        crops: uint8 RGB [n, 224, 224, 3]; none if there is an error.
        rows: for each number of crops the positions of these crops in `crops`.
    """

    result: PictureProbabilities
    crops: np.ndarray
    rows: list[list[int]]


class Classifier:
    """Says what whole pictures show.

        classifier = Classifier([find_picture_model("bvlc_googlenet.caffemodel")])
        for picture in classifier.classify_files(paths, [144]): ...

    Args:
        models: the networks, at least one model. They must tell the same classes apart, in any order.
        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N".
        engine: the engine that runs the networks, see `choice`; "auto" chooses the fastest.
        threads: number of CPU threads for the networks, and of threads that read pictures for a GPU; None uses all
            cores.

    Attributes:
        classes: the C classes, in the order of the first model.
        networks: number of networks, those of all models.
        description, reason: the engine, and why it was chosen.

    Raises:
        ModelError: the models tell different classes apart, or see `PictureModel.load`.
        CaffeModelError, OSError: see `PictureModel.load`.
        EngineError: the device does not exist, or the engine does not run on it.
    """

    def __init__(
        self,
        models: Sequence[PictureModel],
        *,
        device: str = "auto",
        engine: Kind = "auto",
        threads: int | None = None,
    ):
        self.classes = models[0].classes
        self._orders = [_order_of_classes(models[0], model) for model in models]
        self._ensembles = [
            EnsembleEngine(members, kind=engine, device=device, threads=threads, columns=columns)
            for members, columns in (model.load() for model in models)
        ]
        first = self._ensembles[0]
        self.networks = sum(model.networks for model in models)
        self.description, self.reason = first.description, first.reason
        # Networks on a CPU need the cores themselves, and one reader keeps them busy. A GPU needs as many as possible.
        self._readers = 1 if first.device == "cpu" else threads or os.cpu_count() or 1

    def classify_crops(self, crops: np.ndarray) -> np.ndarray:
        """Probabilities of crops, uint8 RGB [N, 224, 224, 3], by each network -> float32 [networks, N, C]."""
        return np.concatenate(
            [ensemble.each(crops)[:, :, order] for ensemble, order in zip(self._ensembles, self._orders, strict=True)]
        )

    def __call__(self, image: np.ndarray, crops: int = 1) -> np.ndarray:
        """Class probabilities of a picture, uint8 RGB [H, W, 3] -> float32 [C], the mean over crops and networks.

        Args:
            crops: 1, 10 or 144, see `crop_places`.
        """
        height, width = image.shape[:2]
        return self.classify_crops(crops_at(image, crop_places(crops, height > width))).mean((0, 1))

    def classify_files(
        self, paths: Iterable[str | Path], counts: Sequence[int] = (1,), max_pixels: int = MAX_PIXELS
    ) -> Generator[PictureProbabilities, None, None]:
        """Classifies picture files. Yields one result for each file, in the order of the files.

        Threads read and crop pictures ahead of the networks. Crops of several pictures share batches. Memory does not
        grow with the number of files. A file that cannot be read gives a result with an `error`; the other files are
        not affected.

        Args:
            paths: picture files, or URLs that fsspec reads.
            counts: numbers of crops, each of 1, 10 or 144. The networks see each crop once.
            max_pixels: a picture with more pixels gives an error, see `read_image`.
        """
        # So many pictures fill whole batches.
        together = math.lcm(max(counts), self._ensembles[0].batch_size) // max(counts)
        read = map_ahead(
            partial(_read, counts=counts, max_pixels=max_pixels), paths, self._readers, max(together, _PICTURES_AHEAD)
        )
        waiting: list[_CroppedPicture] = []
        with closing(read):
            for picture in read:
                waiting.append(picture)
                full = sum(one.result.error is None for one in waiting) == together
                if full or len(waiting) == 2 * together:  # files that cannot be read must not wait for long
                    yield from self._classified(waiting)
                    waiting = []
            yield from self._classified(waiting)

    def _classified(self, pictures: Sequence[_CroppedPicture]) -> Generator[PictureProbabilities, None, None]:
        crops = [picture.crops for picture in pictures if len(picture.crops)]
        probabilities = self.classify_crops(np.concatenate(crops)) if crops else None
        start = 0
        for picture in pictures:
            if probabilities is None or picture.result.error is not None:
                yield picture.result
                continue
            of_picture = probabilities[:, start : start + len(picture.crops)]  # [networks, n, C]
            start += len(picture.crops)
            means = [of_picture[:, rows].mean(axis=1, dtype=np.float64) for rows in picture.rows]
            yield replace(picture.result, probabilities=np.stack(means).astype(np.float32))


def _order_of_classes(first: PictureModel, other: PictureModel) -> np.ndarray:
    """The columns of `other` in the order of the classes of `first`."""
    positions = {one.wnid: position for position, one in enumerate(other.classes)}
    missing = [one for one in first.classes if one.wnid not in positions]
    if missing or len(positions) != len(first.classes):
        example = f", for example {missing[0].name!r:.80} only the first" if missing else ""
        raise ModelError(
            f"{first.name} and {other.name} tell different classes apart ({len(first.classes)} and "
            f"{len(other.classes)} classes{example}): only networks with the same classes can be averaged"
        )
    return np.array([positions[one.wnid] for one in first.classes])


def _read(path: str | Path, counts: Sequence[int], max_pixels: int) -> _CroppedPicture:
    """Reads a picture and makes its crops. If that fails, there are no crops, and the result holds the error."""
    path = path if is_url(path) else Path(path)
    try:
        image = read_image(path, max_pixels)
    except ImageError as error:
        nothing = np.zeros((0, CROP_SIZE, CROP_SIZE, 3), np.uint8)
        return _CroppedPicture(PictureProbabilities(path, 0, 0, None, error), nothing, [])
    height, width = image.shape[:2]
    of_counts = [crop_places(count, height > width) for count in counts]
    places = list(dict.fromkeys(place for of_count in of_counts for place in of_count))
    rows = [[places.index(place) for place in of_count] for of_count in of_counts]
    return _CroppedPicture(PictureProbabilities(path, width, height, None, None), crops_at(image, places), rows)
