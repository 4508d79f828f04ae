"""Measure what each part of the system gains on ILSVRC val: the tables of docs/results.md.

    python benchmarks/results.py ILSVRC_FOLDER --scores scores/ --skip 80 --pictures 100 --rcnn 40

Every network scores every region of some random pictures of val once, and the scores are stored in `--scores`. Each row
of the tables is computed from the stored scores, with the same steps as in `detect`. Another run with more pictures
scores only the new ones. `--skip 80` leaves out the first 80 random pictures, because constants of the program were
chosen on them. The first member also scores R-CNN's proposals, which are twice as many, in the first `--rcnn` pictures.

Members trained with frozen blocks share those blocks, and each shared block runs once for all members.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from inception_rcnn import read_image, selective_search
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.data.ground_truth import GroundTruth, read_ilsvrc_ground_truth
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.engines.engine import CompiledForward, SpatialMoments
from inception_rcnn.detection.engines.multibox import MultiBoxEngine
from inception_rcnn.detection.evaluation.bootstrap import Bootstrap, bootstrap, interval
from inception_rcnn.detection.evaluation.ilsvrc import Evaluation, evaluate
from inception_rcnn.detection.model_files import Model, load_model, model_digest
from inception_rcnn.detection.regression import LEAST_PROBABILITY
from inception_rcnn.detection.suppression import Detections, select_detections, vote_boxes
from inception_rcnn.detection.warping.warp import warp_regions
from inception_rcnn.proposals.combine import combine
from inception_rcnn.proposals.proposals import Source
from inception_rcnn.runtime.atomic_write import atomic_write

MAIN_CLASSES = ("person", "dog", "domestic cat", "sheep", "horse", "cattle")
CONTEXT_WEIGHTS = (0.1, 0.2, 0.3, 0.5)
BATCH = 16


@dataclass(frozen=True, eq=False)
class Scores:
    """The networks' scores of one picture.

    Attributes:
        rcnn_boxes: float32 [K, 4], R-CNN's proposals: selective search at scale 1, sides from 20 pixels. K is 0 if the
            first member did not score them.
        rcnn: float32 [K, 1 + classes], the first member's probabilities for `rcnn_boxes`.
        boxes, source: float32 [N, 4] and uint8 [N], the model's own proposals.
        probabilities: float32 [members, N, 1 + classes], for `boxes`.
        near: int64 [R], the rows of `boxes` with an object probability of at least `LEAST_PROBABILITY` by the first
            member.
        moments: float16 [R, 5120], the features for box regression of the rows `near`.
        whole: float32 [1024], the first member's pooled features of the whole picture.
    """

    rcnn_boxes: np.ndarray
    rcnn: np.ndarray
    boxes: np.ndarray
    source: np.ndarray
    probabilities: np.ndarray
    near: np.ndarray
    moments: np.ndarray
    whole: np.ndarray


class AllMembers(nn.Module):
    """The features of all members, concatenated: float RGB in 0..255 [N, 3, 224, 224] -> [N, D].

    The first member contributes its spatial moments, the others their pooled features. The leading blocks that are
    the same in all members run once.
    """

    def __init__(self, model: Model):
        super().__init__()
        self.members = nn.ModuleList(model.members)
        trunks = [list(member.trunk) for member in model.members]
        self.shared = 0
        for blocks in zip(*trunks, strict=True):
            weights = [list(block.state_dict().values()) for block in blocks]
            if not all(torch.equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other, strict=True)):
                break
            self.shared += 1
        self.moments = SpatialMoments()

    def forward(self, pixels: Tensor) -> Tensor:
        first = self.members[0]
        common = first.trunk[: self.shared](first.normalise(pixels))
        maps = [member.trunk[self.shared :](common).float() for member in self.members]
        return torch.cat([self.moments(maps[0]), *(others.mean((2, 3)) for others in maps[1:])], dim=1)


class Collector:
    """Scores every region of a picture with every network."""

    def __init__(self, model: Model):
        self.model = model
        self.first = CompiledForward(AllMembers(Model(model.members[:1], model.categories)), batch_size=BATCH)
        self.all = CompiledForward(AllMembers(model), batch_size=BATCH)
        self.multibox = MultiBoxEngine(model.multibox) if model.multibox is not None else None

    def __call__(self, image: np.ndarray, with_rcnn: bool) -> Scores:
        regions, width = self.model.regions, self.model.members[0].out_channels
        rcnn_boxes = np.zeros((0, 4), np.float32)
        rcnn = np.zeros((0, len(self.model.categories) + 1), np.float32)
        if with_rcnn:
            rcnn_boxes = selective_search(image, superpixel_scale=1, min_side=20).boxes
            rcnn = self._classify(0, self._forward(self.first, image, rcnn_boxes)[:, :width])
        proposals = selective_search(
            image,
            superpixel_scale=regions.superpixel_scale,
            min_side=regions.min_side,
            connectivity=regions.connectivity,
        )
        if self.multibox is not None:
            proposals = combine(proposals, self.multibox(image))
        features = self._forward(self.all, image, proposals.boxes)
        moments, others = features[:, : 5 * width], features[:, 5 * width :]
        of_member = [moments[:, :width], *np.split(others, max(1, len(self.model.members) - 1), axis=1)]
        probabilities = np.stack(
            [self._classify(member, of_member[member]) for member in range(len(self.model.members))]
        )
        near = np.flatnonzero(1 - probabilities[0, :, 0] >= LEAST_PROBABILITY)
        return Scores(
            rcnn_boxes,
            rcnn,
            proposals.boxes,
            proposals.source,
            probabilities,
            near,
            moments[near].astype(np.float16),
            self.whole_features([image])[0],
        )

    def whole_features(self, images: list[np.ndarray]) -> np.ndarray:
        """Pooled features of whole pictures by the first member: float32 [N, 1024]."""
        regions = self.model.regions
        crops = [
            warp_regions(
                image,
                np.array([[0, 0, image.shape[1], image.shape[0]]], np.float32),
                padding=regions.padding,
                mode=regions.warp_mode,
            )
            for image in images
        ]
        return self.first(np.concatenate(crops))[:, : self.model.members[0].out_channels]

    def _forward(self, network: CompiledForward, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        regions, parts = self.model.regions, []
        for start in range(0, len(boxes), 128):
            batch = boxes[start : start + 128]
            parts.append(network(warp_regions(image, batch, padding=regions.padding, mode=regions.warp_mode)))
        return np.concatenate(parts)

    def _classify(self, member: int, features: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = self.model.members[member].classifier(torch.from_numpy(np.ascontiguousarray(features)))
            return logits.softmax(1).numpy()


def collect(model: Model, samples: list[Sample], folder: Path, rcnn: int) -> list[Scores]:
    """Read the scores of `samples` from `folder`; compute and store those that are missing.

    The scores of the first `rcnn` samples include R-CNN's proposals.
    """
    folder.mkdir(parents=True, exist_ok=True)
    collector = None
    scores = []
    for done, sample in enumerate(samples, 1):
        file = folder / f"{sample.index}{'' if done > rcnn else '_rcnn'}.npz"
        if not file.exists():
            collector = collector or Collector(model)
            start = time.perf_counter()
            found = collector(read_image(sample.path), done <= rcnn)
            with atomic_write(file) as partial, partial.open("wb") as stream:
                np.savez(stream, **vars(found))
            print(f"{done} of {len(samples)}: {sample.image_id}, {time.perf_counter() - start:.0f} s", flush=True)
        with np.load(file) as arrays:
            scores.append(Scores(**arrays))
    return scores


def fit_context(model: Model, train: Dataset, file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Fit a logistic regression for each class on `train`, or read it from `file`.

    It predicts from the first member's features of a whole picture whether the picture shows the class.

    Returns:
        weights float32 [1024, classes] and biases float32 [classes].
    """
    if not file.exists():
        collector = Collector(Model(model.members[:1], model.categories, model.regions))
        features = np.concatenate(
            [
                collector.whole_features(
                    [read_image(train[row].path) for row in range(first, min(first + 64, len(train)))]
                )
                for first in range(0, len(train), 64)
            ]
        )
        ids = [category.id for category in model.categories]
        present = np.array([[label in sample.labels for label in ids] for sample in train], np.float32)
        x, y = torch.from_numpy(features / features.std()), torch.from_numpy(present)
        weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
        bias = torch.full((y.shape[1],), -3.0, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            fit = nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="none").sum(1).mean()
            value = fit + 0.003 * weight.square().sum()
            value.backward()
            return value

        optimiser.step(loss)
        with atomic_write(file) as partial, partial.open("wb") as stream:
            np.savez(stream, weight=weight.detach().numpy() / features.std(), bias=bias.detach().numpy())
    with np.load(file) as arrays:
        return arrays["weight"], arrays["bias"]


# A row of a table computes from the scores of a picture: boxes [N, 4], probabilities [N, 1 + classes], and the number
# of forward passes.
Row = Callable[[Scores], tuple[np.ndarray, np.ndarray, float]]


def mean_probabilities(scores: Scores, members: int, cascade: float | None = None) -> tuple[np.ndarray, float]:
    """Average the probabilities of the first `members` members for the model's own proposals.

    With `cascade`, only the first member scores regions with an object probability below `cascade`.

    Returns:
        probabilities float32 [N, 1 + classes], and the number of forward passes.
    """
    first = scores.probabilities[0]
    passed = 1 - first[:, 0] >= (cascade or 0)
    mean = np.zeros_like(first)
    mean[:, 0] = 1
    mean[passed] = scores.probabilities[:members, passed].mean(axis=0)
    return mean, len(first) + (members - 1) * int(passed.sum())


class DetectionSteps:
    """Box regression, suppression and voting, as in the detector."""

    def __init__(self, model: Model):
        self.model = model
        self.ids = np.array([category.id for category in model.categories], np.int64)

    def __call__(
        self, boxes: np.ndarray, probabilities: np.ndarray, size: tuple[int, int], scores: Scores | None = None
    ) -> Detections:
        """Detect objects in a picture of `size` (width, height); `scores` are needed for box regression only."""
        if scores is not None and self.model.regressor is not None:
            features = scores.moments.astype(np.float32)
            boxes = self.model.regressor.regress(boxes, probabilities, features, scores.near, *size)
        found = select_detections(boxes, probabilities, self.ids, score_threshold=0.01, max_detections=100)
        return vote_boxes(found, boxes, probabilities, self.ids)


def part_of(truth: GroundTruth, indices: np.ndarray) -> GroundTruth:
    """The ground truth of the pictures `indices`."""
    kept = np.isin(truth.images, indices)
    return GroundTruth.from_arrays(
        indices, truth.images[kept], truth.labels[kept], truth.inclusive[kept], categories=truth.categories
    )


class Measurement:
    """The figures of one row: mean AP, its bootstrap resamples, and forward passes per picture."""

    def __init__(self, evaluation: Evaluation, main: list[int], passes: float, resamples: int):
        self.evaluation, self.passes = evaluation, passes
        self.resampled: Bootstrap = bootstrap(evaluation, resamples)
        columns = [column for column, label in enumerate(self.resampled.labels.tolist()) if label in main]
        self.main = float(np.mean([evaluation.ap[label] for label in main if label in self.resampled.labels]))
        self.main_resampled = np.nanmean(self.resampled.aps[:, columns], axis=1)


def print_rows(title: str, rows: dict[str, Measurement], base: Measurement) -> None:
    """Print a table in Markdown, with the gain of each row over `base`."""
    print(f"\n{title}; 95 % intervals from 1,000 bootstrap resamples of the pictures")
    print("| | mean AP, six classes | gain | mean AP, all classes present | forward passes |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        low, high = interval(row.main_resampled)
        least, most = interval(row.main_resampled - base.main_resampled)
        gain = "" if row is base else f"{row.main - base.main:+.3f} ({least:+.3f} to {most:+.3f})"
        mean_ap = row.evaluation.mean_ap()
        print(f"| {name} | {row.main:.3f} ({low:.3f} to {high:.3f}) | {gain} | {mean_ap:.3f} | {row.passes:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data in the ILSVRC DET layout; its val split is used")
    parser.add_argument("--model", default="default")
    parser.add_argument("--scores", type=Path, required=True, help="folder for stored scores; 7 MB a picture")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--rcnn", type=int, default=0, help="number of pictures with R-CNN's proposals")
    parser.add_argument("--skip", type=int, default=0, help="random pictures to leave out at the start")
    parser.add_argument("--seed", type=int, default=7, help="seed of the random pictures")
    parser.add_argument("--context", action="store_true", help="also rescore by the whole picture, fitted on train")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    dataset = open_dataset(arguments.ilsvrc, "val")
    drawn = np.random.default_rng(arguments.seed).permutation(len(dataset))[arguments.skip :][: arguments.pictures]
    samples = [dataset[int(number)] for number in drawn]
    folder = arguments.scores / model_digest(arguments.model)[:12]
    scores = collect(model, samples, folder, arguments.rcnn)
    sizes = [read_image(sample.path).shape[1::-1] for sample in samples]
    val_truth = read_ilsvrc_ground_truth(arguments.ilsvrc, "val")
    truth = part_of(val_truth, np.array([sample.index for sample in samples]))
    detection_steps = DetectionSteps(model)
    names = {category.name: category.id for category in model.categories}
    main_ids = [names[name] for name in MAIN_CLASSES if name in names]
    count = len(model.members)

    def measure(row: Row, regression: bool = False, first: int | None = None) -> Measurement:
        detections, passes = [], []
        for picture, size in zip(scores[:first], sizes[:first], strict=True):
            boxes, probabilities, cost = row(picture)
            detections.append(detection_steps(boxes, probabilities, size, picture if regression else None))
            passes.append(cost)
        indices = np.array([sample.index for sample in samples[:first]])
        submission = Submission.from_boxes(
            np.repeat(indices, [len(found) for found in detections]),
            np.concatenate([found.labels for found in detections]),
            np.concatenate([found.scores for found in detections]),
            np.concatenate([found.boxes for found in detections]),
        )
        part = truth if first is None else part_of(val_truth, indices)
        return Measurement(evaluate(part, submission), main_ids, float(np.mean(passes)), 1000)

    def selective_search_only(picture: Scores) -> tuple[np.ndarray, np.ndarray, float]:
        rows = picture.source != Source.MULTIBOX
        return picture.boxes[rows], picture.probabilities[0, rows], int(rows.sum())

    def ensemble(members: int, cascade: float | None = None) -> Row:
        def row(picture: Scores) -> tuple[np.ndarray, np.ndarray, float]:
            mean, cost = mean_probabilities(picture, members, cascade)
            return picture.boxes, mean, cost

        return row

    if arguments.rcnn:
        first = min(arguments.rcnn, len(samples))
        union = measure(ensemble(1), first=first)
        proposals = {
            "R-CNN's: scale 1, sides from 20": measure(
                lambda picture: (picture.rcnn_boxes, picture.rcnn, len(picture.rcnn)), first=first
            ),
            "the union without MultiBox's boxes": measure(selective_search_only, first=first),
            "union": union,
        }
        print_rows(f"the first {first} pictures, one network", proposals, union)
    rows: dict[str, Measurement] = {"one network": measure(ensemble(1))}
    for member in range(1, count):
        rows[f"member {member + 1} alone"] = measure(
            lambda picture, member=member: (picture.boxes, picture.probabilities[member], len(picture.boxes))
        )
    for members in range(2, count + 1):
        rows[f"{members} members"] = measure(ensemble(members))
    if count > 1 and model.cascade is not None:
        rows[f"{count} members, cascade"] = measure(ensemble(count, model.cascade))
    if model.regressor is not None:
        rows["one network, regression"] = measure(ensemble(1), regression=True)
        if model.cascade is not None:
            rows[f"{count} members, cascade, regression"] = measure(ensemble(count, model.cascade), regression=True)
    base = rows["one network"]
    print_rows(f"{len(samples)} pictures, {truth.labels.size} objects, the union's regions", rows, base)
    last = list(rows)[-1]
    if arguments.context:
        train = open_dataset(arguments.ilsvrc, "train")
        weight, bias = fit_context(model, train, folder / "context.npz")
        name = "one network" if count == 1 else f"{count} members" + (", cascade" if model.cascade else "")
        rescored_rows = {f"{name}, no context": measure(ensemble(count, model.cascade))}
        for power in CONTEXT_WEIGHTS:

            def rescore(picture: Scores, power: float = power) -> tuple[np.ndarray, np.ndarray, float]:
                mean, cost = mean_probabilities(picture, count, model.cascade)
                present = 1 / (1 + np.exp(-(picture.whole @ weight + bias)))
                mean[:, 1:] *= present**power
                return picture.boxes, mean, cost

            rescored_rows[f"{name}, context to the power {power}"] = measure(rescore)
        print_rows("the same, rescored by the whole picture", rescored_rows, next(iter(rescored_rows.values())))
    print(f"\n| class | objects | AP, one network | AP, {last} |")
    print("|---|---|---|---|")
    for label in sorted(base.resampled.labels.tolist(), key=lambda label: -int((truth.labels == label).sum())):
        name = next(category.name for category in truth.categories if category.id == label)
        aps = []
        for row in (base, rows[last]):
            low, high = interval(row.resampled.of(label))
            aps.append(f"{row.evaluation.ap[label]:.3f} ({low:.3f} to {high:.3f})")
        print(f"| {name} | {int((truth.labels == label).sum())} | {' | '.join(aps)} |")


if __name__ == "__main__":
    main()
