"""Training a MultiBox network (Erhan et al., CVPR 2014; Szegedy et al., "Scalable, high-quality object detection").

As in `finetune`, the blocks of the trunk under `freeze_below` are run once over the views, which are drawn beforehand,
and the rest is trained on what they gave; without frozen blocks views are rendered as they are needed. The network that
is kept is the Polyak average of the weights (Polyak & Juditsky, 1992; Going Deeper with Convolutions, section 6).

Every step's batch is a function of the seed and the step alone: a run that was interrupted and resumed gives the
weights of one that was not.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...data.dataset import Dataset
from ...data.images import read_image
from ...proposals.multibox import MultiBox, PriorGrid, cluster_shapes, multibox_loss
from ...proposals.recall import measure, recall
from ..engines.choice import computes_bfloat16, resolve_device
from ..engines.multibox import MultiBoxEngine
from ..model_files import Model, load_model, save_model
from ..networks.backbones import Backbone, headless
from .cascade import fit_cascade
from .checkpoint import Checkpoint
from .dataset_checks import check_dataset
from .errors import TrainingError
from .failures import keep_batch
from .initial_network import initial_network
from .lower_features import LowerBlocks, check_room, lower_features
from .view_batches import ViewBatches
from .views import View, all_views, rendered_views

CHECKPOINT_EVERY = 200
WARM_UP = 100
# Priors for boxes of these sides (square root of the area, in input pixels): below the first on the fine map with two
# places along each side of a cell, up to the second on the fine map, above on the coarse one.
CLOSE_BELOW, FINE_BELOW = 45, 130
# Boxes smaller than this in a view take no part in clustering: no prior would find them.
_SMALLEST = 4

# Stage, units done, units in all, figures by name.
Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class MultiBoxSettings:
    """The recipe.

    Attributes:
        iterations: mini-batches.
        batch: views of each.
        learning_rate: of the heads, which are new; after a short warm-up it falls to 0 along a cosine.
        trunk_factor: the pretrained trunk learns this much slower.
        weight_decay: of AdamW.
        average_decay: of the exponential average of the weights, which is what is kept.
        alpha: weight of the location loss.
        freeze_below: name of the lowest block that is trained ("inception_4e"); None trains all.
        views: of each picture, on disk when blocks are frozen (0.8 MB each below inception_4e).
        size: side of the network's input in pixels, a multiple of 32.
        shapes: priors' shapes.
        seed: of every random choice.
    """

    iterations: int = 2000
    batch: int = 24
    learning_rate: float = 3e-4
    trunk_factor: float = 0.3
    weight_decay: float = 1e-4
    average_decay: float = 0.998
    alpha: float = 1.0
    freeze_below: str | None = "inception_4e"
    views: int = 5
    size: int = 448
    shapes: int = 20
    seed: int = 0


def train_multibox(
    backbone: Backbone,
    dataset: Dataset,
    settings: MultiBoxSettings,
    folder: Path,
    *,
    validation: Dataset | None = None,
    device: str = "auto",
    report: Report = lambda stage, done, total, figures: None,
) -> MultiBox:
    """Train a MultiBox network on a data set.

    Args:
        backbone: the trunk to start from; its classifier is taken off, and it is trained in place.
        dataset: the pictures.
        folder: for the checkpoint and the features of frozen blocks. A checkpoint found there is gone on from; the
            features, which are large, are deleted when the last step is done.
        validation: pictures on which recall is measured after each epoch (every picture of `dataset` met once).
        report: called as the work goes on: with "loss", its terms and "learning rate" after each step, with "recall"
            (the share of the objects of `validation` that 200 boxes cover at IoU 0.5) after an epoch.

    Returns:
        The network of averaged weights, in evaluation mode, on the CPU.

    Raises:
        TrainingError: no pictures or no objects, no block is called `freeze_below`, the checkpoint belongs to other
            data, weights or settings, or the loss is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = resolve_device(device)
    frozen = _frozen_rows(backbone, settings.freeze_below)
    views = all_views(dataset, settings.views, settings.size, settings.seed)
    torch.manual_seed(settings.seed)
    network = MultiBox(headless(backbone), prior_grids(views, settings.shapes, settings.seed), sizes=(settings.size,))
    average = copy.deepcopy(network)
    origin = _fingerprint(backbone, views)
    checkpoint = Checkpoint(
        folder / "multibox_checkpoint.safetensors", {**asdict(settings), "data and weights": origin}
    )
    features_file = folder / f"multibox_features_{origin}_{settings.freeze_below}.npy"
    features: np.ndarray | None = None
    if frozen and checkpoint.step() < settings.iterations:
        features = lower_features(
            backbone,
            frozen,
            partial(rendered_views, dataset, views, settings.views, settings.size, settings.seed),
            len(views),
            features_file,
            size=settings.size,
            device=device,
            report=lambda done: report("frozen blocks", done, len(views), {}),
        )

    backbone.trunk[:frozen].requires_grad_(False)
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average.to(device).eval()
    pretrained = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    known = {id(parameter) for parameter in backbone.parameters()}
    heads = [parameter for parameter in network.parameters() if id(parameter) not in known]
    optimiser = torch.optim.AdamW(
        [{"params": pretrained, "factor": settings.trunk_factor}, {"params": heads, "factor": 1.0}],
        weight_decay=settings.weight_decay,
    )
    learned = nn.ModuleDict({"network": network, "average": average})
    start = checkpoint.load(learned, optimiser)
    batches = ViewBatches(
        dataset,
        views,
        features,
        network.priors(settings.size),
        size=settings.size,
        batch=settings.batch,
        seed=settings.seed,
    )

    network.train()
    bfloat16 = computes_bfloat16(device)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(batches, start) if start < settings.iterations else None
        for step in range(start, settings.iterations):
            assert ahead is not None
            batch, assignment, offsets = (part.to(device) for part in ahead.result())
            if step + 1 < settings.iterations:
                ahead = reader.submit(batches, step + 1)
            x = batch.float() if frozen else backbone.normalise(batch.permute(0, 3, 1, 2).float())
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
                predictions = network.from_row(x.contiguous(memory_format=torch.channels_last), frozen)
            loss, terms = multibox_loss(predictions.float(), assignment, offsets, settings.alpha)
            if not math.isfinite(loss.item()):
                kept = folder / "multibox_failed_batch.safetensors"
                shown = {"inputs": batch, "assignment": assignment, "offsets": offsets}
                keep_batch(kept, {name: one.cpu().numpy() for name, one in shown.items()}, batches.pictures(step))
                raise TrainingError(
                    f"the loss of MultiBox is {loss.item()} at step {step + 1}: begin anew in another --out with a "
                    f"lower learning rate (now {settings.learning_rate}; detect-train-multibox has --learning-rate); "
                    f"the mini-batch is in {kept}"
                )
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * _learning_rate(settings, step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            _average(average, network, min(settings.average_decay, (1 + step) / (10 + step)))
            figures = {"loss": loss.item(), "confidence": terms[0].item(), "location": terms[1].item()}
            report(
                "training", step + 1, settings.iterations, {**figures, "learning rate": _learning_rate(settings, step)}
            )
            last = step + 1 == settings.iterations
            if checkpoint.due(step + 1, CHECKPOINT_EVERY) or last:
                checkpoint.save(learned, optimiser, step + 1)
            epoch, before = ((s * settings.batch) // len(dataset) for s in (step + 1, step))
            if validation is not None and (epoch > before or last):
                found = recall_at_half(average, validation, device)
                report("training", step + 1, settings.iterations, {"recall": found})
    for file in folder.glob("multibox_features_*"):
        file.unlink()
    return average.to("cpu")


def check_multibox(backbone: Backbone, settings: MultiBoxSettings, dataset: Dataset, folder: Path) -> None:
    """Refuse a training that will not come to its end, before anything else is trained.

    Raises:
        TrainingError: too few different objects, features of frozen blocks do not fit on the disk of `folder`, or no
            block is called `freeze_below`.
    """
    _sides(all_views(dataset, settings.views, settings.size, settings.seed), settings.shapes)
    frozen = _frozen_rows(backbone, settings.freeze_below)
    if frozen:
        with torch.inference_mode():
            features = LowerBlocks(copy.deepcopy(backbone), frozen).eval()(
                torch.zeros(1, 3, settings.size, settings.size)
            )
        check_room(folder, settings.views * len(dataset) * features.numel() * 2)


def add_multibox(
    model: str,
    dataset: Dataset,
    out: str | Path,
    *,
    init: str | None = None,
    settings: MultiBoxSettings | None = None,
    validation: Dataset | None = None,
    device: str = "auto",
    warn: Callable[[str], None] = lambda warning: None,
    report: Report = lambda stage, done, total, figures: None,
) -> Model:
    """Train a MultiBox network for a detector, and write both to the model folder `out`.

    The members are stored as `save_model` does, in 8 bits. An ensemble's cascade is fitted anew, since its first member
    meets other regions now. Figures on how good the detector is, which its card may have, are left out: they are those
    of another.

    Called again with the same arguments after an interruption it goes on where it was. Checkpoint and, while it runs,
    features of frozen blocks lie in `out`/training, which can be deleted afterwards.

    Args:
        model: a model folder or a shipped model's name.
        init: what the trunk starts from, see `initial_network`; None for the first member of `model`.
        settings: the recipe; None for the defaults.
        dataset, validation, device, report: as for `train_multibox`. Boxes are cut off at the picture's border.
        warn: called with a sentence on what is amiss in the data set, see `check_dataset`.

    Raises:
        TrainingError, AnnotationError, ImageError, ModelError: see `train_multibox`; a file cannot be used.
    """
    settings = settings or MultiBoxSettings()
    detector = load_model(model)
    torch.manual_seed(settings.seed)
    backbone = copy.deepcopy(detector.members[0]) if init is None else initial_network(init)
    folder = Path(out) / "training"
    dataset, _ = check_dataset(dataset, warn=warn, learns_classes=False)
    network = train_multibox(backbone, dataset, settings, folder, validation=validation, device=device, report=report)
    card = {
        "data": dataset.name,
        "pictures": len(dataset),
        "init": Path(model if init is None else init).name,
        "settings": asdict(settings),
    }
    known = {name: value for name, value in detector.card.items() if name != "evaluation"}
    trained = replace(detector, multibox=network, card={**known, "multibox": card})
    if trained.cascade is not None:  # it meets other regions now
        trained.cascade = fit_cascade(
            trained,
            dataset,
            folder,
            seed=settings.seed,
            device=device,
            report=lambda done, total: report("cascade", done, total, {}),
        )
    save_model(trained, out)
    return trained


def _frozen_rows(backbone: Backbone, freeze_below: str | None) -> int:
    names = [name for name, _ in backbone.trunk.named_children()]
    possible = names[: names.index("inception_4e") + 1]
    if freeze_below is None:
        return 0
    if freeze_below not in possible:
        raise TrainingError(
            f"cannot freeze below {freeze_below!r}: expected a block up to inception_4e, on which the heads stand "
            f"({', '.join(possible)})"
        )
    return names.index(freeze_below)


def prior_grids(views: Sequence[View], shapes: int, seed: int) -> list[PriorGrid]:
    """Priors clustered from the objects of the views, each on the map that suits its size.

    Raises:
        TrainingError: fewer different boxes than shapes.
    """
    clustered = np.round(cluster_shapes(_sides(views, shapes), shapes, seed))
    scale = np.sqrt(clustered.prod(axis=1))
    chosen = (scale < CLOSE_BELOW, (scale >= CLOSE_BELOW) & (scale < FINE_BELOW), scale >= FINE_BELOW)
    return [
        PriorGrid(stride, division, tuple((float(w), float(h)) for w, h in clustered[of_grid]))
        for (stride, division), of_grid in zip(((16, 2), (16, 1), (32, 1)), chosen, strict=True)
        if of_grid.any()
    ]


def _sides(views: Sequence[View], shapes: int) -> np.ndarray:
    """Widths and heights [N, 2] of the objects that the views show."""
    sides = np.concatenate([view.boxes[:, 2:] - view.boxes[:, :2] for view in views] or [np.zeros((0, 2), np.float32)])
    sides = sides[(sides >= _SMALLEST).all(axis=1)]
    if len(np.unique(sides, axis=0)) < shapes:
        raise TrainingError(
            f"{len(views)} views show {len(np.unique(sides, axis=0))} different sizes of objects, fewer than the "
            f"{shapes} shapes of priors: train on more pictures"
        )
    return sides


def recall_at_half(network: MultiBox, dataset: Dataset, device: str = "auto") -> float:
    """The share of the objects of `dataset` that the best 200 boxes of their picture cover at IoU 0.5."""
    engine = MultiBoxEngine(network, device=device)
    coverage = measure(dataset, lambda sample: engine(read_image(sample.path)), counts=(200,))
    return float(recall(coverage.closest[-1], [0.5])[0])


def _average(average: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(average.parameters(), network.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)
        # of batch norm, averages themselves
        for statistic, latest in zip(average.buffers(), network.buffers(), strict=True):
            statistic.copy_(latest)


def _learning_rate(settings: MultiBoxSettings, step: int) -> float:
    warm = min(1.0, (step + 1) / WARM_UP)
    return settings.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / settings.iterations))


def _fingerprint(backbone: nn.Module, views: list[View]) -> str:
    """Of all that lower features and training start from, the settings apart."""
    digest = hashlib.sha256()
    for view in views:
        for array in (view.window, np.array(view.mirrored), view.boxes, view.ignored):
            digest.update(np.ascontiguousarray(array).tobytes())
    for value in backbone.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
