"""Views of annotated pictures that a MultiBox network is trained on: crops, mirrored, colours distorted, boxes right.

"Random-area crops, flips, colour": Szegedy et al., "Going Deeper with Convolutions" (CVPR 2015), section 6, and
"Scalable, high-quality object detection" (2014). The views are drawn once, as functions of the seed and of the
picture's place in the data set, so that what frozen blocks make of them can be kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...data import boxes as box_ops
from ...data.augment import distort_colours
from ...data.dataset import Dataset, Sample
from ...data.images import read_image, read_size
from ..warping.warp import warp_regions

# An object is sought in a view that shows at least this share of it, and ignored where a lesser part is left.
SHOWN = 0.5
# One view in five shows the picture reduced, with the mean colour around it: small objects are too few to learn from.
REDUCED = 0.2
_TRIES = 10


@dataclass(frozen=True, eq=False)
class View:
    """A window over a picture.

    Attributes:
        window: float64 (x1, y1, x2, y2) in pixels of the picture; it may reach beyond it.
        mirrored: whether left and right are exchanged afterwards.
        boxes: float32 [N, 4] in pixels of the view, the objects to be found.
        ignored: float32 [M, 4], objects to be neither found nor missed: difficult ones, and remains of cut ones.
    """

    window: np.ndarray
    mirrored: bool
    boxes: np.ndarray
    ignored: np.ndarray


def draw_view(sample: Sample, width: int, height: int, size: int, number: int, rng: np.random.Generator) -> View:
    """View `number` of a picture: the whole of it for number 0, else a random window with an object in it.

    Windows have a fifth to the whole of the picture's area and up to 4/3 of its aspect ratio, either way.

    Args:
        sample: the picture's objects.
        width, height: of the picture.
        size: side of the view in pixels.
        rng: source of window and mirroring.
    """
    whole = np.array([0, 0, width, height], np.float64)
    mirrored = bool(rng.random() < 0.5)
    if number:
        for _ in range(_TRIES):
            view = _view_through(_draw_window(width, height, rng), mirrored, sample, width, height, size)
            if len(view.boxes):
                return view
    return _view_through(whole, mirrored, sample, width, height, size)


def render_view(image: np.ndarray, view: View, size: int, rng: np.random.Generator) -> np.ndarray:
    """The pixels of a view: image uint8 RGB [H, W, 3] -> uint8 RGB [size, size, 3], colours distorted by `rng`."""
    crop = warp_regions(image, view.window[None], size=size, padding=0)[0]
    return distort_colours(crop[:, ::-1] if view.mirrored else crop, rng)


def all_views(dataset: Dataset, views: int, size: int, seed: int) -> list[View]:
    """The views of all pictures, `views` of each, in the order of the data set. Every picture's size is read."""
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
    """Number of the first view and the pixels, uint8 [views, size, size, 3], of one picture after the other."""
    for index in range(first // views, len(dataset)):
        image = read_image(dataset[index].path)
        rows = range(index * views, (index + 1) * views)
        yield (
            rows.start,
            np.stack([render_view(image, drawn[row], size, np.random.default_rng([seed, 7, row])) for row in rows]),
        )


def _draw_window(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
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


def _view_through(window: np.ndarray, mirrored: bool, sample: Sample, width: int, height: int, size: int) -> View:
    scale = size / (window[2:] - window[:2])
    moved = ((sample.boxes.astype(np.float64) - np.tile(window[:2], 2)) * np.tile(scale, 2)).astype(np.float32)
    boxes = box_ops.clip(moved, size, size)
    if mirrored:
        boxes = box_ops.flip_horizontal(boxes, size)
    shown = box_ops.area(boxes) / np.maximum(box_ops.area(moved), 1e-6)
    found = (shown >= SHOWN) & ~sample.difficult
    return View(window, mirrored, boxes[found], boxes[(shown > 0) & ~found])
