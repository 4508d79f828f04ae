"""Training GoogLeNet to classify pictures, by the recipe of "Going Deeper with Convolutions", section 6.

The paper trained with DistBelief's asynchronous SGD; here all processes of a `torchrun` take each step together, on
equal shares of one mini-batch, and average their gradients: the result is that of one process. (Batch norm, which the
paper's network does not have, is the exception: each process normalises by its own share.)

Every step's pictures, crops, distortions and dropout are functions of the seed, the step and the place in the
mini-batch, so neither an interruption nor the number of processes changes what is learned.
"""

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, default_collate

from ...data.augment import centre_crop, distort_colours, random_area_crop
from ...data.image_folders import LabelledImages
from ...data.images import ImageError, read_image
from ..engines.choice import computes_bfloat16, resolve_device
from ..networks.googlenet import GoogLeNet
from .checkpoint import Checkpoint
from .errors import TrainingError
from .failures import keep_batch

CHECKPOINT_EVERY = 500


@dataclass(frozen=True)
class PretrainSettings:
    """The recipe; what the paper does not say is marked so.

    Attributes:
        epochs: times that every picture is seen (ours).
        batch: pictures of a mini-batch, over all processes (ours).
        learning_rate: at the start (ours, as BVLC's); "decreasing the learning rate by 4% every 8 epochs".
        momentum: "asynchronous stochastic gradient descent with 0.9 momentum".
        weight_decay: ours, as BVLC's.
        auxiliary: "the losses of the auxiliary classifiers were weighted by 0.3", section 5.
        averaging: "Polyak averaging was used to create the final model": how much of the average a step leaves as it
            is (ours); less during the first steps, so that the average does not remember where it began.
        seed: of every random choice.
    """

    epochs: int = 60
    batch: int = 256
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0002
    auxiliary: float = 0.3
    averaging: float = 0.9999
    seed: int = 0


def train_classifier(
    network: nn.Module,
    images: LabelledImages,
    settings: PretrainSettings,
    folder: Path,
    *,
    device: str = "auto",
    workers: int = 0,
    report: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> nn.Module:
    """Train `network` in place and return the average of its weights over the steps, in evaluation mode.

    Under `torch.distributed` every process calls this with the same arguments, but for its own device.

    Args:
        network: `GoogLeNet` with auxiliary heads, or any module that takes what `normalise` makes of pixels and returns
            logits.
        images: the pictures.
        folder: for the checkpoint, which is gone on from if it is there.
        workers: processes that read and crop pictures ahead; 0 for none.
        report: called with the number of steps done and in all, and the loss.

    Raises:
        TrainingError: fewer pictures than a mini-batch, a mini-batch that the processes cannot share equally, a
            checkpoint of another training, or a loss that is no number.
        ImageError: a picture that cannot be read.
    """
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    if settings.batch % processes:
        raise TrainingError(f"{processes} processes cannot share a mini-batch of {settings.batch} equally: set --batch")
    if len(images) < settings.batch:
        raise TrainingError(f"{len(images)} pictures are less than a mini-batch of {settings.batch}: set --batch lower")
    device = resolve_device(device)
    _draw_dropout_for_all(network, rank, processes)
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.SGD(
        network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    weights = sum(parameter.numel() for parameter in network.parameters())
    checkpoint = Checkpoint(
        folder / "checkpoint.safetensors",
        {**asdict(settings), "data": _fingerprint(images), "network": f"of {weights:,} weights"},
    )
    learned = nn.ModuleDict({"network": network, "average": average})
    start = checkpoint.load(learned, optimiser)
    model = DistributedDataParallel(network) if processes > 1 else network

    steps_per_epoch = len(images) // settings.batch
    total = steps_per_epoch * settings.epochs
    bfloat16 = computes_bfloat16(device)
    batches = _Batches(len(images), settings, start, total, rank, processes)
    loader = DataLoader(_Crops(images, settings.seed), batch_sampler=batches, num_workers=workers, collate_fn=_collate)
    for step, shown_or_error in enumerate(loader, start):
        if isinstance(shown_or_error, ImageError):
            raise shown_or_error
        crops, labels = shown_or_error
        torch.manual_seed(int(np.random.SeedSequence([settings.seed, 12, step]).generate_state(1)[0]))  # dropout
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step // steps_per_epoch)
        x = crops.to(device).permute(0, 3, 1, 2).float()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bfloat16):
            outputs = model(x)
        loss = classification_loss(outputs, labels.to(device), settings.auxiliary)
        shown = loss.detach().clone()
        if processes > 1:
            distributed.all_reduce(shown)
        mean_loss = shown.item() / processes
        if not math.isfinite(mean_loss):
            kept = folder / f"failed_batch{f'_{rank}' if processes > 1 else ''}.safetensors"
            shown_pictures = [images.paths[picture] for _, picture in batches.at(step)]
            keep_batch(kept, {"inputs": crops.numpy(), "labels": labels.numpy()}, shown_pictures)
            raise TrainingError(
                f"the loss is {mean_loss} at step {step + 1}: begin anew in another --out with a lower --learning-rate "
                f"(now {settings.learning_rate}); the mini-batch is in {kept}"
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        _update_average(average, network, min(settings.averaging, (1 + step) / (10 + step)))
        if rank == 0 and (checkpoint.due(step + 1, CHECKPOINT_EVERY) or step + 1 == total):
            checkpoint.save(learned, optimiser, step + 1)
        report(step + 1, total, mean_loss)
    return average.to("cpu").eval()


def untrained(classes: int, *, separable: bool = False, batch_norm: bool = False) -> GoogLeNet:
    """A network to train from nothing.

    Without batch norm, weights that keep the spread of what comes in (He et al., ICCV 2015) carry that of pixels, some
    64 grey levels, up to the classifier, and the first steps end in NaN. BVLC's variance of 1 / inputs, half of it,
    lets it shrink from layer to layer; the first layer's is smaller still, with which either stem begins near the loss
    of guessing.
    """
    network = GoogLeNet(classes, stem="separable" if separable else "plain", batch_norm=batch_norm)
    if not batch_norm:
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight *= 0.5**0.5
            next(layer for layer in network.trunk.modules() if isinstance(layer, nn.Conv2d)).weight /= 8
    return network


def learning_rate(settings: PretrainSettings, epoch: int) -> float:
    """That of an epoch, from 0: 4 % less every 8 epochs."""
    return settings.learning_rate * 0.96 ** (epoch // 8)


def classification_loss(outputs: Tensor | tuple[Tensor, ...], labels: Tensor, auxiliary: float) -> Tensor:
    """Mean cross-entropy of logits [N, C], plus that of the auxiliary heads, where there are, times `auxiliary`."""
    main, *others = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = nn.functional.cross_entropy(main.float(), labels)
    for other in others:
        loss = loss + auxiliary * nn.functional.cross_entropy(other.float(), labels)
    return loss


@torch.inference_mode()
def accuracy(
    network: nn.Module, images: LabelledImages, *, device: str = "auto", batch: int = 64
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on one centre crop of each picture, in 0..1."""
    device = resolve_device(device)
    network = copy.deepcopy(network).to(device).eval()
    hits = np.zeros(2)
    for start in range(0, len(images), batch):
        crops = np.stack([centre_crop(read_image(path)) for path in images.paths[start : start + batch]])
        logits = network(torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float())
        best = logits.topk(min(5, logits.shape[1])).indices.cpu().numpy() == images.labels[start : start + batch, None]
        hits += best[:, 0].sum(), best.sum()
    return float(hits[0]) / len(images), float(hits[1]) / len(images)


class _Crops(Dataset):
    """Training crops: item (epoch, picture) -> uint8 [224, 224, 3] and label."""

    def __init__(self, images: LabelledImages, seed: int):
        self._images, self._seed = images, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[np.ndarray, int] | ImageError:
        epoch, picture = item
        rng = np.random.default_rng([self._seed, 11, epoch, picture])
        try:
            image = read_image(self._images.paths[picture])
        except ImageError as error:  # raised in a worker process, it would arrive as another error
            return error
        return distort_colours(random_area_crop(image, rng), rng), int(self._images.labels[picture])


def _collate(items: list[tuple[np.ndarray, int] | ImageError]) -> Any:
    """A mini-batch, or the error of the first picture in it that cannot be read."""
    return next((item for item in items if isinstance(item, ImageError)), None) or default_collate(items)


class _Batches:
    """This process's share of each mini-batch, as (epoch, picture), from step `start` on.

    Pictures are shuffled anew for each epoch; those that do not fill a mini-batch wait for another epoch.
    """

    def __init__(self, pictures: int, settings: PretrainSettings, start: int, total: int, rank: int, processes: int):
        self._pictures, self._settings, self._steps = pictures, settings, range(start, total)
        share = settings.batch // processes
        self._mine = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return len(self._steps)

    def at(self, step: int) -> list[tuple[int, int]]:
        """The mini-batch of a step."""
        return next(iter(self._of([step])))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self._of(self._steps)

    def _of(self, steps: Sequence[int]) -> Iterator[list[tuple[int, int]]]:
        batch = self._settings.batch
        steps_per_epoch = self._pictures // batch
        shuffled: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))
        for step in steps:
            epoch, place = divmod(step, steps_per_epoch)
            if shuffled[0] != epoch:
                order = np.random.default_rng([self._settings.seed, 10, epoch]).permutation(self._pictures)
                shuffled = epoch, order
            rows = shuffled[1][place * batch : (place + 1) * batch][self._mine]
            yield [(epoch, int(row)) for row in rows]


class _SharedDropout(nn.Dropout):
    """Dropout that draws for the whole mini-batch and takes the rows of its process: their number changes nothing."""

    def __init__(self, p: float, rank: int, processes: int):
        super().__init__(p)
        self._rank, self._processes = rank, processes

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        drawn = torch.rand(self._processes, *x.shape, device=x.device)[self._rank]
        return x * (drawn >= self.p).to(x.dtype) / (1 - self.p)


def _draw_dropout_for_all(network: nn.Module, rank: int, processes: int) -> None:
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, _SharedDropout(child.p, rank, processes))


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, keep: float) -> None:
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(current)


def _fingerprint(images: LabelledImages) -> str:
    names = "\n".join([*images.classes, *(f"{path.parent.name}/{path.name}" for path in images.paths)])
    return hashlib.sha256(names.encode()).hexdigest()[:16]
