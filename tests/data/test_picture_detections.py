"""The detections in a picture."""

import numpy as np
import pytest

from inception_rcnn.data.picture_detections import PictureDetections


@pytest.mark.parametrize(("subclasses", "rows"), [(None, [-1, -1]), (np.array([3, -1]), [3, -1])])
def test_a_subclass_that_is_not_known_has_the_row_minus_one(subclasses, rows):
    found = PictureDetections("a.jpg", 50, 40, np.zeros((2, 4)), np.zeros(2), np.array([58, 7]), subclasses)
    assert found.subclass_rows().tolist() == rows
