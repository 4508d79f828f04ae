"""Follow one photograph through the detector and make the pictures of docs/how_it_works.md.

    python docs/how_it_works.py

The script takes about a minute. It writes docs/how_it_works/*.jpg. The captions in the pictures hold the numbers, so
that the page stays right when the model changes: run the script again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from skimage.segmentation import mark_boundaries

from inception_rcnn import Detector, read_image, selective_search
from inception_rcnn.detection.warping.warp import warp_regions
from inception_rcnn.proposals.colour import convert
from inception_rcnn.proposals.combine import combine
from inception_rcnn.proposals.pixel_edges import sorted_edges
from inception_rcnn.proposals.segmentation import components, smooth_planes, split_channels
from inception_rcnn.proposals.workspace import borrow

FOLDER = Path(__file__).with_suffix("")
SMALLEST_K = 50  # of the strategies "fast"
DRAWN_BOXES = 150
DRAWN_OF_MULTIBOX = 50
SHOWN_REGIONS = 12


def superpixels(image: np.ndarray, k: float, connectivity: int) -> tuple[np.ndarray, int]:
    """The superpixel of each pixel in the HSV colour space, uint32 [H, W], and their number."""
    height, width = image.shape[:2]
    with borrow() as workspace, borrow() as scratch:
        planes = split_channels(convert(image, "hsv"), scratch)
        edges = sorted_edges(smooth_planes(planes, scratch), connectivity, k, workspace)
        labels, count = components(edges, height, width, k, round(k), scratch)
        return labels[: height * width].reshape(height, width).copy(), count


def axes_of(image: np.ndarray, title: str) -> tuple[Figure, Axes]:
    """A figure that shows the picture under its caption."""
    height, width = image.shape[:2]
    figure, axes = plt.subplots(figsize=(7, 7 * height / width + 0.4), layout="constrained")
    axes.imshow(image)
    axes.set_title(title, fontsize=11)
    axes.set_axis_off()
    return figure, axes


def save(figure: Figure, name: str) -> None:
    figure.savefig(FOLDER / f"{name}.jpg", dpi=110, pil_kwargs={"quality": 80})
    plt.close(figure)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, title: str, name: str) -> None:
    """Writes the picture with boxes [N, 4], each in another colour."""
    figure, axes = axes_of(image, title)
    colours = plt.colormaps["turbo"](np.linspace(0, 1, max(len(boxes), 1)))
    for (x1, y1, x2, y2), colour in zip(boxes, colours, strict=False):
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=0.9))
    save(figure, name)


def draw_crops(crops: np.ndarray, captions: list[str], title: str, name: str) -> None:
    """Writes crops [N, 224, 224, 3] in rows of six, each over its caption."""
    rows = -(-len(crops) // 6)
    figure, grid = plt.subplots(rows, 6, figsize=(7, 1.42 * rows + 0.4), layout="constrained", squeeze=False)
    figure.suptitle(title, fontsize=11)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, crop, caption in zip(grid.flat, crops, captions, strict=False):
        axes.imshow(crop)
        axes.set_title(caption, fontsize=7)
    save(figure, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    photograph = Path(skimage.__file__).parent / "data" / "chelsea.png"
    parser.add_argument("--picture", type=Path, default=photograph, help="photograph; default: a cat of scikit-image")
    parser.add_argument("--model", default="default", help="model folder with MultiBox and a screen")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    image = read_image(arguments.picture)
    height, width = image.shape[:2]
    detector = Detector.load(arguments.model)
    if detector.multibox is None or detector.screen is None:
        parser.error(f"{arguments.model}: the model needs a MultiBox network and a screen")
    regions = detector.regions
    names = [category.name for category in detector.categories]

    labels, count = superpixels(image, SMALLEST_K * regions.superpixel_scale, regions.connectivity)
    marked = (mark_boundaries(image, labels, color=(1, 1, 0)) * 255).astype(np.uint8)
    save(axes_of(marked, f"{count:,} superpixels")[0], "superpixels")

    selective = selective_search(
        image, superpixel_scale=regions.superpixel_scale, min_side=regions.min_side, connectivity=regions.connectivity
    )
    drawn = np.random.default_rng(0).permutation(len(selective))[:DRAWN_BOXES]
    title = f"{len(selective):,} boxes of selective search; {len(drawn)} are drawn"
    draw_boxes(image, selective.boxes[drawn], title, "selective_search")

    view = detector.multibox.look(image)
    best = view.proposals.top(DRAWN_OF_MULTIBOX)
    title = f"{len(view.proposals)} boxes of MultiBox; the best {len(best)} are drawn"
    draw_boxes(image, best.boxes, title, "multibox")

    union = combine(selective, view.proposals)
    assert view.feature_map is not None
    kept = detector.screen.keep(union, view.feature_map, width, height)
    title = f"The screen keeps {len(kept)} of {len(union):,} regions"
    draw_boxes(image, kept.boxes, title, "screen")

    (scored,) = detector.score_files([arguments.picture])
    boxes, probabilities = scored.proposals.boxes, scored.scores.probabilities
    shown = np.linspace(0, len(boxes) - 1, min(SHOWN_REGIONS, len(boxes))).round().astype(int)
    crops = warp_regions(image, boxes[shown], padding=regions.padding, mode=regions.warp_mode)
    sizes = [f"{x2 - x1:.0f} x {y2 - y1:.0f} pixels" for x1, y1, x2, y2 in boxes[shown]]
    title = f"{len(shown)} of the {len(boxes)} regions, warped to {crops.shape[1]} x {crops.shape[2]} pixels"
    draw_crops(crops, sizes, title, "warped")
    captions = []
    for row in probabilities[shown]:
        best = int(row[1:].argmax())
        captions.append(f"{names[best]} {row[1 + best]:.2f}\nbackground {row[0]:.2f}")
    draw_crops(crops, captions, f"The mean of {len(detector.ensemble.engines)} networks", "scores")

    found = detector.detections(scored).above(0.5)
    drawing = found.draw(image)
    save(axes_of(drawing, f"Detections with a score of at least 0.5: {len(found)}")[0], "detections")


if __name__ == "__main__":
    main()
