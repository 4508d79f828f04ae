"""Training a screen on four drawn pictures, with a tiny MultiBox network."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.training import checkpoint
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.screen import ScreenSettings, screen_examples, train_screen
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.screen import Screen

SETTINGS = ScreenSettings(iterations=30, batch=2, positives=4, near=6, far=4, learning_rate=0.01)


class SmallTrunk(nn.Module):
    """Two convolutions, with feature maps at strides 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        blocks = OrderedDict(inception_4e=nn.Conv2d(3, 8, 16, stride=16), inception_5b=nn.Conv2d(8, 8, 2, stride=2))
        self.trunk = nn.Sequential(blocks)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255 - 0.5


@pytest.fixture(scope="module")
def multibox() -> MultiBox:
    torch.manual_seed(0)
    return MultiBox(SmallTrunk(), [PriorGrid(16, 1, ((12, 12),))], width=8, sizes=(64,)).eval()


def regions(sample: Sample) -> Proposals:
    """The object of the picture, moved copies of it, and boxes elsewhere."""
    rng = np.random.default_rng(sample.index)
    corners = rng.uniform(0, 50, (20, 2))
    elsewhere = np.concatenate([corners, corners + rng.uniform(10, 40, (20, 2))], axis=1)
    boxes = np.concatenate([sample.boxes, sample.boxes + 2, sample.boxes - 8, elsewhere]).astype(np.float32)
    return Proposals(boxes, np.zeros(len(boxes), np.float32))


def trained(
    multibox: MultiBox,
    dataset: Dataset,
    folder: Path,
    settings: ScreenSettings = SETTINGS,
    report=None,
    start: Screen | None = None,
):
    reports: list[tuple] = []
    screen = train_screen(
        multibox,
        dataset,
        regions,
        [category for category in dataset.categories if category.name in ("dog", "domestic cat")],
        settings,
        folder,
        start=start,
        device="cpu",
        report=report or (lambda *one: reports.append(one)),
    )
    return screen, reports


@pytest.fixture(scope="module")
def uninterrupted(multibox, dataset, tmp_path_factory):
    return trained(multibox, dataset, tmp_path_factory.mktemp("uninterrupted"))


def test_a_region_is_labelled_with_the_class_and_the_iou_of_its_object(dataset):
    # Picture 1 shows a dog at (31, 20, 80, 60), 49 x 40 pixels. The second box has half of it, the third none.
    boxes = np.array([[31, 20, 80, 60], [31, 20, 80, 40], [0, 0, 20, 10]], np.float32)
    dog = next(category for category in dataset.categories if category.name == "dog")
    cat = next(category for category in dataset.categories if category.name == "domestic cat")
    found = screen_examples(dataset[1], Proposals(boxes, np.zeros(3, np.float32)), (cat, dog), 64)
    assert found.labels.tolist() == [2, 2, 0]
    np.testing.assert_allclose(found.overlaps, [1, 0.5, 0])
    np.testing.assert_allclose(found.boxes[0], [31 * 0.64, 20 * 0.8, 80 * 0.64, 60 * 0.8], rtol=1e-6)  # 100 x 80 -> 64


def test_regions_of_difficult_objects_are_left_out_and_unknown_classes_are_background(dataset):
    boxes = np.array([[31, 20, 80, 60], [0, 0, 20, 10]], np.float32)
    proposals = Proposals(boxes, np.zeros(2, np.float32))
    difficult = replace(dataset[1], difficult=np.ones(1, np.bool_))
    assert screen_examples(difficult, proposals, dataset.categories, 64).labels.tolist() == [0]
    cat = [category for category in dataset.categories if category.name == "domestic cat"]
    unknown = screen_examples(dataset[1], proposals, cat, 64)
    assert unknown.labels.tolist() == [0, 0]


def test_regions_far_from_all_boxes_are_left_out_where_some_classes_are_not_annotated(dataset):
    boxes = np.array([[31, 20, 80, 60], [31, 20, 40, 60], [0, 0, 20, 10]], np.float32)  # IoU 1, 0.18 and 0
    proposals = Proposals(boxes, np.zeros(3, np.float32))
    partly = replace(dataset[1], annotated=frozenset(dataset[1].labels.tolist()))
    assert (screen_examples(partly, proposals, dataset.categories, 64).labels > 0).tolist() == [True, False]


def test_a_screen_names_the_classes_of_its_examples(uninterrupted, multibox, dataset, tmp_path):
    known = [one.name for one in dataset.categories if one.name in ("dog", "domestic cat")]
    assert uninterrupted[0].class_names == tuple(known)
    only_dogs = dataset.part([number for number in range(len(dataset)) if dataset[number].labels.tolist() == [58]])
    screen, _ = trained(multibox, only_dogs, tmp_path, replace(SETTINGS, iterations=1))
    assert screen.class_names == tuple(name if name == "dog" else None for name in known)


def test_training_lowers_the_loss_and_finds_the_object(uninterrupted, multibox, dataset):
    _, reports = uninterrupted
    losses = [figures["loss"] for stage, _, _, figures in reports if stage == "screen"]
    assert len(losses) == SETTINGS.iterations
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert {stage for stage, *_ in reports} == {"regions", "feature maps", "screen"}


def test_an_interrupted_training_gives_the_same_screen(uninterrupted, multibox, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.Checkpoint, "due", lambda self, step: True)

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if stage == "screen" and done == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(multibox, dataset, tmp_path, report=stop)
    resumed, reports = trained(multibox, dataset, tmp_path)
    assert next(done for stage, done, *_ in reports if stage == "screen") in (11, 12)
    for name, value in uninterrupted[0].state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)
    assert not list(tmp_path.glob("screen_maps_*"))  # The maps are large and deleted at the end.


def test_a_small_data_set_is_trained_on_for_fewer_steps(multibox, dataset, tmp_path):
    _, reports = trained(multibox, dataset, tmp_path, replace(SETTINGS, passes=3))
    assert sum(stage == "screen" for stage, *_ in reports) == 3 * len(dataset) / SETTINGS.batch


def test_training_starts_from_a_screen_with_other_classes_and_its_shape(multibox, dataset, tmp_path):
    start = Screen(7, 8, 8, width=16, grid=3, hidden=32)
    still = replace(SETTINGS, iterations=1, learning_rate=0.0)
    screen, _ = trained(multibox, dataset, tmp_path / "a", still, start=start)
    for name, value in start.state_dict().items():
        if not name.startswith("classifier."):
            torch.testing.assert_close(screen.state_dict()[name], value, rtol=0, atol=0)
    assert screen.num_classes == 2
    trained(multibox, dataset, tmp_path / "b", still)
    with pytest.raises(TrainingError, match="data and weights"):
        trained(multibox, dataset, tmp_path / "b", still, start=start)


def test_a_checkpoint_of_other_settings_is_refused(multibox, dataset, tmp_path):
    trained(multibox, dataset, tmp_path, replace(SETTINGS, iterations=2))
    with pytest.raises(TrainingError, match=r"positives was 4, is 5"):
        trained(multibox, dataset, tmp_path, replace(SETTINGS, iterations=2, positives=5))


def test_pictures_without_known_objects_are_refused(multibox, dataset, tmp_path):
    with pytest.raises(TrainingError, match="no region of 4 pictures covers an object of a known class"):
        train_screen(
            multibox,
            dataset,
            lambda sample: Proposals(np.array([[0, 0, 5, 5]], np.float32), np.zeros(1, np.float32)),
            dataset.categories,
            SETTINGS,
            tmp_path,
            device="cpu",
        )
