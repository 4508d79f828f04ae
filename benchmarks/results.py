"""Measure what each part of the system gains: the tables of docs/results.md.

    python benchmarks/results.py ILSVRC_FOLDER --scores scores/
    python benchmarks/results.py IMAGENET_VAL_FOLDER --split dev --list held_out.txt --blacklist dev_blacklist.txt \\
        --scores scores/

Every network of the model scores the regions that the screen keeps, with 8-bit convolutions, which is the default of
`detect` on most CPUs. `--exact` also measures the exact engine, "openvino". The scores of each picture are stored in
`--scores`; an interrupted run goes on where it stopped. Each row of the tables is computed from the stored scores by
the steps of `detect`. `--skip 80` leaves out the first 80 pictures of the draw, on which constants of the program and
the calibration were chosen.

Two more tables compare the ensemble with its best network: the network with the highest mean AP on these pictures.
`--before MODEL` also compares the model with another model on the same pictures. The boxes of the other model are voted
with equal weights, as when the first models were shipped, and as today. `--voting` also compares weights of box voting,
with the mean IoU of the right detections that have a score of at least 0.5.

A table has a column for each group of classes: the six classes with at least 500 training boxes, all classes that
occur in the pictures, and of these the classes that the model's training data had boxes of, and those without boxes,
which the model knows from a classifier of whole pictures.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from inception_rcnn import Detector, read_image
from inception_rcnn.data.boxes import from_inclusive, iou
from inception_rcnn.data.dataset import Sample
from inception_rcnn.data.ground_truth import GroundTruth, read_blacklist, read_ilsvrc_ground_truth
from inception_rcnn.data.ilsvrc import open_dataset, read_image_list
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection import suppression
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.detector import FileResult, ScoredPicture
from inception_rcnn.detection.engines.choice import Kind
from inception_rcnn.detection.evaluation.bootstrap import Bootstrap, bootstrap, interval
from inception_rcnn.detection.evaluation.ilsvrc import Evaluation, evaluate
from inception_rcnn.detection.model_files import Model, load_model, model_digest
from inception_rcnn.detection.pipeline import ScoredRegions
from inception_rcnn.detection.training.calibration import expected_calibration_error
from inception_rcnn.detection.warping.warp import warp_regions
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.runtime.atomic_write import atomic_write

MAIN_CLASSES = ("person", "dog", "domestic cat", "sheep", "horse", "cattle")
RESAMPLES = 1000
# The box voting of the models before: that of Gidaris and Komodakis.
EQUAL_VOTES = "equal weights, IoU at least 0.5"
# The values of `VOTE_IOU` and `VOTE_WIDTH` that `--voting` compares. An infinite width gives equal weights, and no two
# boxes have an IoU above 1.
VOTING = {
    EQUAL_VOTES: (0.5, np.inf),
    "equal weights, IoU at least 0.6": (0.6, np.inf),
    "no voting": (1.1, np.inf),
    **{f"width {width}, IoU at least 0.4": (0.4, width) for width in (0.05, 0.1, 0.2)},
}


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of the regions of one picture.

    Attributes:
        size: int [2], width and height of the picture.
        boxes, source: float32 [N, 4] and uint8 [N], the regions that the screen keeps.
        quality, classes: float32 [N] and [N, 1 + classes], the expected IoU and the class probabilities of each
            region, by the screen.
        probabilities: float32 [members, N, 1 + classes].
        features: float16 [N, D], the first member's features for box regression.
    """

    size: np.ndarray
    boxes: np.ndarray
    source: np.ndarray
    quality: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Row:
    """How the detections of a row are made.

    Attributes:
        members: the members whose probabilities are averaged, from 0.
        regression: whether boxes are regressed.
        calibration: whether scores are calibrated.
        screen_class: whether the calibration uses the screen's class probabilities.
        cascade: whether regions that the first member takes for background are background.
    """

    members: tuple[int, ...]
    regression: bool = True
    calibration: bool = True
    screen_class: bool = True
    cascade: bool = False


def score(detector: Detector, image: np.ndarray) -> Scores:
    """Score the regions that the screen keeps with every member. The detector has no cascade."""
    proposals = detector.propose(image)
    assert proposals.quality is not None
    assert proposals.classes is not None
    crops = warp_regions(image, proposals.boxes, padding=detector.regions.padding, mode=detector.regions.warp_mode)
    first = detector.ensemble.first(crops)
    others = [engine(first.inputs) for engine in detector.ensemble.engines[1:]]
    return Scores(
        np.array(image.shape[1::-1]),
        proposals.boxes,
        proposals.source,
        proposals.quality,
        proposals.classes,
        np.stack([first.probabilities, *others]),
        first.features.astype(np.float16),
    )


def collect(model: Model, samples: Sequence[Sample], folder: Path, kind: Kind = "openvino-int8") -> list[Scores]:
    """Read the scores of `samples` from `folder`; compute those that are missing with this engine and store them."""
    folder.mkdir(parents=True, exist_ok=True)
    detector: Detector | None = None
    scores = []
    start = time.perf_counter()
    for done, sample in enumerate(samples, 1):
        file = folder / f"{sample.image_id.replace('/', '_')}.npz"
        if not file.exists():
            detector = detector or Detector(model, engine=kind, cascade=False)
            found = score(detector, read_image(sample.path))
            with atomic_write(file) as partial, partial.open("wb") as stream:
                np.savez(stream, **vars(found))
            if done % 20 == 0:
                print(f"{done} of {len(samples)} pictures, {time.perf_counter() - start:.0f} s", flush=True)
        with np.load(file) as arrays:
            scores.append(Scores(**arrays))
    return scores


class DetectionSteps:
    """Makes detections of stored scores, with the steps of the detector."""

    def __init__(self, model: Model, min_score: float):
        self._cascade = model.cascade or 0.0
        self._calibration = model.calibration
        # Detections depend on the first member only, so one network is loaded.
        self._with_regression = Detector(model, members=1, score_threshold=min_score)
        self._without = Detector(replace(model, regressor=None), members=1, score_threshold=min_score)

    def __call__(self, scores: Scores, row: Row) -> Detections:
        """The detections of one picture."""
        probabilities = scores.probabilities[list(row.members)].mean(axis=0)
        if row.cascade:
            rejected = 1 - scores.probabilities[row.members[0], :, 0] < self._cascade
            probabilities[rejected] = 0
            probabilities[rejected, 0] = 1
        detector = self._with_regression if row.regression else self._without
        detector.calibration = self._calibration if row.calibration else None
        if detector.calibration is not None and not row.screen_class:
            detector.calibration = replace(detector.calibration, screened=None)
        width, height = scores.size.tolist()
        proposals = Proposals(scores.boxes, scores.quality, scores.source, scores.quality, scores.classes)
        regions = ScoredRegions(probabilities, np.arange(len(scores.boxes)), scores.features.astype(np.float32))
        blank = np.zeros((height, width, 3), np.uint8)
        return detector.detections(ScoredPicture(FileResult("", blank, None, None), proposals, regions))


def part_of(truth: GroundTruth, indices: np.ndarray) -> GroundTruth:
    """The ground truth of the pictures `indices`."""
    kept = np.isin(truth.images, indices)
    return GroundTruth.from_arrays(
        indices, truth.images[kept], truth.labels[kept], truth.inclusive[kept], categories=truth.categories
    )


def submission(indices: np.ndarray, found: Sequence[Detections]) -> Submission:
    """The detections of the pictures `indices`."""
    return Submission.from_boxes(
        np.repeat(indices, [len(one) for one in found]),
        np.concatenate([one.labels for one in found]),
        np.concatenate([one.scores for one in found]),
        np.concatenate([one.boxes for one in found]),
    )


class Measurement:
    """The figures of one row.

    Args:
        evaluation: of the row's detections.
        groups: the ids of the classes of each group. Classes without objects are left out.
        passes: forward passes for a picture, None if they are not counted.

    Attributes:
        evaluation, passes: see above.
        resampled: AP of the classes in resampled sets of pictures.
        groups: the mean AP of each group that has a class with objects, and of its resamples; without groups of the
            same classes.
    """

    def __init__(self, evaluation: Evaluation, groups: Mapping[str, Sequence[int]], passes: float | None = None):
        self.evaluation, self.passes = evaluation, passes
        self.resampled: Bootstrap = bootstrap(evaluation, RESAMPLES)
        self.groups: dict[str, tuple[float, np.ndarray]] = {}
        seen: list[list[int]] = [[]]
        for name, labels in groups.items():
            columns = np.flatnonzero(np.isin(self.resampled.labels, list(labels)))
            if columns.tolist() not in seen:
                seen.append(columns.tolist())
                mean = float(np.mean([evaluation.ap[label] for label in self.resampled.labels[columns].tolist()]))
                self.groups[name] = mean, np.nanmean(self.resampled.aps[:, columns], axis=1)


def print_rows(title: str, rows: Mapping[str, Measurement], base: Measurement) -> None:
    """Print a table in Markdown, with the gain of each row over `base`."""
    print(f"\n{title}; 95 % intervals from {RESAMPLES:,} bootstrap resamples of the pictures")
    header = [f"mean AP, {name} | gain" for name in base.groups]
    print("| | " + " | ".join([*header, *(["forward passes"] if base.passes else [])]) + " |")
    print("|---" * (1 + 2 * len(header) + bool(base.passes)) + "|")
    for name, row in rows.items():
        cells = []
        for group, (mean, resampled) in row.groups.items():
            low, high = interval(resampled)
            base_mean, base_resampled = base.groups[group]
            least, most = interval(resampled - base_resampled)
            cells.append(f"{mean:.3f} ({low:.3f} to {high:.3f})")
            cells.append("" if row is base else f"{mean - base_mean:+.3f} ({least:+.3f} to {most:+.3f})")
        if row.passes:
            cells.append(f"{row.passes:,.0f}")
        print(f"| {name} | {' | '.join(cells)} |")


def class_groups(model: Model) -> dict[str, list[int]]:
    """The groups of classes of the tables, by name: the ids of the model's classes."""
    objects = model.card.get("objects", {})
    names = {category.name: category.id for category in model.categories}
    return {
        "six classes": [names[name] for name in MAIN_CLASSES if name in names],
        "all classes present": list(names.values()),
        "classes with boxes": [number for name, number in names.items() if objects.get(name)],
        "classes without boxes": [number for name, number in names.items() if not objects.get(name)],
    }


def complete_row(model: Model) -> Row:
    """The row with every part of a model."""
    members = tuple(range(len(model.members)))
    return Row(members, model.regressor is not None, model.calibration is not None)


@contextmanager
def box_voting(name: str) -> Iterator[None]:
    """Vote boxes with the weights of a row of `VOTING`."""
    shipped = suppression.VOTE_IOU, suppression.VOTE_WIDTH
    suppression.VOTE_IOU, suppression.VOTE_WIDTH = VOTING[name]
    try:
        yield
    finally:
        suppression.VOTE_IOU, suppression.VOTE_WIDTH = shipped


def iou_of_right_detections(evaluation: Evaluation) -> float:
    """The mean IoU with their objects of the right detections that have a score of at least 0.5."""
    right = (evaluation.matched >= 0) & (evaluation.detections.scores >= 0.5)
    objects = from_inclusive(evaluation.ground_truth.inclusive[evaluation.matched[right]])
    return float(iou(evaluation.detections.boxes[right], objects).diagonal().mean())


def print_scores(name: str, row: Measurement) -> None:
    """Print how honest the scores are: the expected calibration error, and the share of right detections."""
    evaluation = row.evaluation
    counted = ~evaluation.ignored
    scores, right = evaluation.detections.scores[counted], (evaluation.matched >= 0)[counted]
    errors = [expected_calibration_error(scores[scores >= least], right[scores >= least]) for least in (0.01, 0.1)]
    shown = scores >= 0.5
    print(
        f"| {name} | {errors[0]:.3f} | {errors[1]:.3f} | {int(shown.sum())} | {right[shown].mean():.0%} |"
        if shown.any()
        else f"| {name} | {errors[0]:.3f} | {errors[1]:.3f} | 0 | |"
    )


def print_classes(rows: Mapping[str, Measurement]) -> None:
    """Print the AP of each class, most frequent classes first."""
    first = next(iter(rows.values()))
    truth = first.evaluation.ground_truth
    names = {category.id: category.name for category in truth.categories}
    counts = {label: int((truth.labels == label).sum()) for label in first.resampled.labels.tolist()}
    print("\n| class | objects | " + " | ".join(f"AP, {name}" for name in rows) + " |")
    print("|---" * (2 + len(rows)) + "|")
    for label, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        cells = []
        for row in rows.values():
            low, high = interval(row.resampled.of(label))
            cells.append(f"{row.evaluation.ap[label]:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {names[label]} | {count} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="data in the ILSVRC DET layout")
    parser.add_argument("--split", default="val")
    parser.add_argument("--list", type=Path, help="list of pictures of the split to measure on; all by default")
    parser.add_argument("--blacklist", type=Path, help="file of pairs of a picture and a class to ignore")
    parser.add_argument("--model", default="default")
    parser.add_argument("--before", help="another model to compare with")
    parser.add_argument("--scores", type=Path, required=True, help="folder for stored scores; 1 MB a picture")
    parser.add_argument("--pictures", type=int, help="number of random pictures; all by default")
    parser.add_argument("--skip", type=int, default=0, help="random pictures to leave out at the start")
    parser.add_argument("--seed", type=int, default=7, help="seed of the random pictures")
    parser.add_argument("--min-score", type=float, default=0.001, help="smallest score of a detection")
    parser.add_argument("--classes", action="store_true", help="also print the AP of each class")
    parser.add_argument("--voting", action="store_true", help="also compare weights of box voting")
    parser.add_argument("--exact", action="store_true", help="also measure the networks without 8-bit convolutions")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    dataset = open_dataset(arguments.root, arguments.split)
    drawn = np.random.default_rng(arguments.seed).permutation(len(dataset))[arguments.skip :]
    samples = [dataset[int(number)] for number in drawn]
    if arguments.list is not None:
        listed = {index for _, index in read_image_list(arguments.list)}
        samples = [sample for sample in samples if sample.index in listed]
    samples = samples[: arguments.pictures]
    folder = arguments.scores / model_digest(arguments.model)[:12]
    scores = collect(model, samples, folder)
    before = None if arguments.before is None else load_model(arguments.before)
    scores_before = []
    if before is not None:
        scores_before = collect(before, samples, arguments.scores / model_digest(arguments.before)[:12])
    indices = np.array([sample.index for sample in samples])
    truth = part_of(read_ilsvrc_ground_truth(arguments.root, arguments.split), indices)
    blacklist = [] if arguments.blacklist is None else read_blacklist(arguments.blacklist)
    blacklist = [pair for pair in blacklist if pair[0] in set(indices.tolist())]
    steps, groups = DetectionSteps(model, arguments.min_score), class_groups(model)

    def measure(row: Row, scores: Sequence[Scores] = scores, steps: DetectionSteps = steps) -> Measurement:
        found = [steps(picture, row) for picture in scores]
        return Measurement(evaluate(truth, submission(indices, found), blacklist), groups)

    complete = complete_row(model)
    everyone, regression, calibration = complete.members, complete.regression, complete.calibration
    count = len(everyone)
    rows = {"one network": measure(replace(complete, members=(0,)))}
    for member in everyone[1:]:
        rows[f"member {member + 1} alone"] = measure(replace(complete, members=(member,)))
    for members in range(2, count + 1):
        rows[f"{members} members"] = measure(replace(complete, members=tuple(range(members))))
    last = list(rows)[-1]
    if count > 1 and model.cascade is not None:
        rows[f"{last}, cascade"] = measure(replace(complete, cascade=True))
    if regression:
        rows[f"{last}, no box regression"] = measure(replace(complete, regression=False))
    if model.calibration is not None and model.calibration.screened is not None:
        rows[f"{last}, without the screen's class"] = measure(replace(complete, screen_class=False))
    if calibration:
        rows[f"{last}, class probabilities as scores"] = measure(replace(complete, calibration=False))
    if arguments.exact:
        exact = collect(model, samples, folder.with_name(f"{folder.name}-exact"), "openvino")
        rows[f"{last}, exact engine"] = measure(complete, exact)
    regions = np.mean([len(picture.boxes) for picture in scores])
    print_rows(
        f"{len(samples)} pictures, {truth.labels.size} objects, {regions:.0f} regions a picture",
        rows,
        rows["one network"],
    )
    if count > 1:
        alone = ["one network", *(f"member {member + 1} alone" for member in everyone[1:])]
        for group in rows[last].groups:
            best = max(alone, key=lambda name: rows[name].groups[group][0])
            print_rows(f"the best network alone, {group}", {name: rows[name] for name in (best, last)}, rows[best])
    if before is not None:
        row, its_steps = complete_row(before), DetectionSteps(before, arguments.min_score)
        with box_voting(EQUAL_VOTES):
            compared = {f"{arguments.before}, {EQUAL_VOTES}": measure(row, scores_before, its_steps)}
        compared[arguments.before] = measure(row, scores_before, its_steps)
        compared[last] = rows[last]
        print_rows("this model and the model before", compared, rows[last])
    if arguments.voting:
        voted = {}
        for name in VOTING:
            with box_voting(name):
                voted[name] = measure(complete)
        print_rows("box voting", voted, next(iter(voted.values())))
        print("\n| | mean IoU of right detections |\n|---|---|")
        for name, row in voted.items():
            print(f"| {name} | {iou_of_right_detections(row.evaluation):.3f} |")
    if arguments.exact:
        compared = {name: rows[name] for name in (f"{last}, exact engine", last)}
        print_rows("8 bits against the exact engine", compared, rows[f"{last}, exact engine"])
    print("\n| | expected calibration error | of scores from 0.1 | detections with scores from 0.5 | of these right |")
    print("|---|---|---|---|---|")
    for name in (last, f"{last}, class probabilities as scores"):
        if name in rows:
            print_scores(name, rows[name])
    if arguments.classes:
        print_classes({name: rows[name] for name in dict.fromkeys(["one network", last])})


if __name__ == "__main__":
    main()
