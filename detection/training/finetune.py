"""Fine-tuning a pretrained network into a region classifier (R-CNN, Girshick et al. 2014, section 2.3).

With `freeze_below`, the frozen blocks run once over a pool of windows, and the blocks above are trained on the stored
features: an hour on a CPU. Without it, the whole network is trained on crops that are warped for each step.

A network that learns the classes of a teacher, but does not have the teacher's trunk, first gets a classifier that fits
its features (`new_classifier`).

The members of an ensemble start from the same weights and "only differ in sampling methodologies and the randomized
input image order" (Szegedy et al. 2015, section 7). Here all members share the windows that were kept of each picture.
With frozen blocks they also share the pool, in which each window is mirrored and distorted once, so that the frozen
blocks run once for all members. A member's own seed decides the windows of each batch and the dropout, and without
frozen blocks also mirroring and distortion.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...data.dataset import Dataset
from ...data.images import read_image
from ..engines.choice import resolve_device
from ..engines.engine import CROP_SIZE
from ..model_files import RegionSettings
from ..networks.backbones import Backbone
from .checkpoint import Checkpoint
from .errors import TrainingError
from .keys import pictures_key, result_key
from .loop import Training, cosine, mixed_precision, read_ahead, seed_dropout, train
from .lower_features import LowerBlocks, stored_features, training_crops, window_crops
from .new_classifier import fit_classifier, pooled_features
from .progress import Report, no_report
from .teacher import Lesson, distillation_loss, set_loss
from .windows import BatchSampler, Windows, draw_pool

_FEATURES = "lower_features_"


@dataclass(frozen=True)
class FineTuneSettings:
    """The recipe of fine-tuning.

    Attributes:
        iterations: number of steps.
        learning_rate: of the pretrained layers at the first step; it falls to 0 along a cosine.
        classifier_factor: the learning rate of the new classifier, as a multiple of `learning_rate`.
        momentum, weight_decay: of SGD, as in R-CNN.
        positives, backgrounds: windows of each kind in a batch.
        freeze_below: name of the lowest block that is trained ("inception_4e"). "classifier" trains the last layer
            only, on pooled features. None trains all blocks.
        pool: largest number of windows whose features are stored when blocks are frozen (0.2 MB for each window below
            inception_4e, 2 KB below the classifier).
        distillation: weight of the divergence from the teacher's answers, if there is a teacher. The loss of the
            windows' labels has weight 1.
        temperature: of the distillation.
        seed: of all random choices.
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
    distillation: float = 1.0
    temperature: float = 2.0
    seed: int = 0


def fine_tune(
    network: Backbone,
    dataset: Dataset,
    windows: Windows,
    regions: RegionSettings,
    settings: FineTuneSettings,
    folder: Path,
    *,
    lesson: Lesson | None = None,
    member: int = 1,
    device: str = "auto",
    stage: str = "training",
    report: Report = no_report,
) -> None:
    """Train `network` in place to classify windows.

    Args:
        network: its classifier has output 0 for background and an output for each class (see `with_classes`).
        dataset: the pictures of the windows.
        windows: from `collect_windows`, with the index of a network output as label.
        regions: how windows are warped.
        settings: the recipe.
        folder: for the features of frozen blocks, which all members share and `discard_features` deletes. The
            checkpoint is in `folder`/member_N; if it exists, training resumes from it.
        lesson: the outputs that are right for each window, and a teacher; None if the labels are the outputs.
        member: number of the network in its ensemble, from 1.
        device: "auto", "cpu", "cuda" or "cuda:N".
        stage: name of the training in reports.
        report: called with the number of windows done while frozen blocks run (stage "frozen blocks"), then after
            each step.

    Raises:
        TrainingError: there are no windows to train on, no block is called `freeze_below`, the checkpoint belongs to
            other data, weights or settings, or the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = resolve_device(device)
    frozen = frozen_blocks(network, settings.freeze_below)
    if frozen:
        windows = draw_pool(windows, settings.pool, settings.seed)
    seed = _member_seed(settings.seed, member)
    sampler = BatchSampler(windows.labels, seed, settings.positives, settings.backgrounds)
    origin = _fingerprint(network, windows, regions, lesson)
    member_folder = folder / f"member_{member}"
    pictures = pictures_key(dataset, np.unique(windows.images))
    checkpoint = Checkpoint(
        member_folder / "checkpoint.safetensors", {**asdict(settings), "data and weights": origin, "pictures": pictures}
    )
    if frozen and checkpoint.step() < settings.iterations:
        features = stored_features(
            LowerBlocks(network, frozen),
            partial(window_crops, dataset, windows, regions, settings.seed),
            len(windows),
            folder / f"{_FEATURES}{features_key(origin, pictures, settings)}_{settings.freeze_below}.npy",
            device=device,
            report=report,
        )
        if lesson is not None and lesson.teacher is not None:
            answers = lesson.stored_answers(
                network,
                frozen,
                features,
                partial(window_crops, dataset, windows, regions, settings.seed),
                folder / f"{_FEATURES}{features_key(origin, pictures, settings)}_teacher.npy",
                device=device,
                report=report,
            )

    def window_loss(logits: Tensor, rows: np.ndarray, answer: Tensor | None) -> tuple[Tensor, dict[str, float]]:
        labels = windows.labels[rows]
        if lesson is None:
            return nn.functional.cross_entropy(logits, torch.from_numpy(labels).to(logits.device)), {}
        right = lesson.right_outputs(labels, windows.images[rows], answer).to(logits.device)
        of_labels = set_loss(logits, right)
        if answer is None:
            return of_labels, {}
        of_teacher = distillation_loss(logits[:, 1 : 1 + answer.shape[1]], answer, settings.temperature)
        terms = {"labels": of_labels.item(), "teacher": of_teacher.item()}
        return of_labels + settings.distillation * of_teacher, terms

    teacher = None if lesson is None else lesson.teacher
    if frozen and checkpoint.step() == 0 and teacher is not None and not teacher.has_trunk_of(network):
        fit_classifier(
            network.classifier.to(device),
            pooled_features(network.eval(), frozen, features, device=device, report=report),
            windows.labels,
            lambda logits, rows: window_loss(logits, rows, torch.from_numpy(answers[rows]).to(device))[0],
            seed=seed,
            report=report,
        )

    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    trained = nn.Sequential(network.trunk[frozen:])
    precision = mixed_precision(device)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        rows = sampler(step)
        if frozen:
            return features[rows], rows
        return _crops(dataset, windows[rows], regions, [[seed, 4, step, row] for row in range(len(rows))]), rows

    def loss(step: int, batch: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, dict[str, float]]:
        inputs, rows = torch.from_numpy(batch[0]).to(device), batch[1]
        seed_dropout(seed, 5, step)
        if frozen:
            x = inputs.float().contiguous(memory_format=torch.channels_last)
        else:
            x = network.normalise(inputs.permute(0, 3, 1, 2).float())
        with precision:
            logits = network.classify(trained(x)).float()
        answer: Tensor | None = None
        if lesson is not None and lesson.teacher is not None:
            answer = torch.from_numpy(answers[rows]).to(device) if frozen else lesson.answers(inputs)
        return window_loss(logits, rows, answer)

    def failed_batch(step: int, batch: tuple[np.ndarray, np.ndarray]) -> tuple[dict[str, np.ndarray], list[Path]]:
        shown = windows[batch[1]]
        pictures = [dataset[index].path for index in shown.images.tolist()]
        return {"inputs": batch[0], "boxes": shown.boxes, "labels": shown.labels}, pictures

    optimiser = torch.optim.SGD(
        [
            {"params": list(trained.parameters()), "factor": 1.0},
            {"params": list(network.classifier.parameters()), "factor": settings.classifier_factor},
        ],
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    train(
        Training(
            stage=stage,
            steps=settings.iterations,
            weights=nn.ModuleDict({"trunk": trained, "classifier": network.classifier}),
            optimiser=optimiser,
            checkpoint=checkpoint,
            batches=partial(read_ahead, batch),
            loss=loss,
            learning_rate=lambda step: settings.learning_rate * cosine(step, settings.iterations),
            failed_batch=failed_batch,
            failed_batch_file=member_folder / "failed_batch.safetensors",
            remedy=f"a lower --learning-rate (now {settings.learning_rate})",
        ),
        report,
    )
    network.to("cpu").eval()


def features_key(origin: str, pictures: str, settings: FineTuneSettings) -> str:
    """The key of everything that the features of frozen blocks depend on.

    Args:
        origin: from `_fingerprint`, the windows and the weights.
        pictures: from `pictures_key`.
        settings: their seed decides mirroring and colours.
    """
    return result_key(origin=origin, pictures=pictures, seed=settings.seed, below=settings.freeze_below, side=CROP_SIZE)


def frozen_blocks(network: Backbone, freeze_below: str | None) -> int:
    """The number of blocks of `network` that `freeze_below` freezes.

    Raises:
        TrainingError: no block is called `freeze_below`.
    """
    names = [*(name for name, _ in network.trunk.named_children()), "classifier"]
    if freeze_below is not None and freeze_below not in names:
        raise TrainingError(f"no block is called {freeze_below!r}; the network has {', '.join(names)}")
    return 0 if freeze_below is None else names.index(freeze_below)


def discard_features(folder: Path) -> None:
    """Delete the features of frozen blocks: gigabytes, which `fine_tune` computes again if it needs them."""
    for file in folder.glob(f"{_FEATURES}*"):
        file.unlink()


def _member_seed(seed: int, member: int) -> int:
    """The seed of a member's batches, distortions and dropout. The first member has the seed of the settings."""
    return seed if member == 1 else int(np.random.SeedSequence([seed, 8, member]).generate_state(1)[0])


def _fingerprint(network: nn.Module, windows: Windows, regions: RegionSettings, lesson: Lesson | None) -> str:
    """A digest of the windows, the weights that a training starts from, and the lesson."""
    # The windows contain the effect of the other settings of regions.
    digest = hashlib.sha256(json.dumps([regions.warp_mode, regions.padding]).encode())
    for array in (windows.images, windows.boxes, windows.labels):
        digest.update(np.ascontiguousarray(array).tobytes())
    for name, value in network.state_dict().items():
        if not name.startswith("classifier."):  # The classifier is new: a function of the seed.
            digest.update(value.cpu().numpy().tobytes())
    if lesson is not None:
        digest.update(lesson.fingerprint())
    return digest.hexdigest()[:16]


def _crops(dataset: Dataset, windows: Windows, regions: RegionSettings, seeds: list[list[int]]) -> np.ndarray:
    """Crops uint8 [N, 224, 224, 3] of a batch. Each picture is decoded once."""
    crops = np.empty((len(windows), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    for picture in np.unique(windows.images):
        rows = np.flatnonzero(windows.images == picture)
        image = read_image(dataset[int(picture)].path)
        crops[rows] = training_crops(image, windows.boxes[rows], regions, [seeds[row] for row in rows])
    return crops
