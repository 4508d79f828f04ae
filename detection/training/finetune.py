"""Fine-tuning a pretrained network into a region classifier (R-CNN, Girshick et al. 2014, section 2.3).

Two roads, one loop. With `freeze_below` the blocks under it are run once over a pool of windows and the blocks above
are trained on what they gave, which a CPU does in an hour; without it the whole network is trained on crops warped as
they are needed.

Every step's batch, distortions and dropout are functions of the seed and the step alone, so a run that was interrupted
and resumed gives the weights of one that was not.
"""

import hashlib
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...data.dataset import Dataset
from ...data.images import read_image
from ..backbones import Backbone
from ..engine import CROP_SIZE, computes_bfloat16, resolve_device
from ..model_files import RegionSettings
from .lower_features import lower_features, training_crops
from .windows import BatchSampler, TrainingError, Windows, draw_pool

CHECKPOINT_EVERY = 200


@dataclass(frozen=True)
class FineTuneSettings:
    """The recipe.

    Attributes:
        iterations: mini-batches.
        learning_rate: of the pretrained layers at the start; it falls to 0 along a cosine.
        classifier_factor: the new classifier learns this much faster, since it starts from nothing.
        momentum, weight_decay: of SGD; as R-CNN's.
        positives, backgrounds: windows of a mini-batch.
        freeze_below: name of the lowest block that is trained ("inception_4e"); None trains all.
        pool: windows whose lower features are kept on disk when blocks are frozen (0.2 MB each below inception_4e).
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
        folder: for the checkpoint and the features of frozen blocks. A checkpoint found there is gone on from; the
            features, which are large, are deleted when the last step is done.
        report_features: called with the number of windows done and in all, while frozen blocks run.
        report_step: called with the number of steps done and the last loss.

    Raises:
        TrainingError: no windows to train on, no block is called `freeze_below`, the checkpoint belongs to other data,
            weights or settings, or the loss is not a number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = resolve_device(device)
    names = [name for name, _ in network.trunk.named_children()]
    if settings.freeze_below is not None and settings.freeze_below not in names:
        raise TrainingError(f"no block is called {settings.freeze_below!r}; the network has {', '.join(names)}")
    frozen = 0 if settings.freeze_below is None else names.index(settings.freeze_below)
    if frozen:
        windows = draw_pool(windows, settings.pool, settings.seed)
    sampler = BatchSampler(windows.labels, settings.seed, settings.positives, settings.backgrounds)
    origin = _fingerprint(network, windows, regions)
    checkpoint = _Checkpoint(folder / "checkpoint.safetensors", {**asdict(settings), "data and weights": origin})
    features_file = folder / f"lower_features_{origin}.npy"
    if frozen and checkpoint.step() < settings.iterations:
        features = lower_features(
            network,
            frozen,
            dataset,
            windows,
            regions,
            features_file,
            seed=settings.seed,
            device=device,
            report=lambda done: report_features(done, len(windows)),
        )

    trained = nn.Sequential(network.trunk[frozen:]).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.classifier.to(device)
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
        return _crops(dataset, windows[rows], regions, [[settings.seed, 4, step, row] for row in range(len(rows))])

    network.train()
    bfloat16 = computes_bfloat16(device)
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(inputs, start) if start < settings.iterations else None
        for step in range(start, settings.iterations):
            assert ahead is not None
            batch, labels = ahead.result()
            if step + 1 < settings.iterations:
                ahead = reader.submit(inputs, step + 1)
            torch.manual_seed(_step_seed(settings.seed, step))  # dropout
            x = torch.from_numpy(batch).to(device)
            if frozen:
                x = x.float().contiguous(memory_format=torch.channels_last)
            else:
                x = network.normalise(x.permute(0, 3, 1, 2).float())
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
                logits = network.classify(trained(x))
            loss = nn.functional.cross_entropy(logits.float(), torch.from_numpy(labels).to(device))
            if not math.isfinite(loss.item()):
                raise TrainingError(
                    f"the loss is {loss.item()} at step {step + 1}: "
                    f"lower --learning-rate (now {settings.learning_rate})"
                )
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * _learning_rate(settings, step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == settings.iterations:
                checkpoint.save(learned, optimiser, step + 1)
            report_step(step + 1, loss.item())
    network.to("cpu").eval()
    for file in (features_file, features_file.with_suffix(".progress.json")):
        file.unlink(missing_ok=True)


def _fingerprint(network: nn.Module, windows: Windows, regions: RegionSettings) -> str:
    """Of all that lower features and training start from, the settings apart."""
    digest = hashlib.sha256(json.dumps(asdict(regions), sort_keys=True).encode())
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


class _Checkpoint:
    """Trained weights and momenta after some step, in one safetensors file that is replaced atomically.

    Args:
        file: where it is kept.
        identity: what the run is; a checkpoint of another run is refused, naming what differs.
    """

    def __init__(self, file: Path, identity: dict[str, Any]):
        self._file = file
        self._identity = identity

    def step(self) -> int:
        """The number of steps done; 0 where there is no checkpoint."""
        if not self._file.exists():
            return 0
        try:
            with safe_open(self._file, framework="pt") as file:
                metadata = file.metadata()
            before, step = json.loads(metadata["run"]), int(metadata["step"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{self._file}: not a checkpoint ({error}); delete it to start anew") from error
        changed = [name for name, value in self._identity.items() if before.get(name) != value]
        if changed:
            difference = ", ".join(f"{name} was {before.get(name)}, is {self._identity[name]}" for name in changed)
            raise TrainingError(
                f"{self._file} belongs to another training ({difference}): use the same data and settings, "
                "another --out folder, or delete the checkpoint to start anew"
            )
        return step

    def load(self, learned: nn.Module, optimiser: torch.optim.SGD) -> int:
        """Restore weights and momenta, if there is a checkpoint, and return the number of steps done."""
        step = self.step()
        if step:
            tensors = load_file(self._file)
            learned.load_state_dict({name: tensors[f"weight.{name}"] for name in learned.state_dict()})
            for name, parameter in learned.named_parameters():
                momentum = tensors[f"momentum.{name}"].to(parameter.device)
                optimiser.state[parameter]["momentum_buffer"] = momentum
        return step

    def save(self, learned: nn.Module, optimiser: torch.optim.SGD, step: int) -> None:
        """Replace the checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, value in learned.state_dict().items():
            tensors[f"weight.{name}"] = value.cpu().contiguous()
        for name, parameter in learned.named_parameters():
            tensors[f"momentum.{name}"] = optimiser.state[parameter]["momentum_buffer"].cpu().contiguous()
        temporary = self._file.with_suffix(".partial")
        save_file(tensors, temporary, {"step": str(step), "run": json.dumps(self._identity)})
        temporary.replace(self._file)
