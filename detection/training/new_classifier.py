"""Fitting a new classifier to the features of a network, before the network itself is trained.

The gradients of a random classifier are large and without direction, and they spoil what the network knows. With a
classifier that fits already, training starts close to a good solution (Kumar et al., "Fine-tuning can distort
pretrained features and underperform out-of-distribution", ICLR 2022).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..engines.engine import CompiledForward
from ..networks.backbones import Backbone
from .loop import cosine, seed_dropout
from .progress import Report
from .windows import BatchSampler

# The recipe: enough steps for 1,112 outputs on 38,000 windows, a minute on two cores.
STEPS = 1500
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 1e-4
DROPOUT = 0.2
# Positive windows of a batch, and as many backgrounds.
BATCH_HALF = 128
# Windows after which the progress of their features is reported.
_STEP = 512
_REPORTED_STEPS = 100


def pooled_features(
    network: Backbone, first_block: int, maps: np.ndarray, *, device: str, report: Report
) -> np.ndarray:
    """The features that the classifier of a network sees.

    Args:
        network: the network, in evaluation mode.
        first_block: number of its blocks that have run.
        maps: float16 [N, C, h, w], the output of these blocks.
        device: "cpu", "cuda" or "cuda:N".
        report: called with the stage "features" and the number of windows done.

    Returns:
        float32 [N, D].
    """
    forward = CompiledForward(_Pooled(network, first_block).eval(), device=device, maps=maps.shape[1:])
    pooled = np.empty((len(maps), network.out_channels), np.float32)
    for start in range(0, len(maps), _STEP):
        rows = slice(start, start + _STEP)
        pooled[rows] = forward(maps[rows].astype(np.float32))
        report("features", min(start + _STEP, len(maps)), len(maps), {})
    return pooled


def fit_classifier(
    classifier: nn.Linear,
    pooled: np.ndarray,
    labels: np.ndarray,
    loss: Callable[[Tensor, np.ndarray], Tensor],
    *,
    seed: int,
    report: Report,
) -> None:
    """Fit a classifier in place.

    Args:
        classifier: the last layer of a network.
        pooled: float32 [N, D], the features of N windows, from `pooled_features`.
        labels: int64 [N], 0 for background. A batch has as many backgrounds as other windows.
        loss: returns the loss of logits, float [n, outputs], of the windows with these rows.
        seed: of the batches and of dropout.
        report: called with the stage "classifier" and the number of steps done.

    Raises:
        TrainingError: there are no positive windows, or no backgrounds.
    """
    sampler = BatchSampler(labels, seed, BATCH_HALF, BATCH_HALF)
    optimiser = torch.optim.AdamW(classifier.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        rows = sampler(step)
        seed_dropout(seed, 20, step)
        seen = torch.from_numpy(pooled[rows]).to(classifier.weight.device)
        value = loss(classifier(nn.functional.dropout(seen, DROPOUT)), rows)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, STEPS)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if (step + 1) % _REPORTED_STEPS == 0:
            report("classifier", step + 1, STEPS, {"loss": value.item()})


class _Pooled(nn.Module):
    """Maps of a network's first blocks, float [N, C, h, w] -> pooled features of its last block, [N, D]."""

    def __init__(self, network: Backbone, first_block: int):
        super().__init__()
        self.upper = network.trunk[first_block:]

    def forward(self, maps: Tensor) -> Tensor:
        return self.upper(maps).mean((2, 3))
