"""Batches of views, with features that identify the view."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.training.view_batches import ViewBatches
from inception_rcnn.detection.training.views import View
from inception_rcnn.proposals.multibox import BACKGROUND, IGNORED

PICTURES, VIEWS = 5, 3
PRIORS = np.array([[0, 0, 10, 10], [20, 20, 40, 40], [50, 0, 60, 10]], np.float32)


@pytest.fixture
def batches() -> ViewBatches:
    """Batches of 2 views of 5 pictures with 3 views each. The feature of a view is its number."""
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    samples = [Sample(str(number), number + 1, Path(f"{number}.jpg"), *nothing) for number in range(PICTURES)]
    view = View(np.array([0.0, 0, 64, 64]), False, PRIORS[1:2], PRIORS[2:])
    return ViewBatches(
        Dataset("five", [], samples, lambda sample: sample),
        [view] * (PICTURES * VIEWS),
        np.arange(PICTURES * VIEWS, dtype=np.float16)[:, None],
        PRIORS,
        size=64,
        batch=2,
        seed=0,
    )


def test_an_epoch_shows_every_picture_once_and_three_epochs_show_every_view_once(batches):
    shown = [int(view) for step in range(15) for view in batches(step)[0]]
    epochs = [shown[start : start + PICTURES] for start in range(0, 30, PICTURES)]
    for epoch in epochs:
        assert sorted(view // VIEWS for view in epoch) == list(range(PICTURES))
    assert sorted(shown[: 3 * PICTURES]) == list(range(PICTURES * VIEWS))
    assert Counter(shown) == dict.fromkeys(range(PICTURES * VIEWS), 2)
    assert len({tuple(view // VIEWS for view in epoch) for epoch in epochs}) > 1


def test_the_pictures_of_a_batch_are_those_of_its_views(batches):
    for step in range(5):
        views = batches(step)[0][:, 0].int().tolist()
        assert batches.pictures(step) == [Path(f"{view // VIEWS}.jpg") for view in views]


def test_priors_are_assigned_to_objects_background_or_ignored_objects(batches):
    _, assignment, offsets = batches(0)
    assert assignment.tolist() == [[BACKGROUND, 0, IGNORED]] * 2
    assert offsets.shape == (2, 3, 4)
    assert not offsets.any()  # The prior is exactly the object's box, and other priors have no offsets.
