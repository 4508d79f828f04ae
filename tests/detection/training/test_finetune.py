"""Fine-tuning on windows that are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from inception_rcnn.detection.model_files import RegionSettings
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training import lower_features
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.finetune import FineTuneSettings, discard_features, fine_tune
from inception_rcnn.detection.training.windows import Windows

pytestmark = pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")

SETTINGS = FineTuneSettings(iterations=2, positives=2, backgrounds=4, freeze_below="inception_5b", learning_rate=1e-3)


@pytest.fixture
def windows(dataset) -> Windows:
    """The object and two backgrounds in each picture."""
    boxes = [[sample.boxes[0], [0, 0, 40, 30], [60, 40, 100, 80]] for sample in dataset]
    labels = [[1 + number % 2, 0, 0] for number in range(len(dataset))]
    images = np.repeat(np.arange(len(dataset), dtype=np.int32), 3)
    return Windows(images, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels).ravel())


def network() -> GoogLeNet:
    torch.manual_seed(1)
    return GoogLeNet(3, auxiliary=False)


def tuned(dataset, windows, folder, settings=SETTINGS, **arguments) -> dict[str, torch.Tensor]:
    """The weights after fine-tuning."""
    trained = network()
    fine_tune(trained, dataset, windows, RegionSettings(), settings, folder, device="cpu", **arguments)
    assert not trained.training
    return trained.state_dict()


def changed_blocks(weights) -> set[str]:
    """The blocks of which any weight changed."""
    before = network().state_dict()
    changed = [name.removeprefix("trunk.") for name in before if not torch.equal(before[name], weights[name])]
    return {name.split(".")[0] for name in changed}


def test_blocks_below_the_named_block_are_frozen(dataset, windows, tmp_path):
    assert changed_blocks(tuned(dataset, windows, tmp_path)) == {"inception_5b", "classifier"}


def test_without_frozen_blocks_the_whole_network_is_trained(dataset, windows, tmp_path):
    weights = tuned(dataset, windows, tmp_path, replace(SETTINGS, freeze_below=None))
    assert {"conv1", "inception_5b", "classifier"} <= changed_blocks(weights)


def test_members_share_features_and_differ_in_batches(dataset, windows, tmp_path):
    stages = []
    first, second = (
        tuned(dataset, windows, tmp_path, member=member, stage=f"member {member}", report=lambda *s: stages.append(s))
        for member in (1, 2)
    )
    assert [state[0] for state in stages] == ["frozen blocks"] + ["member 1"] * 2 + ["member 2"] * 2
    assert not torch.equal(first["classifier.weight"], second["classifier.weight"])
    discard_features(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["member_1", "member_2"]


def test_crops_come_in_groups_of_whole_pictures_from_any_picture_on(dataset, windows, monkeypatch):
    monkeypatch.setattr(lower_features, "_CROPS_TOGETHER", 4)
    from_start = list(lower_features.window_crops(dataset, windows, RegionSettings(), 0, 0))
    later = list(lower_features.window_crops(dataset, windows, RegionSettings(), 0, 3))
    assert [(start, len(crops)) for start, crops in from_start] == [(0, 6), (6, 6)]
    assert [(start, len(crops)) for start, crops in later] == [(3, 6), (9, 3)]
    whole = np.concatenate([crops for _, crops in from_start])
    np.testing.assert_array_equal(np.concatenate([crops for _, crops in later]), whole[3:])


def test_features_of_other_blocks_have_another_file(dataset, windows, tmp_path):
    made = {}
    for block in ("inception_5a", "inception_5b"):  # Both have an input of 52 x 7 x 7.
        tuned(dataset, windows, tmp_path, replace(SETTINGS, freeze_below=block), member=len(made) + 1)
        (file,) = tmp_path.glob(f"lower_features_*_{block}.npy")
        made[block] = np.load(file)
    assert made["inception_5a"].shape == made["inception_5b"].shape == (12, 52, 7, 7)
    assert (made["inception_5a"] != made["inception_5b"]).any()


def test_the_classifier_alone_is_trained_on_pooled_features(dataset, windows, tmp_path):
    weights = tuned(dataset, windows, tmp_path, replace(SETTINGS, freeze_below="classifier"))
    assert changed_blocks(weights) == {"classifier"}
    (file,) = tmp_path.glob("lower_features_*.npy")
    assert np.load(file).shape == (12, 64, 1, 1)


def test_the_batch_of_a_loss_that_is_not_finite_is_saved(dataset, windows, tmp_path):
    with pytest.raises(TrainingError, match=r"lower --learning-rate \(now 1e\+30\).*failed_batch"):
        tuned(dataset, windows, tmp_path, replace(SETTINGS, learning_rate=1e30, iterations=4))
    file = tmp_path / "member_1" / "failed_batch.safetensors"
    batch = load_file(file)
    assert batch["inputs"].shape == (6, 52, 7, 7)
    assert (batch["labels"] > 0).tolist() == [True] * 2 + [False] * 4
    with safe_open(file, framework="pt") as opened:
        pictures = json.loads(opened.metadata()["pictures"])
    numbers = {str(sample.path): number for number, sample in enumerate(dataset)}
    for picture, box in zip(pictures, batch["boxes"].numpy(), strict=True):
        assert box.tolist() in windows.boxes[windows.images == numbers[picture]].tolist()


def test_an_unknown_block_is_refused_with_the_known_blocks(dataset, windows, tmp_path):
    with pytest.raises(TrainingError, match=r"inception_6a.*inception_5b"):
        tuned(dataset, windows, tmp_path, replace(SETTINGS, freeze_below="inception_6a"))
