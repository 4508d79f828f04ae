"""Learning classes without boxes from a classifier."""

from pathlib import Path

import numpy as np
import pytest
import torch

from inception_rcnn import Detector
from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.classifier_files import save_classifier
from inception_rcnn.detection.model_files import load_model
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.teacher import (
    Lesson,
    Teacher,
    distillation_loss,
    make_lesson,
    read_teacher,
    set_loss,
    with_teachers_classifier,
)
from inception_rcnn.detection.training.train_detector import train_detector

pytestmark = pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")

DOG, CAT, LION, PERSON = (
    Category(number, name, name) for number, name in enumerate(["dog", "cat", "lion", "person"], 1)
)
# Outputs of the teacher: 0 Samoyed, 1 beagle, 2 tabby, 3 lion, and 4 a class that is not detected.
CLASSES = {"Samoyed": 1, "beagle": 1, "tabby": 2, "lion": 3, "seashore": None}


def small_teacher() -> Teacher:
    torch.manual_seed(3)
    return Teacher(
        GoogLeNet(5, auxiliary=False).eval(), tuple(Subclass(name, name, one) for name, one in CLASSES.items())
    )


def picture(annotated: frozenset[int] | None) -> Sample:
    none = np.zeros(0, np.int64)
    return Sample("a", 1, Path("a.png"), np.zeros((0, 4), np.float32), none, none.astype(bool), annotated=annotated)


def lesson() -> Lesson:
    """Dogs, cats and persons have boxes, lions have none. Picture 1 is annotated for cats only."""
    dataset = Dataset("pictures", (DOG, CAT, LION, PERSON), [None, frozenset({2})], picture)
    return make_lesson(small_teacher(), dataset, (DOG, CAT, LION, PERSON), {1, 2, 4})


def answer(*likely: int) -> torch.Tensor:
    """Logits of a teacher that is sure of some outputs."""
    logits = torch.zeros(1, 5)
    logits[0, list(likely)] = 20.0
    return logits


def names_of(lesson: Lesson, right: torch.Tensor) -> list[str]:
    names = ["background", *(one.name for one in lesson.subclasses)]
    return [name for name, flag in zip(names, right[0].tolist(), strict=True) if flag]


@pytest.mark.parametrize(
    ("label", "image", "teacher_says", "expected"),
    [
        (1, 0, 4, ["Samoyed", "beagle", "dog"]),  # a box teaches that the window shows some subclass of its class
        (3, 0, 0, ["lion"]),
        (4, 0, 4, ["person"]),  # no output of the teacher belongs to it
        (0, 0, 4, ["background", "seashore"]),
        (0, 0, 3, ["background", "lion", "seashore"]),  # a class without boxes may stand where the teacher sees it
        (0, 0, 0, ["background", "seashore"]),  # dogs are annotated here, so the window shows no dog
        (0, 1, 4, ["background", "Samoyed", "beagle", "seashore", "dog", "person"]),  # here only cats are annotated
    ],
)
def test_a_window_may_show_what_its_picture_does_not_rule_out(label, image, teacher_says, expected):
    taught = lesson()
    right = taught.right_outputs(np.array([label]), np.array([image]), answer(teacher_says))
    assert names_of(taught, right) == expected


def test_without_a_teacher_backgrounds_may_show_what_is_not_annotated():
    dataset = Dataset("pictures", (DOG, CAT, PERSON), [None, frozenset({2})], picture)
    taught = make_lesson(None, dataset, (DOG, CAT, PERSON), {1, 2, 4})
    right = taught.right_outputs(np.array([0, 0, 1, 3]), np.array([0, 1, 1, 0]), None)
    assert right.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]]
    assert taught.subclasses == ()
    complete = Dataset("pictures", (DOG,), [None, None], picture)
    assert make_lesson(None, complete, (DOG,), {1}) is None


def test_the_losses_are_the_formulas():
    rng = np.random.default_rng(0)
    logits, answers = rng.normal(size=(2, 3, 4)).astype(np.float32)
    right = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]], bool)

    def softmax(row, temperature=1.0):
        powers = [np.exp(value / temperature) for value in row.astype(float)]
        return [power / sum(powers) for power in powers]

    expected = np.mean(
        [
            -np.log(sum(p for p, flag in zip(softmax(row), flags, strict=True) if flag))
            for row, flags in zip(logits, right, strict=True)
        ]
    )
    assert set_loss(torch.from_numpy(logits), torch.from_numpy(right)).item() == pytest.approx(expected, abs=1e-6)
    divergences = [
        sum(t * np.log(t / s) for t, s in zip(softmax(theirs, 2.0), softmax(ours, 2.0), strict=True))
        for ours, theirs in zip(logits, answers, strict=True)
    ]
    found = distillation_loss(torch.from_numpy(logits), torch.from_numpy(answers), 2.0).item()
    assert found == pytest.approx(4 * np.mean(divergences), abs=1e-5)


def test_a_network_with_the_teachers_trunk_starts_with_the_teachers_answers():
    teacher = small_teacher()
    network = GoogLeNet(5, auxiliary=False)
    network.load_state_dict(teacher.network.state_dict())
    with_teachers_classifier(network, teacher, 8)
    pixels = torch.rand(2, 3, 64, 64) * 255
    torch.testing.assert_close(network.eval()(pixels)[:, 1:6], teacher.network(pixels))
    other = GoogLeNet(5, auxiliary=False)
    with_teachers_classifier(other, teacher, 8)
    assert other.classifier.weight.abs().max() < 0.1


def imagenet_teacher(table: str, tmp_path: Path, categories=(DOG, LION)) -> Teacher:
    file = tmp_path / "table.tsv"
    file.write_text(table)
    return read_teacher(GoogLeNet(1000, auxiliary=False), file, categories)


def test_the_table_says_which_class_an_output_belongs_to(tmp_path):
    teacher = imagenet_teacher("n02111889\t58\tdog\tSamoyed\nn02129165\t1\tlion\nn01440764\t9\tfish\n", tmp_path)
    belongs = {one.name: one.category for one in teacher.outputs if one.category}
    assert belongs == {"Samoyed": 1, "lion": 3}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("dog\t1\tdog\n", "line 1: expected the WNID"),
        ("\nn02111889\tdog\n", "line 2: expected the WNID"),
        ("n02111889\t1\tfish\n", "none of its classes is a class of the data set"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, table, message):
    with pytest.raises(TrainingError, match=message):
        imagenet_teacher(table, tmp_path)


def test_teachers_with_other_outputs_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="has 7 outputs, expected ImageNet's 1000"):
        read_teacher(GoogLeNet(7, auxiliary=False), tmp_path / "table.tsv", (DOG,))


@pytest.mark.parametrize("freeze_below", ["inception_5b", "classifier", None])
def test_the_detector_knows_the_classes_with_boxes_and_those_of_the_teacher(dataset, tmp_path, freeze_below):
    """The data set has boxes of dogs and cats; the teacher knows goldfish too."""
    torch.manual_seed(0)
    network = GoogLeNet(1000, auxiliary=False).eval()
    save_classifier(network, [str(number) for number in range(1000)], tmp_path / "init.safetensors", {})
    (tmp_path / "table.tsv").write_text("n02111889\t0\tdog\nn01443537\t0\tgoldfish\n")
    teacher = read_teacher(network, tmp_path / "table.tsv", dataset.categories)
    settings = FineTuneSettings(iterations=2, positives=2, backgrounds=4, freeze_below=freeze_below, pool=36)
    figures = []
    model = train_detector(
        dataset,
        tmp_path / "model",
        init=str(tmp_path / "init.safetensors"),
        teacher=teacher,
        settings=settings,
        regression=False,
        device="cpu",
        report=lambda stage, done, total, one: figures.append(one),
    )
    assert [one.name for one in model.categories] == ["dog", "domestic cat", "goldfish"]
    assert model.members[0].num_classes == 1 + 1000 + 2  # the classes with boxes have an output of their own too
    assert {"labels", "teacher"} <= figures[-1].keys()
    found = Detector(load_model(tmp_path / "model"), device="cpu", score_threshold=0)(read_image(dataset[0].path))
    assert set(found.labels.tolist()) == {one.id for one in model.categories}
    categories = [model.subclasses[row].category for row in found.subclasses.tolist() if row >= 0]
    assert categories == found.labels[found.subclasses >= 0].tolist()
    assert len(categories) > 0
