"""Measures how fast detections are evaluated.

python benchmarks/evaluation.py                               # a million random detections in 20,000 pictures
python benchmarks/evaluation.py --referee referee/   # first the official kit's large case, then the same
"""

from __future__ import annotations

import argparse
import gzip
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import det_categories
from inception_rcnn.data.ground_truth import read_blacklist, read_ground_truth
from inception_rcnn.data.submission import Submission, read_submission, write_submission
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate

PICTURES, DETECTIONS = 20_000, 1_000_000
OFFICIAL_SECONDS = 65 + 13  # the official code, on the machine of docs/evaluation.md: annotations + the rest

Result = TypeVar("Result")


def official_case(referee: Path, folder: Path) -> None:
    """Evaluates the official kit's 134,758 random detections on val2, from files to AP."""
    with tarfile.open(referee / "val2_annotations.tar.gz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                (folder / Path(member.name).name).write_bytes(content.read())
    predictions = folder / "predictions.txt"
    predictions.write_bytes(gzip.decompress((referee / "random_predictions.txt.gz").read_bytes()))
    start = time.perf_counter()
    truth = read_ground_truth(folder, referee / "val2.txt")
    detections = read_submission(predictions)
    evaluation = evaluate(truth, detections, read_blacklist(referee / "random_blacklist.txt"))
    seconds = time.perf_counter() - start
    faster = OFFICIAL_SECONDS / seconds
    print(
        f"val2, {len(detections):,} detections, annotations parsed: {seconds:.2f} s, "
        f"{faster:.0f} times as fast as the official code"
    )
    print(f"  mAP {evaluation.mean_ap('official'):.17g}")


def large_case(folder: Path) -> None:
    """Evaluates a million random detections, most of them near one of 60,000 objects, from files to error analysis."""
    generator = np.random.default_rng(0)
    categories = det_categories()
    lines, rows = [], []
    for number in range(1, PICTURES + 1):
        count = int(generator.integers(0, 7))
        corners = generator.integers(1, 300, (count, 2))
        boxes = np.concatenate([corners, corners + generator.integers(5, 200, (count, 2))], axis=1)
        labels = generator.integers(1, 201, count)
        objects = tuple(
            AnnotatedObject(categories[label - 1].wnid, tuple(box))
            for label, box in zip(labels.tolist(), boxes.tolist(), strict=True)
        )
        name = f"picture_{number:08}"
        write_annotation(folder / f"{name}.xml", Annotation(name, 500, 500, objects))
        lines.append(f"{name} {number}\n")
        found = DETECTIONS // PICTURES
        near = generator.integers(0, max(count, 1), found)
        shifts = generator.normal(0, 15, (found, 4))
        around = boxes[near] if count else np.tile([100, 100, 200, 200], (found, 1))
        label = np.where(generator.random(found) < 0.6, labels[near] if count else 1, generator.integers(1, 201, found))
        rows.append(np.column_stack([np.full(found, number), label, generator.random(found).round(4), around + shifts]))
    table = np.concatenate(rows)
    (folder / "list.txt").write_text("".join(lines))
    predictions = Submission(table[:, 0].astype(int), table[:, 1].astype(int), table[:, 2], table[:, 3:].round(2))
    write_submission(folder / "predictions.txt", predictions)

    cache = folder / "cache"
    truth = _timed("annotations parsed", lambda: read_ground_truth(folder, folder / "list.txt", cache=cache))
    start = time.perf_counter()
    truth = _timed("annotations from the cache", lambda: read_ground_truth(folder, folder / "list.txt", cache=cache))
    detections = _timed("submission file read", lambda: read_submission(folder / "predictions.txt"))
    evaluation = _timed("evaluated", lambda: evaluate(truth, detections))
    assert len(detections) == DETECTIONS
    print(f"{len(detections):,} detections, {PICTURES:,} pictures, cached: {time.perf_counter() - start:.2f} s")
    _timed("error analysis", lambda: analyse(evaluation))


def _timed(what: str, run: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    result = run()
    print(f"  {what}: {time.perf_counter() - start:.2f} s", flush=True)
    return result


def main() -> None:
    """Runs the large case, and before it the official case if `--referee` names its files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--referee",
        type=Path,
        help="folder with val2_annotations.tar.gz, val2.txt, random_predictions.txt.gz and random_blacklist.txt",
    )
    arguments = parser.parse_args()
    if arguments.referee is not None:
        with tempfile.TemporaryDirectory() as folder:
            official_case(arguments.referee, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        large_case(Path(folder))


if __name__ == "__main__":
    main()
