"""Training GoogLeNet to classify pictures, by the recipe of "Going Deeper with Convolutions", section 6.

The paper trained with DistBelief's asynchronous SGD. Here all processes of a `torchrun` do each step together: each
process computes the gradients of an equal share of the batch, and the processes average them. The result is the same
as with a single process, except with batch norm (which the paper's network does not have), because each process
normalises by the statistics of its own share.

The pictures, crops, distortions and dropout of a step are functions of the seed, the step and the place in the batch.
Neither an interruption nor the number of processes changes the result.
"""

import copy
import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
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
from ..engines.choice import resolve_device
from ..networks.googlenet import GoogLeNet
from .checkpoint import Checkpoint
from .errors import TrainingError
from .loop import Training, mixed_precision, moving_average, seed_dropout, train
from .progress import Report, no_report


@dataclass(frozen=True)
class PretrainSettings:
    """The recipe. "Ours" marks values that the paper does not give.

    Attributes:
        epochs: number of times that each picture is shown (ours).
        batch: pictures in a batch, over all processes (ours).
        learning_rate: of the first epochs (ours, as in BVLC's training); "decreasing the learning rate by 4% every 8
            epochs".
        momentum: "asynchronous stochastic gradient descent with 0.9 momentum".
        weight_decay: ours, as in BVLC's training.
        auxiliary: "the losses of the auxiliary classifiers were weighted by 0.3", section 5.
        averaging: "Polyak averaging was used to create the final model": the share of the average that a step keeps
            (ours); the first steps keep less, see `moving_average`.
        seed: of all random choices.
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
    report: Report = no_report,
) -> nn.Module:
    """Train `network` in place, and return the moving average of its weights, in evaluation mode.

    Under `torch.distributed` every process calls this function with the same arguments, except for its own device.

    Args:
        network: `GoogLeNet` with auxiliary heads, or another module that maps float RGB pixels [N, 3, 224, 224] in
            0..255 to logits.
        images: the training pictures.
        settings: the recipe.
        folder: for the checkpoint. If it exists, training resumes from it.
        device: "auto", "cpu", "cuda" or "cuda:N".
        workers: number of processes that read and crop pictures ahead; 0 to read them in this process.
        report: called after each step with "loss" and "learning rate".

    Raises:
        TrainingError: there are fewer pictures than a batch has, the processes cannot share a batch equally, the
            checkpoint belongs to another training, or the loss is not finite.
        ImageError: a picture cannot be read.
    """
    rank, processes = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)
    if settings.batch % processes:
        raise TrainingError(f"{processes} processes cannot share a batch of {settings.batch} equally: set --batch")
    if len(images) < settings.batch:
        raise TrainingError(f"{len(images)} pictures are fewer than a batch of {settings.batch}: set --batch lower")
    device = resolve_device(device)
    _share_dropout(network, rank, processes)
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    average = moving_average(network, settings.averaging)
    optimiser = torch.optim.SGD(
        network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    checkpoint = Checkpoint(
        folder / "checkpoint.safetensors",
        {**asdict(settings), "data": _fingerprint(images), "network": f"of {parameters:,} weights"},
    )
    model = DistributedDataParallel(network) if processes > 1 else network
    steps_per_epoch = len(images) // settings.batch
    shares = partial(_BatchShares, len(images), settings, rank, processes)
    precision = mixed_precision(device)

    def batches(steps: range) -> Generator[tuple[Tensor, Tensor], None, None]:
        crops = _Crops(images, settings.seed)
        for batch in DataLoader(crops, batch_sampler=shares(steps), num_workers=workers, collate_fn=_collate):
            if isinstance(batch, ImageError):
                raise batch
            yield batch

    def loss(step: int, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, float]]:
        crops, labels = (tensor.to(device) for tensor in batch)
        seed_dropout(settings.seed, 12, step)
        with precision:
            outputs = model(crops.permute(0, 3, 1, 2).float())
        return classification_loss(outputs, labels, settings.auxiliary), {}

    def failed_batch(step: int, batch: tuple[Tensor, Tensor]) -> tuple[dict[str, np.ndarray], list[Path]]:
        (rows,) = shares([step])
        return {"inputs": batch[0].numpy(), "labels": batch[1].numpy()}, [images.paths[picture] for _, picture in rows]

    train(
        Training(
            stage="training",
            steps=steps_per_epoch * settings.epochs,
            weights=nn.ModuleDict({"network": network, "average": average.module}),
            optimiser=optimiser,
            checkpoint=checkpoint,
            batches=batches,
            loss=loss,
            learning_rate=lambda step: learning_rate(settings, step // steps_per_epoch),
            failed_batch=failed_batch,
            failed_batch_file=folder / f"failed_batch{f'_{rank}' if processes > 1 else ''}.safetensors",
            remedy=f"a lower --learning-rate (now {settings.learning_rate})",
            average=(network, average),
            mean_loss=partial(_mean_over_processes, processes),
            saves=rank == 0,
        ),
        report,
    )
    return average.module.to("cpu").eval()


def untrained(classes: int, *, separable: bool = False, batch_norm: bool = False) -> GoogLeNet:
    """An initial network for `train_classifier`.

    Without batch norm, the initialisation of He et al. (ICCV 2015) keeps the spread of the pixels, some 64 grey levels,
    up to the classifier, and the first steps end in NaN. Here the variance of the weights is 1 / inputs as in BVLC's
    training, half of He's, so the spread shrinks from layer to layer. The weights of the first layer are smaller still.
    With both stems the loss then starts near the loss of guessing.
    """
    network = GoogLeNet(classes, stem="separable" if separable else "plain", batch_norm=batch_norm)
    if not batch_norm:
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight *= 0.5**0.5
            next(layer for layer in network.trunk.modules() if isinstance(layer, nn.Conv2d)).weight /= 8
    return network


def member_seed(seed: int, member: int) -> int:
    """The `PretrainSettings.seed` of a member, from 1, of an ensemble; the first member has `seed` itself.

    The members of the paper's ensemble were trained "with the same initialization (even with the same initial weights
    [...]) and learning rate policies. They differed only in sampling methodologies and the randomized input image
    order", section 7. With the same initial weights and this seed, the crops, the distortions, the order of the
    pictures and dropout differ.
    """
    return seed if member == 1 else int(np.random.SeedSequence([seed, 13, member]).generate_state(1)[0])


def learning_rate(settings: PretrainSettings, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0: it falls by 4 % every 8 epochs."""
    return settings.learning_rate * 0.96 ** (epoch // 8)


def classification_loss(outputs: Tensor | tuple[Tensor, ...], labels: Tensor, auxiliary: float) -> Tensor:
    """Mean cross-entropy of the logits.

    Args:
        outputs: logits [N, C], or a tuple of the logits of the network and of each auxiliary head.
        labels: int64 [N].
        auxiliary: weight of each auxiliary head's cross-entropy in the sum.
    """
    main, *others = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = nn.functional.cross_entropy(main.float(), labels)
    for other in others:
        loss = loss + auxiliary * nn.functional.cross_entropy(other.float(), labels)
    return loss


@torch.inference_mode()
def accuracy(
    network: nn.Module, images: LabelledImages, *, device: str = "auto", batch: int = 64
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on the centre crops of the pictures, in 0..1."""
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
    """Training crops: item (epoch, picture) is a crop, uint8 [224, 224, 3], and its label."""

    def __init__(self, images: LabelledImages, seed: int):
        self._images, self._seed = images, seed

    def __getitem__(self, item: tuple[int, int]) -> tuple[np.ndarray, int] | ImageError:
        epoch, picture = item
        rng = np.random.default_rng([self._seed, 11, epoch, picture])
        try:
            image = read_image(self._images.paths[picture])
        except ImageError as error:
            return error  # DataLoader would turn an error that a worker process raises into another error.
        return distort_colours(random_area_crop(image, rng), rng), int(self._images.labels[picture])


def _collate(items: list[tuple[np.ndarray, int] | ImageError]) -> Any:
    """The batch of the items, or the first error among them."""
    return next((item for item in items if isinstance(item, ImageError)), None) or default_collate(items)


class _BatchShares:
    """A process's share of each batch: a list of (epoch, picture) for each step of `steps`.

    The pictures are shuffled for each epoch. An epoch leaves out the pictures that do not fill a batch.
    """

    def __init__(self, pictures: int, settings: PretrainSettings, rank: int, processes: int, steps: Sequence[int]):
        self._pictures, self._settings, self._steps = pictures, settings, steps
        share = settings.batch // processes
        self._share = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batch = self._settings.batch
        steps_per_epoch = self._pictures // batch
        order, order_epoch = np.zeros(0, np.int64), -1
        for step in self._steps:
            epoch, place = divmod(step, steps_per_epoch)
            if epoch != order_epoch:
                order = np.random.default_rng([self._settings.seed, 10, epoch]).permutation(self._pictures)
                order_epoch = epoch
            rows = order[place * batch : (place + 1) * batch][self._share]
            yield [(epoch, int(row)) for row in rows]


class _SharedDropout(nn.Dropout):
    """Dropout that draws random numbers for the whole batch and uses the rows of its process.

    The number of processes therefore does not change which activations are dropped.
    """

    def __init__(self, p: float, rank: int, processes: int):
        super().__init__(p)
        self._rank, self._processes = rank, processes

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        drawn = torch.rand(self._processes, *x.shape, device=x.device)[self._rank]
        return x * (drawn >= self.p).to(x.dtype) / (1 - self.p)


def _share_dropout(network: nn.Module, rank: int, processes: int) -> None:
    """Replace the dropout layers of `network` by `_SharedDropout`."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, _SharedDropout(child.p, rank, processes))


def _mean_over_processes(processes: int, loss: Tensor) -> float:
    mean = loss.detach().clone()
    if processes > 1:
        distributed.all_reduce(mean)
    return mean.item() / processes


def _fingerprint(images: LabelledImages) -> str:
    """A digest of the classes and of the names of the pictures."""
    names = "\n".join([*images.classes, *(f"{path.parent.name}/{path.name}" for path in images.paths)])
    return hashlib.sha256(names.encode()).hexdigest()[:16]
