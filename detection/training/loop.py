"""The training loop that `finetune`, `multibox` and `pretrain` share.

The batch, the distortions and the dropout of a step are functions of the seed and the step. A training that is
interrupted and resumed therefore ends with the same weights as an uninterrupted training.
"""

import json
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ...runtime.atomic_write import atomic_write
from ...runtime.prefetch import map_ahead
from ..engines.choice import computes_bfloat16
from .checkpoint import Checkpoint
from .errors import TrainingError
from .progress import Report

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class Training(Generic[Batch]):
    """What differs between the trainings.

    Attributes:
        stage: name of the training in reports ("training member 2 of 6").
        steps: number of steps; every step trains on one batch.
        weights: the modules that the checkpoint contains, under the names that their tensors have in the file.
        optimiser: a parameter group may have a "factor", by which the group's learning rate is multiplied.
        checkpoint: where the training starts from if the file exists, and where it saves its state.
        batches: yields the batches of a range of steps, in order.
        loss: computes the loss of a batch from (step, batch), and figures to report beside it.
        learning_rate: the learning rate of a step.
        failed_batch: the arrays and the pictures of a batch, from (step, batch), to save if its loss is not finite.
        failed_batch_file: where that batch is saved.
        remedy: completes the error message "start again in another --out with ...".
        average: a network and the moving average of its weights, which every step updates; None for no average.
        mean_loss: the loss as a number. A distributed training computes the mean over its processes.
        saves: whether this process writes the checkpoint.
        measure: called with the number of steps done; returns further figures to report, or none.
    """

    stage: str
    steps: int
    weights: nn.ModuleDict
    optimiser: torch.optim.Optimizer
    checkpoint: Checkpoint
    batches: Callable[[range], Generator[Batch, None, None]]
    loss: Callable[[int, Batch], tuple[Tensor, dict[str, float]]]
    learning_rate: Callable[[int], float]
    failed_batch: Callable[[int, Batch], tuple[dict[str, np.ndarray], Sequence[Path]]]
    failed_batch_file: Path
    remedy: str
    average: tuple[nn.Module, AveragedModel] | None = None
    mean_loss: Callable[[Tensor], float] = Tensor.item
    saves: bool = True
    measure: Callable[[int], dict[str, float]] = lambda done: {}


def train(training: Training, report: Report) -> None:
    """Do the steps that the checkpoint does not contain yet.

    Args:
        training: modules and the optimiser's state are changed in place.
        report: called after each step, with "loss", the figures of the loss and "learning rate".

    Raises:
        TrainingError: a loss or a weight is not finite, or the checkpoint belongs to another training.
    """
    start = training.checkpoint.load(training.weights, training.optimiser)
    if training.average is not None:
        training.average[1].n_averaged.fill_(1 + start)
    with closing(training.batches(range(start, training.steps))) as batches:
        for step, batch in enumerate(batches, start):
            loss, figures = training.loss(step, batch)
            mean_loss = training.mean_loss(loss)
            if not math.isfinite(mean_loss):
                _save_failed_batch(training.failed_batch_file, *training.failed_batch(step, batch))
                raise TrainingError(
                    f"the loss is {mean_loss} at step {step + 1}: start again in another --out with {training.remedy}; "
                    f"the batch is in {training.failed_batch_file}"
                )
            learning_rate = training.learning_rate(step)
            for group in training.optimiser.param_groups:
                group["lr"] = group.get("factor", 1.0) * learning_rate
            training.optimiser.zero_grad()
            loss.backward()
            training.optimiser.step()
            if training.average is not None:
                network, average = training.average
                average.update_parameters(network)
            done = step + 1
            if training.saves and (training.checkpoint.due(done) or done == training.steps):
                training.checkpoint.save(training.weights, training.optimiser, done)
            report(training.stage, done, training.steps, {"loss": mean_loss, **figures, "learning rate": learning_rate})
            measured = training.measure(done)
            if measured:
                report(training.stage, done, training.steps, measured)


def read_ahead(batch_of_step: Callable[[int], Batch], steps: range) -> Generator[Batch, None, None]:
    """Yield the batches of the steps. A thread makes the next batch while the caller trains on the current batch."""
    return map_ahead(batch_of_step, steps, workers=1, ahead=2)


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of `network` for the exponential moving average of its weights. Its buffers are copied, not averaged.

    An update keeps the share min(decay, (1 + step) / (10 + step)) of the average: less than `decay` during the first
    steps, so that the average soon forgets the initial weights. `train` sets the counter `n_averaged` to the number of
    weights in the average, the initial weights included.
    """

    def update(averages: Sequence[Tensor], weights: Sequence[Tensor], count: Tensor | int) -> None:
        averaged = int(count)
        kept = min(decay, averaged / (9 + averaged))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, 1 - kept)

    return AveragedModel(network, multi_avg_fn=update).requires_grad_(False)


def seed_dropout(*key: int) -> None:
    """Seed torch's random numbers, which only dropout uses during training, with a hash of `key`."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def mixed_precision(device: str) -> torch.autocast:
    """Computes in bfloat16 on a device that multiplies bfloat16 in hardware, and in float32 elsewhere."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=computes_bfloat16(device))


def cosine(step: int, steps: int) -> float:
    """The factor of the learning rate at a step: it falls from 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _save_failed_batch(file: Path, arrays: dict[str, np.ndarray], pictures: Sequence[Path]) -> None:
    """Write a batch to a safetensors file. The metadata "pictures" has the path of each row's picture, as JSON."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with atomic_write(file) as partial:
        save_file(contiguous, partial, {"pictures": json.dumps([str(path) for path in pictures])})
