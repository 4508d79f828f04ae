"""Reuse of buffers from image to image."""

import numpy as np

from inception_rcnn.proposals import workspace
from inception_rcnn.proposals.workspace import KEPT_BYTES, Workspace, borrow, drop_large


def test_a_smaller_request_reuses_the_memory_and_a_larger_one_allocates_it_anew() -> None:
    room = Workspace()
    first = room.take("a", (10, 10), np.int32)
    first[:] = 7
    assert room.take("a", (5, 4), np.int32).tolist() == [[7] * 4] * 5
    assert np.shares_memory(first, room.take("a", 100, np.int32))
    assert not np.shares_memory(first, room.take("a", 1000, np.int32))
    assert room.take("a", 3, np.float32).dtype == np.float32


def test_two_borrowers_never_share_a_workspace() -> None:
    with borrow() as one, borrow() as other:
        assert one is not other
    with borrow() as again:
        assert again in (one, other)


def test_a_workspace_that_a_huge_image_has_enlarged_is_not_kept() -> None:
    with borrow() as huge, borrow() as small:
        huge.take("a", KEPT_BYTES + 1, np.uint8)
        small.take("a", 10, np.uint8)
    drop_large()
    assert huge not in workspace._free
    assert small in workspace._free
