"""Trains the screen of a detector on the feature maps of its MultiBox network.

The trunk of MultiBox is frozen, so its feature maps of each training picture are computed once and stored. A training
example is a region of selective search or MultiBox, with its class and its IoU with the closest object.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...data.categories import Category
from ...data.dataset import Dataset, Sample
from ...data.images import read_image, read_size
from ...proposals.multibox import MultiBox
from ...proposals.proposals import Proposals
from ...proposals.screen import Screen
from ..engines.choice import resolve_device
from ..warping.warp import warp_regions
from .checkpoint import Checkpoint
from .errors import TrainingError
from .keys import pictures_key, result_key
from .loop import Training, cosine, read_ahead, seed_dropout, train
from .lower_features import stored_features
from .progress import Report, no_report
from .windows import IGNORED, label_windows

# A background region is near an object if its IoU with an object is at least this, and far from objects otherwise.
NEAR_IOU = 0.1
# Share of the steps during which the learning rate rises.
_WARM_UP = 0.1


@dataclass(frozen=True)
class ScreenSettings:
    """The recipe.

    Attributes:
        iterations: largest number of steps.
        passes: largest number of times that a step uses the same picture. A small data set is trained on for fewer
            steps.
        batch: number of pictures in a batch.
        positives: largest number of regions of a picture in a batch that have an IoU of at least 0.5 with an object.
        near, far: largest numbers of background regions near objects and far from objects.
        learning_rate: largest learning rate. It rises in the first tenth of the steps and then falls to 0 along a
            cosine.
        weight_decay: weight decay of AdamW.
        quality_weight: weight of the loss of the quality. The loss of the classes has weight 1.
        pictures: largest number of training pictures. The maps of a picture take 1.7 MB of disk space.
        seed: seed of all random choices.
    """

    iterations: int = 1200
    passes: int = 24
    batch: int = 8
    positives: int = 24
    near: int = 36
    far: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    quality_weight: float = 2.0
    pictures: int = 3000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class ScreenExamples:
    """The regions of one picture with their targets.

    Attributes:
        boxes: float32 [N, 4] in pixels of the trunk's input.
        labels: int64 [N], the class from 1, or 0 for background.
        overlaps: float32 [N], the largest IoU with an object.
    """

    boxes: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray


class TrunkMaps(nn.Module):
    """MultiBox's two feature maps, flattened and joined: float RGB in 0..255 [N, 3, S, S] -> [N, D]."""

    def __init__(self, multibox: MultiBox):
        super().__init__()
        self.multibox = multibox

    def forward(self, pixels: Tensor) -> Tensor:
        fine, coarse = self.multibox.trunk_maps(pixels)
        return torch.cat([fine.flatten(1), coarse.flatten(1)], dim=1)


def train_screen(
    multibox: MultiBox,
    dataset: Dataset,
    propose: Callable[[Sample], Proposals],
    categories: Sequence[Category],
    settings: ScreenSettings,
    folder: Path,
    *,
    start: Screen | None = None,
    device: str = "auto",
    report: Report = no_report,
) -> Screen:
    """Train a screen.

    Args:
        multibox: the network whose trunk computes the feature maps. It is not changed.
        dataset: annotated pictures. At most `settings.pictures` of them are used, drawn at random.
        propose: proposes the regions of a picture.
        categories: the classes of the detector, in the order of its outputs.
        settings: the recipe.
        folder: folder of the checkpoint and the feature maps. An interrupted training resumes from them. The feature
            maps are deleted at the end.
        start: a screen of the same MultiBox network, whose layers the training starts from, but for the classifier. It
            already knows objects from background, so a few pictures suffice. The new screen has as many channels, cells
            and units. None starts from random weights.
        device: "auto", "cpu", "cuda" or "cuda:N".
        report: called with the stages "feature maps", "regions" and "screen".

    Returns:
        The screen with mild thresholds, in evaluation mode, on the CPU.

    Raises:
        TrainingError: no region covers an object, the disk has no room for the maps, the checkpoint belongs to another
            training, or the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = resolve_device(device)
    drawn = np.sort(np.random.default_rng([settings.seed, 15]).permutation(len(dataset))[: settings.pictures])
    size = multibox.sizes[0]
    examples = []
    for done, index in enumerate(drawn.tolist(), 1):
        examples.append(screen_examples(dataset[index], propose(dataset[index]), categories, size))
        report("regions", done, len(drawn), {})
    if not any((one.labels > 0).any() for one in examples):
        raise TrainingError(f"{dataset.name}: no region of {len(drawn)} pictures covers an object of a known class")
    origin = screen_key(multibox, dataset, drawn, examples, start)
    steps = min(settings.iterations, -(-settings.passes * len(drawn) // settings.batch))
    checkpoint = Checkpoint(folder / "screen_checkpoint.safetensors", {**asdict(settings), "data and weights": origin})
    maps: np.ndarray | None = None
    if checkpoint.step() < steps:
        maps = stored_features(
            TrunkMaps(multibox),
            partial(_whole_pictures, dataset, drawn, size),
            len(drawn),
            folder / f"screen_maps_{origin}.npy",
            size=size,
            device=device,
            stage="feature maps",
            report=report,
        )
    torch.manual_seed(settings.seed)
    fine_shape, coarse_shape = _map_shapes(multibox)
    shape = {} if start is None else {"width": start.width, "grid": start.grid, "hidden": start.hidden}
    screen = Screen(len(categories), fine_shape[0], coarse_shape[0], **shape)
    if start is not None:
        known = {name: value for name, value in start.state_dict().items() if not name.startswith("classifier.")}
        screen.load_state_dict(known, strict=False)
    screen.to(device).train()
    optimiser = torch.optim.AdamW(screen.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)

    def batch_of(step: int) -> list[tuple[int, np.ndarray]]:
        pictures = _pictures_of(step, len(drawn), settings)
        return [(picture, _regions_of(examples[picture], picture, step, settings)) for picture in pictures]

    def loss(step: int, batch: list[tuple[int, np.ndarray]]) -> tuple[Tensor, dict[str, float]]:
        assert maps is not None
        seed_dropout(settings.seed, 16, step)
        seen = torch.from_numpy(np.stack([maps[picture] for picture, _ in batch])).to(device).float()
        fine, coarse = seen.split([int(np.prod(fine_shape)), int(np.prod(coarse_shape))], dim=1)
        feature_map = screen.feature_map(fine.view(-1, *fine_shape), coarse.view(-1, *coarse_shape))
        boxes = [torch.from_numpy(examples[picture].boxes[rows]).to(device) for picture, rows in batch]
        labels = np.concatenate([examples[picture].labels[rows] for picture, rows in batch])
        overlaps = np.concatenate([examples[picture].overlaps[rows] for picture, rows in batch])
        logits, quality = screen(feature_map, boxes)
        class_loss = nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(device))
        quality_loss = nn.functional.binary_cross_entropy_with_logits(quality, torch.from_numpy(overlaps).to(device))
        terms = {"classes": class_loss.item(), "quality": quality_loss.item()}
        return class_loss + settings.quality_weight * quality_loss, terms

    def learning_rate(step: int) -> float:
        warm = min(1.0, (step + 1) / (_WARM_UP * steps))
        return settings.learning_rate * warm * cosine(step, steps)

    def failed_batch(step: int, batch: list[tuple[int, np.ndarray]]) -> tuple[dict[str, np.ndarray], Sequence[Path]]:
        assert maps is not None
        boxes = np.concatenate([examples[picture].boxes[rows] for picture, rows in batch])
        inputs = np.stack([maps[picture] for picture, _ in batch])
        paths = [dataset[int(drawn[picture])].path for picture, _ in batch]
        return {"inputs": inputs, "boxes": boxes}, paths

    train(
        Training(
            stage="screen",
            steps=steps,
            weights=nn.ModuleDict({"screen": screen}),
            optimiser=optimiser,
            checkpoint=checkpoint,
            batches=lambda steps: read_ahead(batch_of, steps),
            loss=loss,
            learning_rate=learning_rate,
            failed_batch=failed_batch,
            failed_batch_file=folder / "screen_failed_batch.safetensors",
            remedy=f"a lower learning rate of the screen (now {settings.learning_rate})",
        ),
        report,
    )
    for file in folder.glob("screen_maps_*"):
        file.unlink()
    seen = {label for one in examples for label in one.labels.tolist()}
    screen.class_names = tuple(one.name if label in seen else None for label, one in enumerate(categories, 1))
    return screen.to("cpu").eval()


def screen_examples(sample: Sample, proposals: Proposals, categories: Sequence[Category], size: int) -> ScreenExamples:
    """The regions of a picture with what they show.

    Regions of objects that are marked difficult are left out. If some classes are not annotated in the picture, regions
    far from all boxes are left out too, because they may show an object that nobody marked.

    Args:
        sample: the picture's objects; the picture's size is read from its file.
        proposals: the regions.
        categories: the classes that the screen knows; objects of other classes count as background.
        size: side of the trunk's input in pixels.
    """
    width, height = read_size(sample.path)
    columns = {category.id: column for column, category in enumerate(categories, 1)}
    labels, _, overlaps = label_windows(proposals.boxes, sample)
    usable = labels != IGNORED
    if sample.annotated is not None:
        usable &= overlaps >= NEAR_IOU
    scale = size / np.array([width, height, width, height], np.float32)
    return ScreenExamples(
        proposals.boxes[usable] * scale,
        np.array([columns.get(label, 0) for label in labels[usable].tolist()], np.int64),
        overlaps[usable].astype(np.float32),
    )


def _pictures_of(step: int, pictures: int, settings: ScreenSettings) -> list[int]:
    """The pictures of a step: all pictures are used once, in random order, before any is used again."""
    places = range(step * settings.batch, (step + 1) * settings.batch)
    return [_shuffled(pictures, place // pictures, settings.seed)[place % pictures] for place in places]


def _shuffled(pictures: int, turn: int, seed: int) -> list[int]:
    return np.random.default_rng([seed, 17, turn]).permutation(pictures).tolist()


def _regions_of(examples: ScreenExamples, picture: int, step: int, settings: ScreenSettings) -> np.ndarray:
    """The rows of a picture's regions that a step trains on, int64 [n]."""
    rng = np.random.default_rng([settings.seed, 18, step, picture])
    positive = examples.labels > 0
    near = ~positive & (examples.overlaps >= NEAR_IOU)
    groups = ((positive, settings.positives), (near, settings.near), (~positive & ~near, settings.far))
    return np.concatenate([rng.permutation(np.flatnonzero(group))[:most] for group, most in groups])


def _whole_pictures(dataset: Dataset, drawn: np.ndarray, size: int, first: int) -> Iterator[tuple[int, np.ndarray]]:
    """From picture number `first` on: the number of each picture, and the picture stretched to the trunk's input."""
    for number in range(first, len(drawn)):
        image = read_image(dataset[int(drawn[number])].path)
        whole = np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32)
        yield number, warp_regions(image, whole, size=size, padding=0)


def _map_shapes(multibox: MultiBox) -> tuple[tuple[int, ...], tuple[int, ...]]:
    with torch.inference_mode():
        fine, coarse = multibox.trunk_maps(torch.zeros(1, 3, multibox.sizes[0], multibox.sizes[0]))
    return tuple(fine.shape[1:]), tuple(coarse.shape[1:])


def screen_key(
    multibox: MultiBox,
    dataset: Dataset,
    drawn: np.ndarray,
    examples: Sequence[ScreenExamples],
    start: Screen | None,
) -> str:
    """The key of everything that the feature maps and the training depend on, besides the settings.

    Args:
        multibox, dataset, start: see `train_screen`.
        drawn: int64, the rows of the pictures in the data set.
        examples: the regions of these pictures.
    """
    return result_key(
        multibox=multibox,
        pictures=pictures_key(dataset, drawn),
        counts=[len(one.labels) for one in examples],
        boxes=np.concatenate([one.boxes for one in examples]),
        labels=np.concatenate([one.labels for one in examples]),
        overlaps=np.concatenate([one.overlaps for one in examples]),
        start=start,
    )
