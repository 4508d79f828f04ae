"""Trains the networks of the ensemble: the first as a whole, the others above the blocks that all share.

The first network is trained from inception_3a on, on windows that are warped anew for each step. The others take its
blocks below inception_4e. Those blocks run once over a pool of windows, from which each network draws its own batches.
The networks "only differ in sampling methodologies and the randomized input image order" (Szegedy et al. 2015, section
7), and half of them start from the teacher's upper blocks in place of the first network's.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pictures import Pictures, distort_colours
from regions import Regions
from torch import Tensor, nn

from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training.loop import cosine, mixed_precision
from inception_rcnn.detection.training.teacher import Lesson, distillation_loss, set_loss
from inception_rcnn.detection.training.windows import repeat_factors

# The lowest block that the first network trains, and the lowest block that each other network has of its own.
FIRST_TRAINED, FIRST_OWN = "inception_3a", "inception_4e"
# Steps during which the learning rate rises.
WARM_UP_STEPS = 100
# Longer gradients are shortened to this norm.
LARGEST_GRADIENT = 20.0


@dataclass(frozen=True)
class NetworkSettings:
    """The recipe.

    Attributes:
        steps: of the first network.
        batch: windows in a batch, a quarter of them positive.
        learning_rate: largest learning rate. It rises during the first steps and then falls to 0 along a cosine.
        classifier_factor: the classifier's learning rate, as a multiple of `learning_rate`.
        momentum, weight_decay: of SGD.
        distillation, temperature: as in `FineTuneSettings`.
        rounds: number of pools for the other networks.
        pool: windows in a pool.
        steps_of_round: steps of each network with a pool.
        seed: of all random choices.
    """

    steps: int = 2427
    batch: int = 256
    learning_rate: float = 0.004
    classifier_factor: float = 5.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    distillation: float = 1.0
    temperature: float = 2.0
    rounds: int = 7
    pool: int = 36_864
    steps_of_round: int = 250
    seed: int = 0


@dataclass(frozen=True)
class Member:
    """How a member differs from the first.

    Attributes:
        from_teacher: whether its upper blocks start from the teacher's weights.
        least_iou: positive windows have at least this IoU with their object.
        rare: the exponent of `repeat_factors` by which windows of rare classes are drawn more often.
        dropout: share of the pooled features that are dropped.
    """

    from_teacher: bool
    least_iou: float = 0.5
    rare: float = 1.0
    dropout: float = 0.4


MEMBERS = (
    Member(from_teacher=True),
    Member(from_teacher=False, least_iou=0.6),
    Member(from_teacher=True, least_iou=0.6, rare=0.0),
    Member(from_teacher=False, rare=2.0, dropout=0.6),
    Member(from_teacher=True, rare=1.5, dropout=0.6),
)


class _Windows:
    """Draws windows: a quarter positive, of rare classes more often."""

    def __init__(self, regions: Regions, labels: np.ndarray):
        self.images, self.boxes, self.labels = regions.images.astype(np.int64), regions.boxes, labels
        self.overlaps = regions.overlaps
        self._positives, self._backgrounds = np.flatnonzero(labels > 0), np.flatnonzero(labels == 0)
        weights = repeat_factors(labels[self._positives])
        self._cumulated = np.cumsum(weights) / weights.sum()

    def draw(self, positives: int, backgrounds: int, rng: np.random.Generator) -> np.ndarray:
        found = self._positives[np.searchsorted(self._cumulated, rng.random(positives))]
        return np.concatenate([found, self._backgrounds[rng.integers(len(self._backgrounds), size=backgrounds)]])


class NetworkTraining:
    """The training of all networks.

    Args:
        network: the first network, with the teacher's weights and the classifier of all outputs.
        lesson: with the teacher.
        pictures: the pixels.
        regions: the windows.
        labels: int64 [W], index of a category from 1, or 0, of each window.
        settings: the recipe.
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        network: GoogLeNet,
        lesson: Lesson,
        pictures: Pictures,
        regions: Regions,
        labels: np.ndarray,
        settings: NetworkSettings,
        device: str,
    ):
        self._device, self._settings, self._pictures = device, settings, pictures
        self._windows = _Windows(regions, labels)
        assert lesson.teacher is not None
        self._lesson = lesson
        self._teacher = _to(copy.deepcopy(lesson.teacher.network), device).eval().requires_grad_(False)
        self.network = _to(network, device)
        names = [name for name, _ in network.trunk.named_children()]
        self._first, self._own = names.index(FIRST_TRAINED), names.index(FIRST_OWN)
        self._mixed = mixed_precision(device)

    def train_first(self) -> None:
        """Train the first network as a whole."""
        settings, network = self._settings, self.network
        trained = network.trunk[self._first :].train()
        network.train()
        optimiser = self._optimiser(trained, network.classifier)
        started, sums = time.perf_counter(), torch.zeros(2, device=self._device)
        for step in range(settings.steps):
            rng = np.random.default_rng([settings.seed, 1, step])
            rows = self._windows.draw(settings.batch // 4, settings.batch - settings.batch // 4, rng)
            crops = self._crops(rows, rng)
            torch.manual_seed(int(rng.integers(2**31)))
            with self._mixed:
                with torch.no_grad():
                    x = network.trunk[: self._first](network.normalise(crops))
                    answers = self._teacher.classify(self._teacher.trunk[self._first :](x)).float()
                logits = network.classify(trained(x)).float()
            sums += self._step(optimiser, logits, self._right(rows, answers), answers, step, settings.steps)
            if (step + 1) % 100 == 0 or step + 1 == settings.steps:
                seconds = time.perf_counter() - started
                mean = (sums / ((step + 1) % 100 or 100)).tolist()
                print(f"first {step + 1} {seconds:.1f} s", [round(one, 4) for one in mean], flush=True)
                sums.zero_()

    def train_others(self, members: Sequence[Member] = MEMBERS) -> list[nn.ModuleDict]:
        """Train the upper blocks and the classifier of each other network."""
        settings, network = self._settings, self.network.eval()
        lower = network.trunk[self._first : self._own]
        uppers, optimisers = [], []
        for member in members:
            trunk = (self._teacher if member.from_teacher else network).trunk[self._own :]
            own = nn.ModuleDict({"trunk": copy.deepcopy(trunk), "classifier": copy.deepcopy(network.classifier)})
            own.requires_grad_(True).train()
            uppers.append(own)
            optimisers.append(self._optimiser(own["trunk"], own["classifier"]))
        steps = settings.rounds * settings.steps_of_round
        started = time.perf_counter()
        for turn in range(settings.rounds):
            rng = np.random.default_rng([settings.seed, 2, turn])
            rows = self._windows.draw(settings.pool // 3, settings.pool - settings.pool // 3, rng)
            features, right, answers = self._pool(rows, lower, rng)
            print(f"pool {turn + 1} {time.perf_counter() - started:.1f} s", flush=True)
            for number, (member, own, optimiser) in enumerate(zip(members, uppers, optimisers, strict=True), 2):
                own_rng = np.random.default_rng([settings.seed, 3, number, turn])
                sums = torch.zeros(2, device=self._device)
                batches = self._batches(rows, member, own_rng)
                torch.manual_seed(int(own_rng.integers(2**31)))
                for place in range(settings.steps_of_round):
                    step = turn * settings.steps_of_round + place
                    batch = batches[place]
                    with self._mixed:
                        x = own["trunk"](features[batch])
                        x = nn.functional.dropout(x.mean((2, 3)), member.dropout)
                        logits = own["classifier"](x).float()
                    sums += self._step(optimiser, logits, right[batch], answers[batch].float(), step, steps)
                mean = (sums / settings.steps_of_round).tolist()
                seconds = time.perf_counter() - started
                print(f"member {number} {seconds:.1f} s", [round(one, 4) for one in mean], flush=True)
        return uppers

    def _batches(self, rows: np.ndarray, member: Member, rng: np.random.Generator) -> Tensor:
        """The windows of each step of a round, as places in the pool: int64 [steps, batch]."""
        settings = self._settings
        labels, overlaps = self._windows.labels[rows], self._windows.overlaps[rows]
        positives = np.flatnonzero((labels > 0) & (overlaps >= member.least_iou))
        # The pool was drawn with the exponent 1.
        weights = repeat_factors(labels[positives]) ** (member.rare - 1)
        cumulated = np.cumsum(weights) / weights.sum()
        backgrounds = np.flatnonzero(labels == 0)
        quarter, steps = settings.batch // 4, settings.steps_of_round
        found = positives[np.searchsorted(cumulated, rng.random((steps, quarter)))]
        others = backgrounds[rng.integers(len(backgrounds), size=(steps, settings.batch - quarter))]
        return torch.from_numpy(np.concatenate([found, others], axis=1)).to(self._device)

    @torch.no_grad()
    def _pool(self, rows: np.ndarray, lower: nn.Module, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Of the windows of a pool: the shared blocks' features, the right outputs and the teacher's answers."""
        features, right, answers = [], [], []
        for start in range(0, len(rows), 512):
            part = rows[start : start + 512]
            crops = self._crops(part, rng)
            with self._mixed:
                x = self.network.trunk[: self._first](self.network.normalise(crops))
                given = self._teacher.classify(self._teacher.trunk[self._first :](x)).float()
                features.append(lower(x))
            answers.append(given.half())
            right.append(self._right(part, given))
        joined = torch.cat(features).contiguous(memory_format=torch.channels_last)
        return joined, torch.cat(right), torch.cat(answers)

    def _crops(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        windows = self._windows
        crops = self._pictures.windows(
            windows.images[rows], windows.boxes[rows].astype(np.float64), rng.random(len(rows)) < 0.5
        )
        return distort_colours(crops, rng).contiguous(memory_format=torch.channels_last)

    def _right(self, rows: np.ndarray, answers: Tensor) -> Tensor:
        return self._lesson.right_outputs(self._windows.labels[rows], self._windows.images[rows], answers)

    def _step(
        self, optimiser: torch.optim.Optimizer, logits: Tensor, right: Tensor, answers: Tensor, step: int, steps: int
    ) -> Tensor:
        """Do a step of a training; return the loss of the labels and the loss of the teacher, [2].

        Args:
            optimiser: of the network.
            logits: float [N, outputs], the network's.
            right: bool [N, outputs], see `Lesson.right_outputs`.
            answers: float [N, teacher's outputs], the teacher's logits.
            step, steps: number of the step, from 0, and number of all steps.
        """
        settings = self._settings
        of_labels = set_loss(logits, right)
        of_teacher = distillation_loss(logits[:, 1 : 1 + answers.shape[1]], answers, settings.temperature)
        rate = settings.learning_rate * min(1.0, (step + 1) / WARM_UP_STEPS) * cosine(step, steps)
        for group in optimiser.param_groups:
            group["lr"] = group["factor"] * rate
        optimiser.zero_grad()
        (of_labels + settings.distillation * of_teacher).backward()
        weights = [weight for group in optimiser.param_groups for weight in group["params"]]
        nn.utils.clip_grad_norm_(weights, LARGEST_GRADIENT)
        optimiser.step()
        return torch.stack([of_labels.detach(), of_teacher.detach()])

    def _optimiser(self, trunk: nn.Module, classifier: nn.Module) -> torch.optim.Optimizer:
        settings = self._settings
        return torch.optim.SGD(
            [
                {"params": list(trunk.parameters()), "factor": 1.0},
                {"params": list(classifier.parameters()), "factor": settings.classifier_factor},
            ],
            settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )


def with_own_blocks(network: GoogLeNet, own: Mapping[str, Tensor]) -> GoogLeNet:
    """A copy of the first network with the blocks and the classifier of another network.

    Args:
        network: the first network.
        own: the weights of a part that `NetworkTraining.train_others` returned.
    """
    member = copy.deepcopy(network)
    member.load_state_dict({**member.state_dict(), **own})
    return member


def _to(network: GoogLeNet, device: str) -> GoogLeNet:
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
