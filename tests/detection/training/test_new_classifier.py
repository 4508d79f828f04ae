"""A new classifier is fitted to the features of a network before the network is trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.data.dataset import Dataset
from inception_rcnn.detection.classifier_files import save_classifier
from inception_rcnn.detection.training import new_classifier
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.initial_network import initial_network
from inception_rcnn.detection.training.new_classifier import fit_classifier, pooled_features
from inception_rcnn.detection.training.progress import no_report
from inception_rcnn.detection.training.teacher import read_teacher
from inception_rcnn.detection.training.train_detector import train_detector


def separable() -> tuple[np.ndarray, np.ndarray]:
    """Features of 90 windows in three clusters, and their labels."""
    labels = np.arange(90) % 3
    noise = np.random.default_rng(0).normal(0, 0.1, (90, 8))
    return (np.eye(8)[labels] + noise).astype(np.float32), labels


def fitted(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Linear, list[int]]:
    monkeypatch.setattr(new_classifier, "STEPS", 300)
    monkeypatch.setattr(new_classifier, "LEARNING_RATE", 0.02)
    pooled, labels = separable()
    torch.manual_seed(0)
    classifier, done = nn.Linear(8, 3), []

    def loss(logits: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        return nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]))

    fit_classifier(
        classifier, pooled, labels, loss, seed=seed, report=lambda stage, step, total, figures: done.append(step)
    )
    return classifier, done


def test_the_classifier_learns_the_classes_of_the_features(monkeypatch):
    classifier, done = fitted(0, monkeypatch)
    pooled, labels = separable()
    assert (classifier(torch.from_numpy(pooled)).argmax(1).numpy() == labels).all()
    assert done == [100, 200, 300]


def test_the_fit_is_a_function_of_the_seed(monkeypatch):
    first, again, other = (fitted(seed, monkeypatch)[0].weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pooled_features_are_those_that_the_classifier_of_the_network_sees(tiny_googlenet):
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False).eval()
    pixels = torch.rand(5, 3, 224, 224) * 255
    with torch.inference_mode():
        maps = network.trunk[:8](network.normalise(pixels))
        expected = network.features(pixels).mean((2, 3)).numpy()
    found = pooled_features(network, 8, maps.numpy().astype(np.float16), device="cpu", report=no_report)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02 * np.abs(expected).max())  # float16 maps


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_googlenet")
def test_a_network_with_another_trunk_than_the_teacher_gets_a_fitted_classifier_first(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(new_classifier, "STEPS", 100)
    torch.manual_seed(0)
    for name in ("same", "other"):
        network = GoogLeNet(1000, auxiliary=False)
        save_classifier(network, [str(number) for number in range(1000)], tmp_path / f"{name}.safetensors", {})
    (tmp_path / "table.tsv").write_text("n02111889\t0\tdog\nn01443537\t0\tgoldfish\n")
    teacher = read_teacher(
        initial_network(str(tmp_path / "same.safetensors")), tmp_path / "table.tsv", dataset.categories
    )
    settings = FineTuneSettings(iterations=1, positives=2, backgrounds=4, freeze_below="inception_5b", pool=36)
    for name in ("same", "other"):
        stages: list[str] = []
        train_detector(
            dataset,
            tmp_path / name,
            init=str(tmp_path / f"{name}.safetensors"),
            teacher=teacher,
            settings=settings,
            regression=False,
            device="cpu",
            report=lambda stage, done, total, figures, stages=stages: stages.append(stage),
        )
        assert ("classifier" in stages, "features" in stages) == (name == "other", name == "other")
