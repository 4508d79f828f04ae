"""A teacher: a classifier of whole pictures that knows classes of which the data set has no boxes.

Boxes teach the classes that they show. The teacher's answers on the same windows keep what the initial network knew of
all other classes, and carry it over to regions (learning without forgetting, Li & Hoiem, ECCV 2016; distillation,
Hinton et al., 2015). The networks tell the teacher's classes apart; the probability of a class that is detected is a
sum over them. Hoffman et al. ("LSDA", NIPS 2014) showed that a classifier can become a detector of classes without
boxes.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ...data.categories import Category, Subclass
from ...data.classifier_classes import imagenet_classes
from ...data.dataset import Dataset
from ...runtime.atomic_write import atomic_write
from ..engines.engine import CompiledForward
from ..networks.backbones import Backbone, shared_blocks
from .errors import TrainingError
from .lower_features import stored_features
from .progress import Report

# The teacher must give a class without boxes this probability before a background window may show it.
LIKELY = 0.1

# Windows after which the teacher's progress is reported.
_STEP = 512


@dataclass(frozen=True, eq=False)
class Teacher:
    """A classifier and the classes of its outputs.

    Attributes:
        network: the classifier of whole pictures.
        outputs: the class of each of its outputs.
    """

    network: Backbone
    outputs: tuple[Subclass, ...]

    def has_trunk_of(self, network: Backbone) -> bool:
        """Whether the teacher has the trunk of `network`, so that the teacher's classifier fits there too."""
        return shared_blocks([network, self.network]) == len(network.trunk)


def read_teacher(network: Backbone, classes: Path, categories: Sequence[Category]) -> Teacher:
    """Make a teacher of a classifier of ImageNet's 1,000 classes.

    Args:
        network: the classifier, with its outputs in the order of `imagenet_classes`.
        classes: a table with tabs: the WNID of a class of the teacher, a number that is not used, and the name or WNID
            of the class of the data set that it belongs to. Further columns are not used.
        categories: the classes of the data set.

    Raises:
        TrainingError: the classifier has another number of outputs, or the table is malformed or names an unknown
            class of the teacher, or none of its classes is in the data set.
    """
    known = imagenet_classes()
    if network.num_classes != len(known):
        raise TrainingError(f"the teacher has {network.num_classes} outputs, expected ImageNet's {len(known)} classes")
    ids = {category.name: category.id for category in categories}
    ids |= {category.wnid: category.id for category in categories}
    wnids = {one.wnid for one in known}
    belongs: dict[str, int] = {}
    try:
        lines = classes.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{classes}: cannot read the teacher's classes: {error}") from error
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line.split("\t")]
        if not any(fields):
            continue
        if len(fields) < 3 or fields[0] not in wnids:
            raise TrainingError(
                f"{classes}, line {number}: expected the WNID of one of ImageNet's 1,000 classes, a number and a class "
                f"of the data set, separated by tabs, got {line[:80]!r}"
            )
        if fields[2] in ids:
            belongs[fields[0]] = ids[fields[2]]
    if not belongs:
        raise TrainingError(f"{classes}: none of its classes is a class of the data set")
    return Teacher(network, tuple(Subclass(one.wnid, one.name, belongs.get(one.wnid)) for one in known))


@dataclass(frozen=True, eq=False)
class Lesson:
    """Which outputs of a network are right for each window, and a teacher.

    Attributes:
        teacher: the teacher; None if the lesson is that some classes are not annotated in some pictures.
        subclasses: the classes of the network's outputs 1, 2, ...: those of the teacher, then each class that has
            boxes. Empty without a teacher; the outputs are then the categories.
        of_label: bool [1 + categories, outputs], the outputs that are right for a window with a label. Row 0, the
            background, holds the outputs that belong to no category.
        unknown: bool [pictures, outputs], outputs of classes that are not annotated in a picture but have boxes in
            others. A background window may show them.
        same_class: float32 [teacher's outputs, outputs], 1 where both belong to the same category, and that category
            has no boxes. A background window may show it where the teacher says so.
    """

    teacher: Teacher | None
    subclasses: tuple[Subclass, ...]
    of_label: np.ndarray
    unknown: np.ndarray
    same_class: np.ndarray

    def right_outputs(self, labels: np.ndarray, images: np.ndarray, answers: Tensor | None) -> Tensor:
        """The outputs that are right for each of N windows, bool [N, outputs], on the device of the answers.

        Args:
            labels: int64 [N], index of a category from 1, or 0 for background.
            images: int [N], index of the picture.
            answers: float [N, teacher's outputs], the teacher's logits; None without a teacher.
        """
        may_be = torch.from_numpy(self.unknown[images])
        if answers is not None:
            probability = answers.float().softmax(1) @ torch.from_numpy(self.same_class).to(answers.device)
            may_be = may_be.to(answers.device) | (probability >= LIKELY)
        background = torch.from_numpy(labels == 0)[:, None].to(may_be.device)
        return torch.from_numpy(self.of_label[labels]).to(may_be.device) | (background & may_be)

    def answers(self, crops: Tensor) -> Tensor:
        """The teacher's logits of crops, uint8 RGB [N, 224, 224, 3] -> float [N, teacher's outputs]."""
        assert self.teacher is not None
        network = self.teacher.network.to(crops.device).eval()
        with torch.inference_mode():
            return network(crops.permute(0, 3, 1, 2).float())

    def stored_answers(
        self,
        network: Backbone,
        first_block: int,
        features: np.ndarray,
        crops_from: Callable[[int], Iterator[tuple[int, np.ndarray]]],
        file: Path,
        *,
        device: str,
        report: Report,
    ) -> np.ndarray:
        """The teacher's logits of all windows, float16 [N, teacher's outputs], memory-mapped.

        If the first blocks of the network are the teacher's too, only the teacher's other blocks run.

        Args:
            network: the network that is trained.
            first_block: number of its frozen blocks.
            features: float16 [N, C, h, w], the output of the frozen blocks.
            crops_from: see `stored_features`.
            file: the .npy file.
            device: "cpu", "cuda" or "cuda:N".
            report: called with the stage "teacher" and the number of windows done.
        """
        assert self.teacher is not None
        teacher = self.teacher.network
        if shared_blocks([network, teacher]) < min(first_block, len(network.trunk)):
            return stored_features(
                _Answers(teacher), crops_from, len(features), file, device=device, stage="teacher", report=report
            )
        if not file.exists():
            upper = teacher.trunk[first_block:].eval()
            forward = CompiledForward(_AnswersFromMaps(teacher, upper), device=device, maps=features.shape[1:])
            answers = np.empty((len(features), teacher.num_classes), np.float16)
            for start in range(0, len(features), _STEP):
                rows = slice(start, start + _STEP)
                answers[rows] = forward(features[rows].astype(np.float32))
                report("teacher", min(start + _STEP, len(features)), len(features), {})
            with atomic_write(file) as partial, partial.open("wb") as stream:
                np.save(stream, answers)
        return np.load(file, mmap_mode="r")

    def fingerprint(self) -> bytes:
        """A digest of everything that the lesson adds to a training."""
        digest = hashlib.sha256(repr([self.subclasses, LIKELY]).encode())
        for array in (self.of_label, self.unknown, self.same_class):
            digest.update(np.ascontiguousarray(array).tobytes())
        for value in self.teacher.network.state_dict().values() if self.teacher is not None else ():
            digest.update(value.cpu().numpy().tobytes())
        return digest.digest()


class _Answers(nn.Module):
    """Float RGB in 0..255 [N, 3, H, W] -> the teacher's logits [N, outputs]."""

    def __init__(self, teacher: Backbone):
        super().__init__()
        self.teacher = teacher

    def forward(self, pixels: Tensor) -> Tensor:
        return self.teacher.classify(self.teacher.features(pixels))


class _AnswersFromMaps(nn.Module):
    """Feature maps of the teacher's first blocks, float [N, C, h, w] -> the teacher's logits [N, outputs]."""

    def __init__(self, teacher: Backbone, upper: nn.Module):
        super().__init__()
        self.teacher = teacher
        self.upper = upper

    def forward(self, maps: Tensor) -> Tensor:
        return self.teacher.classify(self.upper(maps))


def make_lesson(
    teacher: Teacher | None, dataset: Dataset, categories: Sequence[Category], boxed: set[int]
) -> Lesson | None:
    """Make the lesson of a training.

    Args:
        teacher: the teacher; None for no teacher.
        dataset: the training pictures.
        categories: the classes of the detector, in the order of the labels of windows.
        boxed: the ids of the categories that have boxes.

    Returns:
        The lesson; None if there is no teacher and all classes are annotated in all pictures.
    """
    annotated = [sample.annotated for sample in dataset]
    if teacher is None and all(one is None for one in annotated):
        return None
    subclasses: tuple[Subclass, ...] = ()
    of_answers = np.zeros(0, np.int64)
    if teacher is not None:
        own = [Subclass(one.wnid, one.name, one.id) for one in categories if one.id in boxed]
        subclasses = (*teacher.outputs, *own)
        of_answers = np.array([one.category or 0 for one in teacher.outputs], np.int64)
    outputs = [one.category or 0 for one in subclasses] if subclasses else [one.id for one in categories]
    category_of = np.array([0, *outputs], np.int64)
    of_label = np.stack([category_of == 0, *(category_of == one.id for one in categories)])
    has_boxes = np.isin(category_of, list(boxed))
    unknown = np.zeros((len(dataset), len(category_of)), np.bool_)
    for number, known in enumerate(annotated):
        if known is not None:
            unknown[number] = has_boxes & ~np.isin(category_of, list(known))
    without_boxes = (category_of > 0) & ~has_boxes
    same_class = (of_answers[:, None] == category_of[None]) & without_boxes[None]
    return Lesson(teacher, subclasses, of_label, unknown, same_class.astype(np.float32))


def with_teachers_classifier(network: Backbone, teacher: Teacher, outputs: int) -> None:
    """Give `network` a classifier of `outputs` outputs.

    If its trunk is the teacher's, the outputs from 1 on start with the teacher's weights. All other weights are small
    random numbers.
    """
    old = teacher.network.classifier
    classifier = nn.Linear(network.out_channels, outputs)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
    if teacher.has_trunk_of(network):
        with torch.no_grad():
            classifier.weight[1 : 1 + old.out_features] = old.weight
            classifier.bias[1 : 1 + old.out_features] = old.bias
    network.num_classes = outputs
    network.classifier = classifier
    if hasattr(network, "auxiliary"):
        network.auxiliary = nn.ModuleDict()


def distillation_loss(logits: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """The divergence of the network's answer from the teacher's, both softened (Hinton et al., 2015, section 2).

    Args:
        logits: float [N, K], the network's logits of the teacher's outputs.
        answers: float [N, K], the teacher's logits.
        temperature: by which both are divided.

    Returns:
        The mean over the windows, times the square of the temperature, which keeps the size of the gradient.
    """
    wanted = (answers.float() / temperature).log_softmax(1)
    given = (logits / temperature).log_softmax(1)
    return nn.functional.kl_div(given, wanted, reduction="batchmean", log_target=True) * temperature**2


def set_loss(logits: Tensor, right: Tensor) -> Tensor:
    """The mean of -log of the probability that the right outputs have together: logits and bool, both [N, outputs]."""
    return (logits.logsumexp(1) - logits.masked_fill(~right, -torch.inf).logsumexp(1)).mean()
