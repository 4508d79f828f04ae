"""Mean AP against cost: what the screen loses or gains when it leaves most regions out.

    python benchmarks/screen.py ILSVRC_FOLDER --scores scores/ --skip 80 --pictures 200 --plot docs/screen.png

The ensemble scores every region of some pictures of val, drawn at random; the scores are kept in
`--scores`. Each row of the table is computed from them as `detect` computes it. `--skip 80` leaves out the first
pictures of the draw, on which constants of the program and the thresholds of the screen were chosen. The cost counts a
region as 1 for the first network. Each further network that scores it adds the share of the multiply-adds in the blocks
that the networks do not share.

`--kept-only` scores only the regions that the screen keeps, which takes seconds a picture in place of half a minute.
The table then lacks the rows that need other regions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from results import Measurement, class_groups, part_of, print_rows, submission

from inception_rcnn import Detector, read_image
from inception_rcnn.data.ground_truth import read_ilsvrc_ground_truth
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.detector import FileResult, ScoredPicture
from inception_rcnn.detection.engines.engine import CROP_SIZE
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.model_files import load_model, model_digest
from inception_rcnn.detection.networks.backbones import Backbone, shared_blocks
from inception_rcnn.detection.networks.costs import layer_costs
from inception_rcnn.detection.pipeline import ScoredRegions
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.screen import ScreenThresholds, best_regions
from inception_rcnn.runtime.atomic_write import atomic_write


def own_share(members: Sequence[Backbone]) -> float:
    """The share of a member's multiply-adds that is in the blocks that the members do not share."""
    first = members[0]
    own = [name for name, _ in first.trunk.named_children()][shared_blocks(members) :]
    costs = layer_costs(first, 3, CROP_SIZE, CROP_SIZE)
    adds = {name: cost.multiply_adds for name, cost in costs.items()}
    upper = sum(count for name, count in adds.items() if name.removeprefix("trunk.").split(".")[0] in own)
    return (upper + adds["classifier"]) / sum(adds.values())


def collect(detector: Detector, path: Path, file: Path, kept_only: bool) -> None:
    """Score the regions of a picture, with the ensemble and with the screen, and store the scores."""
    image = read_image(path)
    height, width = image.shape[:2]
    screen = detector.screen
    assert screen is not None
    assert detector.multibox is not None
    detector.screen = screen if kept_only else None
    try:
        (picture,) = detector.score_files([path])
    finally:
        detector.screen = screen
    feature_map = detector.multibox.look(image).feature_map
    assert feature_map is not None
    classes, quality = screen.score(feature_map, picture.proposals.boxes, width, height)
    with atomic_write(file) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            size=[width, height],
            boxes=picture.proposals.boxes,
            source=picture.proposals.source,
            classes=classes,
            quality=quality,
            probabilities=picture.scores.probabilities,
            kept=picture.scores.kept,
            features=picture.scores.features.astype(np.float16),
        )


class Scored:
    """The stored scores of one picture."""

    def __init__(self, file: Path):
        with np.load(file) as arrays:
            self.arrays = dict(arrays)

    def picture(self, rows: np.ndarray) -> ScoredPicture:
        """The picture with some of its regions, ready to make detections of."""
        arrays = self.arrays
        width, height = arrays["size"].tolist()
        places = np.full(len(arrays["boxes"]), -1)
        places[rows] = np.arange(len(rows))
        kept = places[arrays["kept"]] >= 0
        scores = ScoredRegions(
            arrays["probabilities"][rows], places[arrays["kept"][kept]], arrays["features"][kept].astype(np.float32)
        )
        quality = arrays["quality"][rows]
        proposals = Proposals(arrays["boxes"][rows], quality, arrays["source"][rows], quality, arrays["classes"][rows])
        blank = np.zeros((height, width, 3), np.uint8)
        return ScoredPicture(FileResult("", blank, None, None), proposals, scores)

    def cost(self, rows: np.ndarray, others: float) -> float:
        """The cost of these regions.

        Args:
            rows: the regions.
            others: the cost of a region for all networks but the first, which score the regions that the cascade
                passes.
        """
        background = self.arrays["probabilities"][rows, 0]
        return len(rows) + others * float((background < 1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data in the ILSVRC DET layout; its val split is used")
    parser.add_argument("--model", default="default")
    parser.add_argument("--scores", type=Path, required=True, help="folder of the scores; 2 MB a picture")
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--skip", type=int, default=0, help="pictures of the draw to leave out")
    parser.add_argument("--seed", type=int, default=7, help="seed of the draw")
    parser.add_argument("--kept-only", action="store_true", help="score only the regions that the screen keeps")
    parser.add_argument("--plot", type=Path, help="file for the plot of mean AP against cost")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    dataset = open_dataset(arguments.ilsvrc, "val")
    drawn = np.random.default_rng(arguments.seed).permutation(len(dataset))[arguments.skip :][: arguments.pictures]
    samples = [dataset[int(number)] for number in drawn]
    folder = arguments.scores / f"{model_digest(arguments.model)[:12]}{'-kept' if arguments.kept_only else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    detector = Detector(model)
    pictures = []
    for done, sample in enumerate(samples, 1):
        file = folder / f"{sample.index}.npz"
        if not file.exists():
            start = time.perf_counter()
            collect(detector, sample.path, file, arguments.kept_only)
            print(f"{done} of {len(samples)}: {time.perf_counter() - start:.0f} s", flush=True)
        pictures.append(Scored(file))
    indices = np.array([sample.index for sample in samples])
    truth = part_of(read_ilsvrc_ground_truth(arguments.ilsvrc, "val"), indices)
    groups = class_groups(model)
    groups = {name: groups[name] for name in ("six classes", "all classes present")}
    others = (len(model.members) - 1) * own_share(model.members) if len(model.members) > 1 else 0.0
    fitted, calibration = detector.screen.thresholds, detector.calibration

    def measure(thresholds: ScreenThresholds | None, count: int | None = None, *, quality: bool) -> Measurement:
        """Detections of the regions that a screen with these thresholds keeps; None keeps all regions."""
        detector.calibration = calibration if quality else None
        found, costs = [], []
        for scored in pictures:
            arrays = scored.arrays
            rows = np.arange(len(arrays["boxes"]))
            if thresholds is not None:
                scores = (1 - arrays["classes"][:, 0]) * arrays["quality"]
                rows = best_regions(arrays["boxes"], scores, thresholds, count)
            found.append(detector.detections(scored.picture(rows)))
            costs.append(scored.cost(rows, others))
        return Measurement(evaluate(truth, submission(indices, found)), groups, float(np.mean(costs)))

    rows: dict[str, Measurement] = {}
    if not arguments.kept_only:
        rows["all regions, no quality (the reference)"] = measure(None, quality=False)
        rows["all regions, quality"] = measure(None, quality=True)
        for count in (50, 100, 200, 300):
            rows[f"the best {count}, no quality"] = measure(fitted, count, quality=False)
            rows[f"the best {count}, quality"] = measure(fitted, count, quality=True)
        for score in (0.01, 0.02, 0.05, 0.1):
            rows[f"scores from {score}, quality"] = measure(replace(fitted, score=score), quality=True)
    rows[f"fitted thresholds ({fitted.score}), no quality"] = measure(fitted, quality=False)
    rows[f"fitted thresholds ({fitted.score}), quality: `detect`"] = measure(fitted, quality=True)
    title = f"{len(samples)} pictures, {truth.labels.size} objects; thresholds {fitted}"
    print_rows(title, rows, next(iter(rows.values())))
    if arguments.plot and not arguments.kept_only:
        plot(rows, arguments.plot)


def plot(rows: dict[str, Measurement], file: Path) -> None:
    """Draw mean AP of six classes against the cost of a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), dpi=110)
    for label, marker in (("no quality", "o"), ("quality", "s")):
        chosen = [one for name, one in rows.items() if name.endswith(f", {label}") and name.startswith("the best")]
        axes.plot(
            [one.passes for one in chosen],
            [one.groups["six classes"][0] for one in chosen],
            marker=marker,
            label=f"best N, {label}",
        )
    adaptive = [one for name, one in rows.items() if name.startswith("scores from")]
    axes.plot(
        [one.passes for one in adaptive],
        [one.groups["six classes"][0] for one in adaptive],
        marker="^",
        label="by score, quality",
    )
    reference = next(iter(rows.values()))
    axes.plot(
        [reference.passes], [reference.groups["six classes"][0]], "k*", markersize=12, label="all regions, no quality"
    )
    axes.set_xscale("log")
    axes.set_xlabel("cost of a picture, in raw forward passes of one network")
    axes.set_ylabel("mean AP of six classes")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
