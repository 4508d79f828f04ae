"""Measures number of boxes, recall and average recall of selective search on ILSVRC val, for docs/proposals.md.

    python benchmarks/proposal_recall.py ILSVRC_FOLDER --start 2 --step 3 --plot docs/proposals.png \
        --peer-python contrib/bin/python

`--start 2 --step 3` selects every third picture, beginning with the third. Without `--peer-python` (see
selective_search.py) OpenCV-contrib is not measured. An object counts as found if any box overlaps it enough.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from selective_search import Peer

from inception_rcnn import Proposals, read_image, selective_search
from inception_rcnn.data.dataset import Sample
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.proposals.recall import Coverage, average_recall_coco, measure, recall

COUNTS = (10, 30, 100, 200, 300, 500, 1000, 2000)
ALL = len(COUNTS)
SETTINGS: dict[str, dict[str, Any]] = {
    "scale 1": {"superpixel_scale": 1},
    "scale 1.5": {"superpixel_scale": 1.5},
    "scale 2": {"superpixel_scale": 2},
    "scale 3": {"superpixel_scale": 3},
    "half resolution (width 250), scale 1": {"superpixel_scale": 1, "width": 250},
    "scale 2, 8-connected": {"superpixel_scale": 2, "connectivity": 8},
}
# In pixels of a picture of width 500, also at half resolution.
MIN_SIDES = (0, 10, 20)


def searcher(settings: dict[str, Any], min_side: float) -> Callable[[Sample], Proposals]:
    """Returns selective search with these settings and a minimum side in pixels of a picture of width 500."""
    side = min_side * settings.get("width", 500) / 500
    return lambda sample: selective_search(read_image(sample.path), **settings, min_side=side)


def peer_searcher(python: str) -> Callable[[Sample], Proposals]:
    """Returns OpenCV-contrib's fast mode, with the boxes in OpenCV's order."""
    peer = Peer(python, 1, boxes=True)

    def search(sample: Sample) -> Proposals:
        boxes = np.array(peer.search(sample.path)["boxes"], np.float32).reshape(-1, 4)
        return Proposals(boxes, -np.arange(len(boxes), dtype=np.float32))

    return search


def row(name: str, coverage: Coverage, at: int = ALL) -> str:
    """Formats a table row for the first COUNTS[at] boxes of each picture, or for all boxes."""
    boxes = coverage.proposals if at == ALL else np.minimum(coverage.proposals, COUNTS[at])
    closest = coverage.closest[at]
    found = recall(closest, [0.5])[0]
    return f"| {name} | {boxes.mean():.0f} | {found:.3f} | {average_recall_coco(closest):.3f} | {closest.mean():.3f} |"


def plot(curves: dict[str, Coverage], file: Path) -> None:
    """Plots recall and average recall over the mean number of boxes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for name, coverage in curves.items():
        counts = [np.minimum(coverage.proposals, count).mean() for count in COUNTS] + [coverage.proposals.mean()]
        axes[0].plot(counts, [recall(overlaps, [0.5])[0] for overlaps in coverage.closest], marker=".", label=name)
        axes[1].plot(counts, [average_recall_coco(overlaps) for overlaps in coverage.closest], marker=".", label=name)
    for axis, what in zip(axes, ("recall at 0.5 IoU", "average recall, 0.5 to 0.95"), strict=True):
        axis.set(xscale="log", xlabel="boxes a picture (mean)", ylabel=what)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data set in the ILSVRC DET layout; the val split is used")
    parser.add_argument("--start", type=int, default=0, help="index of the first picture")
    parser.add_argument("--step", type=int, default=1, help="distance between the selected pictures")
    parser.add_argument(
        "--peer-python",
        default=os.environ.get("INCEPTION_RCNN_CONTRIB_PYTHON"),
        help="Python interpreter with opencv-contrib-python (default: $INCEPTION_RCNN_CONTRIB_PYTHON)",
    )
    parser.add_argument("--plot", type=Path, help="write the curves to this image file")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.ilsvrc, "val")
    samples = [dataset[i] for i in range(arguments.start, len(dataset), arguments.step)]
    print(f"{len(samples)} pictures, {sum(len(sample.boxes) for sample in samples)} objects\n")
    print("| setting | boxes | recall at 0.5 | AR | mean best overlap |\n|---|---|---|---|---|")
    curves: dict[str, Coverage] = {}
    if arguments.peer_python:
        name = "OpenCV-contrib fast"
        curves[name] = measure(samples, peer_searcher(arguments.peer_python), COUNTS)
        print(row(name, curves[name]), flush=True)
    for name, settings in SETTINGS.items():
        for min_side in MIN_SIDES:
            coverage = measure(samples, searcher(settings, min_side), COUNTS)
            print(row(f"{name}, sides >= {min_side} px", coverage), flush=True)
            if min_side == 0 and "connected" not in name:
                curves[name] = coverage
    name = "scale 2, objectness order"
    curves[name] = measure(samples, searcher({"ranking": "objectness"}, 0), COUNTS)
    print("\n| order, first N | boxes | recall at 0.5 | AR | mean best overlap |\n|---|---|---|---|---|")
    for order in ("scale 2", name, "OpenCV-contrib fast"):
        for count in (100, 300, 1000):
            if order in curves:
                print(row(f"{order}, first {count}", curves[order], COUNTS.index(count)))
    if arguments.plot:
        plot(curves, arguments.plot)


if __name__ == "__main__":
    main()
