"""Priors clustered from the objects of views."""

import numpy as np
import pytest

from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.priors import object_sides, prior_grids
from inception_rcnn.detection.training.views import View
from inception_rcnn.proposals.multibox import PriorGrid


def view(*sides: tuple[float, float]) -> View:
    """A view with objects of the given widths and heights."""
    boxes = np.array([(5, 7, 5 + width, 7 + height) for width, height in sides], np.float32).reshape(-1, 4)
    return View(np.array([0.0, 0, 448, 448]), False, boxes, np.zeros((0, 4), np.float32))


def test_each_size_gets_the_map_that_suits_it():
    grids = prior_grids([view((20, 40), (300, 300)), view((100, 64))], shapes=3, seed=0)
    assert grids == [PriorGrid(16, 2, ((20, 40),)), PriorGrid(16, 1, ((100, 64),)), PriorGrid(32, 1, ((300, 300),))]


def test_a_map_without_priors_is_left_out():
    assert prior_grids([view((20, 40))], shapes=1, seed=0) == [PriorGrid(16, 2, ((20, 40),))]


def test_objects_with_a_side_below_4_pixels_are_not_clustered():
    assert object_sides([view((3, 50), (4, 50)), view()], shapes=1).tolist() == [[4, 50]]


@pytest.mark.parametrize("views", [[], [view()], [view((20, 40)), view((20, 40))]])
def test_fewer_sizes_than_shapes_are_an_error(views):
    with pytest.raises(TrainingError, match=f"{len(views)} views show .* fewer than the 2 shapes of priors"):
        object_sides(views, shapes=2)
