"""Fine-tuning a pretrained network into a region classifier (R-CNN, Girshick et al. 2014, section 2.3).

Two roads, one loop. With `freeze_below` the blocks under it are run once over a pool of windows and the blocks above
are trained on what they gave, which a CPU does in an hour; without it the whole network is trained on crops warped as
they are needed.

Every step's batch, distortions and dropout are functions of the seed and the step alone, so a run that was interrupted
and resumed gives the weights of one that was not.

The members of an ensemble start from the same weights and "only differ in sampling methodologies and the randomized
input image order" (Szegedy et al. 2015, section 7). Here they share the windows kept of each picture and, with frozen
blocks, the pool, each of its windows mirrored and distorted once, so that frozen blocks run once for all members. A
member's own seed deals windows into mini-batches and drives dropout, and without frozen blocks mirroring and
distortion.
"""

import hashlib
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...data.dataset import Dataset
from ...data.images import read_image
from ..engines.choice import computes_bfloat16, resolve_device
from ..engines.engine import CROP_SIZE
from ..model_files import RegionSettings
from ..networks.backbones import Backbone
from .checkpoint import Checkpoint
from .errors import TrainingError
from .failures import keep_batch
from .lower_features import lower_features, training_crops, window_crops
from .windows import BatchSampler, Windows, draw_pool

CHECKPOINT_EVERY = 200
_FEATURES = "lower_features_"


@dataclass(frozen=True)
class FineTuneSettings:
    """The recipe.

    Attributes:
        iterations: mini-batches.
        learning_rate: of the pretrained layers at the start; it falls to 0 along a cosine.
        classifier_factor: the new classifier learns this much faster, since it starts from nothing.
        momentum, weight_decay: of SGD; as R-CNN's.
        positives, backgrounds: windows of a mini-batch.
        freeze_below: name of the lowest block that is trained ("inception_4e"); "classifier" trains the last layer
            alone, on pooled features; None trains all.
        pool: windows whose lower features are kept on disk when blocks are frozen (0.2 MB each below inception_4e, 2 KB
            below the classifier).
        seed: of every random choice.
    """

    iterations: int = 3000
    learning_rate: float = 0.002
    classifier_factor: float = 5.0
    momentum: float = 0.9
    weight_decay: float = 0.0005
    positives: int = 32
    backgrounds: int = 96
    freeze_below: str | None = "inception_4e"
    pool: int = 72_000
    seed: int = 0


def fine_tune(
    network: Backbone,
    dataset: Dataset,
    windows: Windows,
    regions: RegionSettings,
    settings: FineTuneSettings,
    folder: Path,
    *,
    member: int = 1,
    device: str = "auto",
    report_features: Callable[[int, int], None] = lambda done, total: None,
    report_step: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train `network` in place to classify windows.

    Args:
        network: with one output a class and output 0 for background (`with_classes`); window labels index its outputs.
        dataset: the pictures that `windows` lie in.
        windows: candidates, from `collect_windows`, labels already turned to network outputs.
        regions: how windows are warped.
        folder: for the features of frozen blocks, and in `folder`/member_N the checkpoint. A checkpoint found there is
            gone on from; the features, which all members share, stay until `discard_features`.
        member: number of the network in its ensemble, from 1. Members meet windows in orders of their own.
        report_features: called with the number of windows done and in all, while frozen blocks run.
        report_step: called with the number of steps done and the last loss.

    Raises:
        TrainingError: no windows to train on, no block is called `freeze_below`, the checkpoint belongs to other data,
            weights or settings, or the loss is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = resolve_device(device)
    frozen = frozen_blocks(network, settings.freeze_below)
    if frozen:
        windows = draw_pool(windows, settings.pool, settings.seed)
    seed = _member_seed(settings.seed, member)
    sampler = BatchSampler(windows.labels, seed, settings.positives, settings.backgrounds)
    origin = _fingerprint(network, windows, regions)
    checkpoint = Checkpoint(
        folder / f"member_{member}" / "checkpoint.safetensors", {**asdict(settings), "data and weights": origin}
    )
    features_file = folder / f"{_FEATURES}{origin}_{settings.freeze_below}.npy"
    if frozen and checkpoint.step() < settings.iterations:
        features = lower_features(
            network,
            frozen,
            partial(window_crops, dataset, windows, regions, settings.seed),
            len(windows),
            features_file,
            device=device,
            report=lambda done: report_features(done, len(windows)),
        )

    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    trained = nn.Sequential(network.trunk[frozen:])
    body, head = list(trained.parameters()), list(network.classifier.parameters())
    optimiser = torch.optim.SGD(
        [{"params": body, "factor": 1.0}, {"params": head, "factor": settings.classifier_factor}],
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    learned = nn.ModuleDict({"trunk": trained, "classifier": network.classifier})
    start = checkpoint.load(learned, optimiser)

    def inputs(step: int) -> tuple[np.ndarray, np.ndarray]:
        rows = sampler(step)
        if frozen:
            return features[rows], windows.labels[rows]
        return _crops(dataset, windows[rows], regions, [[seed, 4, step, row] for row in range(len(rows))])

    network.train()
    bfloat16 = computes_bfloat16(device)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(inputs, start) if start < settings.iterations else None
        for step in range(start, settings.iterations):
            assert ahead is not None
            batch, labels = ahead.result()
            if step + 1 < settings.iterations:
                ahead = reader.submit(inputs, step + 1)
            torch.manual_seed(_step_seed(seed, step))  # dropout
            x = torch.from_numpy(batch).to(device)
            if frozen:
                x = x.float().contiguous(memory_format=torch.channels_last)
            else:
                x = network.normalise(x.permute(0, 3, 1, 2).float())
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
                logits = network.classify(trained(x))
            loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(labels).to(device))
            if not math.isfinite(loss.item()):
                kept = folder / f"member_{member}" / "failed_batch.safetensors"
                shown = windows[sampler(step)]
                pictures = [dataset[index].path for index in shown.images.tolist()]
                keep_batch(kept, {"inputs": batch, "boxes": shown.boxes, "labels": shown.labels}, pictures)
                raise TrainingError(
                    f"the loss is {loss.item()} at step {step + 1}: begin anew in another --out with a lower "
                    f"--learning-rate (now {settings.learning_rate}); the mini-batch is in {kept}"
                )
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * _learning_rate(settings, step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if checkpoint.due(step + 1, CHECKPOINT_EVERY) or step + 1 == settings.iterations:
                checkpoint.save(learned, optimiser, step + 1)
            report_step(step + 1, loss.item())
    network.to("cpu").eval()


def frozen_blocks(network: Backbone, freeze_below: str | None) -> int:
    """How many of the lowest blocks of `network` are frozen.

    Raises:
        TrainingError: no block is called `freeze_below`.
    """
    names = [*(name for name, _ in network.trunk.named_children()), "classifier"]
    if freeze_below is not None and freeze_below not in names:
        raise TrainingError(f"no block is called {freeze_below!r}; the network has {', '.join(names)}")
    return 0 if freeze_below is None else names.index(freeze_below)


def discard_features(folder: Path) -> None:
    """Delete what frozen blocks gave: gigabytes that only `fine_tune` needs, which would make them again."""
    for file in folder.glob(f"{_FEATURES}*"):
        file.unlink()


def _member_seed(seed: int, member: int) -> int:
    """The seed of a member's sampling, order, distortions and dropout; the first member's is the training's own."""
    return seed if member == 1 else int(np.random.SeedSequence([seed, 8, member]).generate_state(1)[0])


def _fingerprint(network: nn.Module, windows: Windows, regions: RegionSettings) -> str:
    """Of all that lower features and training start from, the settings apart."""
    digest = hashlib.sha256(json.dumps([regions.warp_mode, regions.padding]).encode())  # the windows tell the rest
    for array in (windows.images, windows.boxes, windows.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, value in network.state_dict().items():
        if not name.startswith("classifier."):  # new, and a function of the seed
            digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _learning_rate(settings: FineTuneSettings, step: int) -> float:
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * step / settings.iterations))


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, 5, step]).generate_state(1)[0])


def _crops(
    dataset: Dataset, windows: Windows, regions: RegionSettings, seeds: list[list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Crops uint8 [N, 224, 224, 3] and labels [N] of a mini-batch; each picture is decoded once."""
    crops = np.empty((len(windows), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for picture in np.unique(windows.images):
        rows = np.flatnonzero(windows.images == picture)
        image = read_image(dataset[int(picture)].path)
        crops[rows] = training_crops(image, windows.boxes[rows], regions, [seeds[row] for row in rows])
    return crops, windows.labels
