"""The views of annotated pictures that a MultiBox network is trained on: mirrored crops, with boxes in their pixels.

"Random-area crops, flips, colour": Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015), section 6, and
"Scalable, high-quality object detection" (2014). Views are drawn before the training, as functions of the seed and of
the picture's place in the data set, so that the features of frozen blocks can be stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...data import boxes as box_ops
from ...data.augment import distort_colours
from ...data.dataset import Dataset, Sample
from ...data.images import read_image, read_size
from ..warping.warp import warp_regions

# A view must show at least this share of an object's area for the object to be found in it. Objects of which it shows
# less are ignored.
SHOWN = 0.5
# Share of the views that show the picture reduced in size, surrounded by the mean colour. The pictures have too few
# small objects to learn from.
REDUCED = 0.2
# Random windows to try before the view shows the whole picture.
_TRIES = 10


@dataclass(frozen=True, eq=False)
class View:
    """A window over a picture.

    Attributes:
        window: float64 (x1, y1, x2, y2) in pixels of the picture; it may reach beyond the picture.
        mirrored: whether the window's content is mirrored left to right.
        boxes: float32 [N, 4], objects to find, in pixels of the view.
        ignored: float32 [M, 4], objects that count neither as objects nor as background, in pixels of the view:
            difficult objects, and objects of which the view shows less than `SHOWN`.
    """

    window: np.ndarray
    mirrored: bool
    boxes: np.ndarray
    ignored: np.ndarray


def draw_view(sample: Sample, width: int, height: int, size: int, number: int, rng: np.random.Generator) -> View:
    """Draw view `number` of a picture: the whole picture for number 0, else a random window that shows an object.

    A window has 20 to 100 % of the picture's area, and 3/4 to 4/3 of its aspect ratio. One in five windows is larger
    than the picture, see `REDUCED`.

    Args:
        sample: the picture's objects.
        width, height: size of the picture in pixels.
        size: side of the view in pixels.
        number: number of the view, from 0.
        rng: random numbers for the window and the mirroring.
    """
    whole = np.array([0, 0, width, height], np.float64)
    mirrored = bool(rng.random() < 0.5)
    if number:
        for _ in range(_TRIES):
            view = _view_of(_draw_window(width, height, rng), mirrored, sample, size)
            if len(view.boxes):
                return view
    return _view_of(whole, mirrored, sample, size)


def render_view(image: np.ndarray, view: View, size: int, rng: np.random.Generator) -> np.ndarray:
    """Render a view of `image`, uint8 RGB [H, W, 3], with random colours: uint8 RGB [size, size, 3]."""
    crop = warp_regions(image, view.window[None], size=size, padding=0)[0]
    return distort_colours(crop[:, ::-1] if view.mirrored else crop, rng)


def all_views(dataset: Dataset, views: int, size: int, seed: int) -> list[View]:
    """Draw `views` views of each picture, in the order of the data set. Only the sizes of the pictures are read."""
    drawn = []
    for index, sample in enumerate(dataset):
        width, height = read_size(sample.path)
        for number in range(views):
            rng = np.random.default_rng([seed, 6, index, number])
            drawn.append(draw_view(sample, width, height, size, number, rng))
    return drawn


def rendered_views(
    dataset: Dataset, drawn: list[View], views: int, size: int, seed: int, first: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Render the views `drawn`, picture by picture, from view number `first` on.

    Yields:
        The number of the picture's first view, and its views, uint8 [views, size, size, 3].
    """
    for index in range(first // views, len(dataset)):
        image = read_image(dataset[index].path)
        rows = range(index * views, (index + 1) * views)
        yield (
            rows.start,
            np.stack([render_view(image, drawn[row], size, np.random.default_rng([seed, 7, row])) for row in rows]),
        )


def _draw_window(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """A random window (x1, y1, x2, y2) in pixels of the picture."""
    if rng.random() < REDUCED:
        scale = rng.uniform(1, 2)
        sides = np.array([width, height]) * scale
        corner = -rng.random(2) * (sides - (width, height))
    else:
        area, aspect = rng.uniform(0.2, 1), np.exp(rng.uniform(-1, 1) * np.log(4 / 3))
        shares = np.minimum(np.sqrt(area) * np.sqrt([aspect, 1 / aspect]), 1)
        sides = shares * (width, height)
        corner = rng.random(2) * ((width, height) - sides)
    return np.concatenate([corner, corner + sides])


def _view_of(window: np.ndarray, mirrored: bool, sample: Sample, size: int) -> View:
    """The view of a window, with the objects that it shows."""
    scale = size / (window[2:] - window[:2])
    moved = ((sample.boxes.astype(np.float64) - np.tile(window[:2], 2)) * np.tile(scale, 2)).astype(np.float32)
    boxes = box_ops.clip(moved, size, size)
    if mirrored:
        boxes = box_ops.flip_horizontal(boxes, size)
    shown = box_ops.area(boxes) / np.maximum(box_ops.area(moved), 1e-6)
    found = (shown >= SHOWN) & ~sample.difficult
    return View(window, mirrored, boxes[found], boxes[(shown > 0) & ~found])
