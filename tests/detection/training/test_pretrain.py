"""Pretraining a classifier, with a tiny network and ten small pictures."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import distributed, nn

from inception_rcnn.data.image_folders import LabelledImages, open_image_folders
from inception_rcnn.data.images import ImageError
from inception_rcnn.detection.training import checkpoint, loop, pretrain
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.pretrain import (
    PretrainSettings,
    accuracy,
    classification_loss,
    learning_rate,
    train_classifier,
    untrained,
)
from inception_rcnn.detection.training.progress import no_report

SETTINGS = PretrainSettings(epochs=3, batch=4, learning_rate=0.05)


class TinyNetwork(nn.Module):
    """Classifies the mean colours of a grid, with dropout and an auxiliary head."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.hidden = nn.Linear(48, 8)
        self.dropout = nn.Dropout(0.4)
        self.main, self.auxiliary = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, pixels):
        x = self.dropout(torch.relu(self.hidden(self.pool(pixels / 255 - 0.5).flatten(1))))
        return (self.main(x), self.auxiliary(x)) if self.training else self.main(x)


def tiny_network() -> TinyNetwork:
    torch.manual_seed(3)
    return TinyNetwork()


def write_pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, colour in (("blue", (40, 40, 200)), ("red", (200, 40, 40))):
        (root / name).mkdir(parents=True)
        for number in range(5):
            image = np.clip(rng.normal(colour, 30, (40, 50, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / name / f"{number}.png")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> LabelledImages:
    root = tmp_path_factory.mktemp("folders")
    write_pictures(root)
    return open_image_folders(root)


def trained(images, folder, settings=SETTINGS, report=no_report) -> dict[str, torch.Tensor]:
    """The weights after training and, with the prefix "average.", their average."""
    network = tiny_network()
    average = train_classifier(network, images, settings, folder, device="cpu", report=report)
    return {**network.state_dict(), **{f"average.{name}": value for name, value in average.state_dict().items()}}


def train_share(pictures: str, out: str, rendezvous: str, rank: int) -> None:
    """The training of one of two processes."""
    loop.computes_bfloat16 = lambda device: False
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    weights = trained(open_image_folders(pictures), Path(out) / "training")
    torch.save(weights, f"{out}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow  # Starts two processes that import torch.
def test_two_processes_learn_what_one_does(images, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "computes_bfloat16", lambda device: False)
    program = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('shared', sys.argv[1]); "
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); "
        "module.train_share(*sys.argv[2:5], int(sys.argv[5]))"
    )
    words = [str(images.paths[0].parent.parent), str(tmp_path), str(tmp_path / "rendezvous")]
    running = [
        subprocess.Popen([sys.executable, "-c", program, __file__, *words, str(rank)], stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    alone = trained(images, tmp_path / "alone")
    for rank in range(2):
        together = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert together.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6)
    untrained = tiny_network().state_dict()
    assert max((alone[name] - value).abs().max().item() for name, value in untrained.items()) > 0.01


class Stop(Exception):
    pass


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(images, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "STEPS_BETWEEN", 2)

    def stop(stage, done, total, figures):
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        trained(images, tmp_path / "a", report=stop)
    steps = []
    resumed = trained(images, tmp_path / "a", report=lambda stage, done, total, figures: steps.append((done, total)))
    assert steps == [(3, 6), (4, 6), (5, 6), (6, 6)]
    whole = trained(images, tmp_path / "b")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


def test_another_seed_gives_other_weights(images, tmp_path):
    one = trained(images, tmp_path / "a")
    other = trained(images, tmp_path / "b", replace(SETTINGS, seed=1))
    assert not torch.equal(one["main.weight"], other["main.weight"])


def test_a_checkpoint_of_another_network_is_refused(images, tmp_path):
    trained(images, tmp_path)
    other = tiny_network()
    other.hidden = nn.Linear(48, 8, bias=False)
    with pytest.raises(TrainingError, match=r"network was of 428 weights, is of 420 weights"):
        train_classifier(other, images, SETTINGS, tmp_path, device="cpu")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_named_by_every_reading_process(images, tmp_path, workers):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    some = replace(images, paths=[*images.paths[:-1], broken])
    with pytest.raises(ImageError, match=r"broken\.png: not a JPEG"):
        train_classifier(tiny_network(), some, replace(SETTINGS, batch=10), tmp_path, device="cpu", workers=workers)


@pytest.mark.slow  # Training of the real GoogLeNet
@pytest.mark.parametrize("separable", [False, True])
def test_the_loss_of_an_untrained_network_starts_near_guessing_and_stays_finite(images, tmp_path, separable):
    torch.manual_seed(0)
    losses = []
    train_classifier(
        untrained(2, separable=separable),
        images,
        PretrainSettings(epochs=1, batch=4),  # with the default learning rate
        tmp_path,
        device="cpu",
        report=lambda stage, done, total, figures: losses.append(figures["loss"]),
    )
    guessing = np.log(2) * (1 + 2 * 0.3)  # The two auxiliary heads count three tenths each.
    assert losses[0] < 3 * guessing
    assert max(losses) < 100  # Weights that keep the spread of the pixels give millions, then NaN.


def test_two_colours_are_learned(images, tmp_path):
    network = tiny_network()
    average = train_classifier(network, images, replace(SETTINGS, epochs=30), tmp_path, device="cpu")
    assert accuracy(average, images, device="cpu") == (1.0, 1.0)


def test_the_learning_rate_falls_by_4_percent_every_8_epochs():
    rates = [learning_rate(PretrainSettings(learning_rate=1), epoch) for epoch in (0, 7, 8, 16)]
    assert rates == pytest.approx([1, 1, 0.96, 0.9216])


def test_auxiliary_heads_count_three_tenths():
    main = torch.zeros(1, 2)  # probability 1/2 of the label: cross-entropy ln 2 = 0.6931
    auxiliary = torch.tensor([[np.log(3), 0]])  # probability 3/4: ln 4/3 = 0.2877
    labels = torch.tensor([0])
    assert classification_loss(main, labels, 0.3).item() == pytest.approx(0.6931, abs=1e-4)
    with_heads = classification_loss((main, auxiliary, auxiliary), labels, 0.3)
    assert with_heads.item() == pytest.approx(0.6931 + 0.3 * 2 * 0.2877, abs=1e-4)


def test_an_epoch_shows_every_picture_once_and_shares_together_are_the_batch():
    settings = PretrainSettings(epochs=2, batch=4)
    whole = list(pretrain._BatchShares(12, settings, 0, 1, range(6)))
    for epoch in range(2):
        assert Counter(chain(*whole[epoch * 3 : epoch * 3 + 3])) == Counter((epoch, n) for n in range(12))
    assert whole[:3] != whole[3:]
    halves = [list(pretrain._BatchShares(12, settings, rank, 2, range(6))) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert list(pretrain._BatchShares(12, settings, 0, 1, range(4, 6))) == whole[4:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (replace(SETTINGS, batch=11), "fewer than a batch of 11"),
        (replace(SETTINGS, learning_rate=1e38), "lower"),
    ],
)
def test_errors_name_the_remedy_and_the_batch_of_a_failed_step_is_saved(images, tmp_path, settings, message):
    with pytest.raises(TrainingError, match=message):
        trained(images, tmp_path, settings)
    for kept in tmp_path.glob("failed_batch*"):
        assert message == "lower"
        batch = load_file(kept)
        assert batch["inputs"].shape == (4, 224, 224, 3)
        with safe_open(kept, framework="pt") as file:
            pictures = json.loads(file.metadata()["pictures"])
        names = [Path(path).parent.name for path in pictures]
        assert [images.classes[label] for label in batch["labels"].tolist()] == names
    assert message != "lower" or (tmp_path / "failed_batch.safetensors").exists()
