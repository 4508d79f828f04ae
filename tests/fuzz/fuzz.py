"""Reads damaged files of every kind: each is read rightly, or is an error of the documented type, in little time.

    python tests/fuzz/fuzz.py                        # some thousand cases, under two minutes
    python tests/fuzz/fuzz.py --cases 100000 --seed 7
    python tests/fuzz/fuzz.py --only proposals --seed 7 --first 312 --cases 1   # repeats one case

A case is a right file with random damage: bits, bytes and parts that are changed, cut, doubled or moved, and in JSON
values of another kind. Seed and number of a case decide its damage. On Linux, a case may take 10 seconds, and the
process 2 GB more memory than at its start.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sqlite3
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from inception_rcnn.data.annotation import (
    AnnotatedObject,
    Annotation,
    AnnotationError,
    read_annotation,
    write_annotation,
)
from inception_rcnn.data.annotation_cache import read_annotations
from inception_rcnn.data.categories import CategoryError, read_categories
from inception_rcnn.data.coco import CocoError, open_dataset, read_instances
from inception_rcnn.data.cvat import open_dataset as open_cvat
from inception_rcnn.data.dataset import Dataset
from inception_rcnn.data.ground_truth import GroundTruth, GroundTruthError, read_blacklist
from inception_rcnn.data.ilsvrc import LayoutError, read_image_list
from inception_rcnn.data.images import ImageError
from inception_rcnn.data.label_studio import open_dataset as open_label_studio
from inception_rcnn.data.labelme import open_dataset as open_labelme
from inception_rcnn.data.submission import Submission, SubmissionError, read_submission
from inception_rcnn.data.yolo import open_dataset as open_yolo
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.evaluation.checks import EvaluationError
from inception_rcnn.detection.evaluation.coco import evaluate_coco
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.voc import evaluate_voc
from inception_rcnn.detection.model_json import read_description
from inception_rcnn.detection.networks.caffemodel import CaffeModelError, read_caffemodel
from inception_rcnn.detection.networks.weights import ModelError, network_with_weights, read_weights
from inception_rcnn.detection.regression import BoxRegressor
from inception_rcnn.detection.run_state import Result, RunState, RunStateError
from inception_rcnn.detection.training.checkpoint import Checkpoint
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.proposals.cache import RegionCache
from inception_rcnn.proposals.files import ProposalFileError, ProposalWriter, read_proposals
from inception_rcnn.proposals.proposals import Proposals

SECONDS = 10
GIGABYTES = 2

ODD_VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**31, 2**53 + 1, 2**63, 10**30, 1e300, float("nan"), float("inf"), "", "1", "no",
    "\0", "x" * 3000, "\ud800", [], {}, [[]], [1], [1, 2, 3, 4, 5, 6, 7, 8], {"id": 1},
]  # fmt: skip
ODD_TEXTS = [
    b"", b"-1", b"0", b"1e999", b"NaN", b"99999999999999999999", b"\xff\xfe", b"\x00", b"\xc2\xa0", b"\n", b"\r",
    b" " * 50, b"[" * 2000, b"{", b"</", b"<!DOCTYPE", b"&amp;", b'"', b"\xe2\x80\xa8",
]  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        make: writes a right file.
        use: reads the file as the program does.
        errors: the documented errors.
        is_json: whether values of JSON are changed too.
    """

    make: Callable[[Path], None]
    use: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    is_json: bool = False


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes the content in one to four places."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        size = len(data)
        place, length = int(rng.integers(0, size + 1)), int(rng.integers(1, 1 + min(64, max(size, 1))))
        kind = int(rng.integers(0, 9))
        if kind == 0 and place < size:
            data[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and place < size:
            data[place] = int(rng.integers(0, 256))
        elif kind == 2:
            del data[place:]
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length] * int(rng.integers(1, 50))
        elif kind == 5:
            data[place : place + length] = rng.bytes(length)
        elif kind == 6:
            data[place : place + length] = ODD_TEXTS[rng.integers(0, len(ODD_TEXTS))]
        elif kind == 7:
            data[place : place + 4] = struct.pack("<I", int(rng.choice([0, 1, 255, 2**16, 2**31 - 1, 2**32 - 1])))
        else:
            other = int(rng.integers(0, size + 1))
            part = bytes(data[place : place + length])
            data[other : other + len(part)] = part
    return bytes(data)


def damaged_json(content: bytes, rng: np.random.Generator) -> bytes:
    """Puts odd values in one to three places."""
    document = json.loads(content)
    for _ in range(rng.integers(1, 4)):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[rng.integers(0, len(keys))]
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
                place = place[key]
                continue
            if rng.random() < 0.15:
                del place[key]
            else:
                place[key] = ODD_VALUES[rng.integers(0, len(ODD_VALUES))]
            break
    return json.dumps(document).encode()


BOXES = np.array([[1, 2, 30, 40], [5, 6, 20, 30]], np.float32)


def _make_coco(file: Path) -> None:
    annotation = {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 30, 40], "area": 900.5, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 90, "height": 70}, {"id": 2, "file_name": "b/c.jpg"}],
        "categories": [{"id": 3, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "cat"}],
        "annotations": [annotation, {**annotation, "id": 2, "image_id": 2, "category_id": 1}],
    }
    file.write_text(json.dumps(content))


def _use_coco(file: Path) -> None:
    truth = read_instances(file)
    for sample in open_dataset(file, file.parent):
        assert np.isfinite(sample.boxes).all()
    found = Submission(truth.images, truth.labels, np.linspace(0, 1, len(truth)), truth.inclusive)
    _evaluate(truth, found)


def _make_labelme(file: Path) -> None:
    shape = {"label": "dog", "points": [[1, 2], [30, 40.5]], "shape_type": "rectangle", "flags": {}}
    content = {"version": "5", "shapes": [shape, {**shape, "shape_type": "circle"}], "imagePath": "picture.png"}
    file.write_text(json.dumps({**content, "imageHeight": 70, "imageWidth": 90}))


def _use_labelme(file: Path) -> None:
    # The reader looks for files with the suffix.
    folder = file.parent / "labelme"
    folder.mkdir(exist_ok=True)
    (folder / "picture.png").touch()
    (folder / "picture.json").write_bytes(file.read_bytes())
    _check_samples(open_labelme(folder))


def _make_label_studio(file: Path) -> None:
    Image.new("RGB", (90, 70)).save(file.parent / "picture.png")
    value = {"x": 10, "y": 20.5, "width": 30, "height": 40, "rotation": 5, "rectanglelabels": ["dog"]}
    points = {"points": [[1, 2], [30, 40], [7, 60.5]], "polygonlabels": ["cat", "dog"]}
    results = [
        {"type": "rectanglelabels", "value": value, "original_width": 90, "original_height": 70, "image_rotation": 0},
        {"type": "polygonlabels", "value": points},
    ]
    annotation = {"result": results, "was_cancelled": False, "ground_truth": False}
    task = {"id": 1, "data": {"image": "/data/upload/1/picture.png"}, "annotations": [annotation], "predictions": []}
    file.write_text(json.dumps([task]))


def _check_samples(dataset: Dataset) -> None:
    for sample in dataset:
        assert np.isfinite(sample.boxes).all()
        assert (sample.boxes[:, :2] <= sample.boxes[:, 2:]).all()


def _make_cvat(file: Path) -> None:
    (file.parent / "picture.png").touch()
    box = '<box label="dog" xtl="1" ytl="2.5" xbr="30" ybr="40" rotation="5"/>'
    polygon = '<polygon label="cat" points="1,2;30,5.5;9,60"/>'
    image = f'<image id="0" name="picture.png" width="90" height="70">{box}{polygon}</image>'
    file.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>{image}</annotations>')


def _make_yolo(file: Path) -> None:
    file.write_text("0 0.5 0.5 0.25 0.3\n1 0.1 0.1 0.5 0.2 0.4 0.6\n")


def _use_yolo(file: Path) -> None:
    folder = file.parent / "yolo"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if not (folder / "images" / "a.png").exists():
        Image.new("RGB", (90, 70)).save(folder / "images" / "a.png")
    (folder / "classes.txt").write_text("dog\ncat\n")
    (folder / "labels" / "a.txt").write_bytes(file.read_bytes())
    _check_samples(open_yolo(folder, None))


def _make_data_yaml(file: Path) -> None:
    content = "path: ../x\ntrain: ../images\nval: [images, /home/y/list.txt]\nnc: 2\nkpt_shape: [1, 2]\n"
    file.write_text(f"{content}names:\n  0: dog\n  1: cat\n")


def _use_data_yaml(file: Path) -> None:
    folder = file.parent / "described"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7)).save(folder / "images" / "a.png")
    (folder / "labels" / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (folder / "list.txt").write_text("images/a.png\n")
    (folder / "data.yaml").write_bytes(file.read_bytes())
    for split in ("train", "val"):
        _check_samples(open_yolo(folder, split))


def _evaluate(truth: GroundTruth, found: Submission) -> None:
    for evaluation in (evaluate(truth, found, lenient=True), evaluate_voc(truth, found, lenient=True)):
        analyse(evaluation)
    evaluate_coco(truth, found, lenient=True)


def _make_submission(file: Path) -> None:
    file.write_text("1 3 0.5 1 2 30 40\n2 1 0.25 5 6 20 30\n2 3 1e-3 5.5 6 20 30\n")


def _use_submission(file: Path) -> None:
    strict_error = None
    try:
        read_submission(file)
    except SubmissionError as error:
        strict_error = error
    found = read_submission(file, lenient=True)
    assert (strict_error is None) == (found.skipped == 0)
    truth = GroundTruth.from_arrays([1, 2], [1, 2], [3, 1], [[1, 2, 30, 40], [5, 6, 20, 30]])
    _evaluate(truth, found)


def _make_xml(file: Path) -> None:
    write_annotation(file, Annotation("a", 90, 70, (AnnotatedObject("dog", (1, 2, 30, 40)),)))


def _make_proposals(file: Path) -> None:
    with ProposalWriter(file, {"method": "x"}) as writer:
        for name in ("p.jpg", "q.jpg"):
            writer.add(name, 90, 70, Proposals(BOXES, np.array([0.9, 0.1], np.float32)))
        writer.fail("r.jpg", "damaged")


def _use_proposals(file: Path) -> None:
    with read_proposals(file) as opened:
        for name in ("p.jpg", "q.jpg"):
            found = opened.find(f"/x/{name}", (90, 70))
            assert found is None or np.isfinite(found.boxes).all()


def _make_model_json(file: Path) -> None:
    content = {
        "format": "inception-rcnn model 1",
        "network": {"name": "googlenet", "stem": "plain", "batch_norm": False},
        "members": 2,
        "shared_blocks": 0,
        "box_regression": True,
        "regions": {"superpixel_scale": 2.0, "min_side": 10, "connectivity": 8, "warp_mode": "warp", "padding": 16},
        "cascade": 0.1,
        "input_ranges": [{"trunk.conv2.convolution": 3.5}, {}],
        "categories": [{"id": 58, "wnid": "n02084071", "name": "dog"}, {"id": 7, "wnid": "n1", "name": "cat"}],
        "multibox": {
            "network": {"name": "googlenet", "stem": "plain", "batch_norm": False},
            "split": "inception_4e",
            "width": 8,
            "sizes": [64],
            "grids": [{"stride": 16, "division": 1, "shapes": [[12.0, 12.0]]}],
        },
        "screen": {
            "classes": 2, "fine_channels": 52, "coarse_channels": 64, "width": 8, "grid": 3, "hidden": 16,
            "thresholds": {"score": 0.03, "nms": 0.8},
        },
        "card": {"data": "none"},
    }  # fmt: skip
    file.write_text(json.dumps(content))


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def _make_weights(file: Path) -> None:
    from safetensors.torch import save_file

    save_file(_network().state_dict(), file)


def _use_weights(file: Path) -> None:
    network = network_with_weights(_network, read_weights(file), file, {})
    assert all(value.isfinite().all() for value in network.state_dict().values())


def _use_regression(file: Path) -> None:
    from safetensors import SafetensorError

    try:
        assert np.isfinite(BoxRegressor.load(file, 2).weights).all()
    except SafetensorError as error:  # a documented type, which is no ValueError
        raise ValueError from error


def _make_checkpoint(file: Path) -> None:
    network = _network()
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    Checkpoint(file, {"a": 1}).save(network, optimiser, 7)


def _use_checkpoint(file: Path) -> None:
    network = _network()
    step = Checkpoint(file, {"a": 1}).load(network, torch.optim.SGD(network.parameters(), 0.1, momentum=0.9))
    assert step == 7, step


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 & 0x7F | 0x82, number >> 4, len(content)]) + content


def _make_caffemodel(file: Path) -> None:
    blob = _field(7, bytes([8, 2])) + _field(5, np.array([1, 2], "<f4").tobytes())
    file.write_bytes(b"".join(_field(100, _field(1, name) + _field(7, blob) * 2) for name in (b"conv1", b"conv2")))


def _make_cache(file: Path) -> None:
    Image.new("RGB", (4, 4), (1, 2, 3)).save(file.parent / "picture.png")
    with RegionCache(file, _propose, "a") as proposals_of:
        proposals_of(file.parent / "picture.png")


def _propose(path: Path) -> Proposals:
    return Proposals(BOXES, np.array([0.9, 0.1], np.float32))


def _use_cache(file: Path) -> None:
    with RegionCache(file, _propose, "a") as proposals_of:
        assert proposals_of(file.parent / "picture.png").boxes.tolist() == BOXES.tolist()


def _make_run(file: Path) -> None:
    with RunState(file, {"a": 1}, ["a.jpg", "b.jpg"], existing="refuse") as state:
        state.add(Result(0, 90, 70, Detections(BOXES, np.array([0.9, 0.1], np.float32), np.array([1, 2])), None))
    with closing(sqlite3.connect(file)) as database:
        database.execute("pragma journal_mode = delete")


def _use_run(file: Path) -> None:
    with RunState(file, {"a": 1}, ["a.jpg", "b.jpg"], existing="resume") as state:
        state.left()
        for result in state.results():
            assert result.detections is None or len(result.detections.boxes) == len(result.detections.scores)


def _use_annotation_cache(file: Path) -> None:
    folder = file.parent / "cache"
    _make_xml(file.parent / "a.xml")
    right = read_annotations([file.parent / "a.xml"], folder)
    (entry,) = folder.glob("*.npz")
    if file.stat().st_size:
        entry.write_bytes(file.read_bytes())
    assert read_annotations([file.parent / "a.xml"], folder).inclusive.tolist() == right.inclusive.tolist()


def _make_annotation_cache(file: Path) -> None:
    _make_xml(file.parent / "a.xml")
    read_annotations([file.parent / "a.xml"], file.parent / "cache")
    (entry,) = (file.parent / "cache").glob("*.npz")
    file.write_bytes(entry.read_bytes())


TARGETS = {
    "coco": Target(_make_coco, _use_coco, (CocoError, GroundTruthError, EvaluationError), is_json=True),
    "labelme": Target(_make_labelme, _use_labelme, (AnnotationError, LayoutError), is_json=True),
    "Label Studio": Target(
        _make_label_studio,
        lambda file: _check_samples(open_label_studio(file)),
        (AnnotationError, LayoutError),
        is_json=True,
    ),
    "CVAT": Target(_make_cvat, lambda file: _check_samples(open_cvat(file)), (AnnotationError, LayoutError)),
    "YOLO": Target(_make_yolo, _use_yolo, (AnnotationError, LayoutError)),
    "data.yaml": Target(_make_data_yaml, _use_data_yaml, (AnnotationError, LayoutError)),
    "submission": Target(_make_submission, _use_submission, (SubmissionError, EvaluationError)),
    "annotation": Target(_make_xml, read_annotation, (AnnotationError,)),
    "image list": Target(lambda file: file.write_text("a 1\nb/c 2\n") and None, read_image_list, (LayoutError,)),
    "class list": Target(
        lambda file: file.write_text("1\tn1\tdog\n2\tn2\tcat\n") and None, read_categories, (CategoryError,)
    ),
    "blacklist": Target(
        lambda file: file.write_text("1 n02084071\n2 n02121808\n") and None, read_blacklist, (GroundTruthError,)
    ),
    "proposals": Target(_make_proposals, _use_proposals, (ProposalFileError,)),
    "model.json": Target(_make_model_json, read_description, (ModelError,), is_json=True),
    "weights": Target(_make_weights, _use_weights, (ModelError,)),
    "box regression": Target(
        lambda file: BoxRegressor(np.ones((2, 9, 4), np.float32)).save(file), _use_regression, (ValueError, KeyError)
    ),
    "checkpoint": Target(_make_checkpoint, _use_checkpoint, (TrainingError,)),
    "caffemodel": Target(_make_caffemodel, read_caffemodel, (CaffeModelError,)),
    "proposal cache": Target(_make_cache, _use_cache, (ImageError,)),
    "run.sqlite": Target(_make_run, _use_run, (RunStateError,)),
    "annotation cache": Target(_make_annotation_cache, _use_annotation_cache, ()),
}


class TooSlow(BaseException):
    """A case takes longer than `SECONDS`."""


@contextmanager
def time_limit() -> Iterator[None]:
    """Interrupts the block after `SECONDS`, where the system has alarms."""

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault_of(target: Target, right: bytes, folder: Path, seed: int, number: int) -> str | None:
    """Damages a file and reads it. Returns what went wrong, or None."""
    rng = np.random.default_rng([seed, number])
    content = damaged_json(right, rng) if target.is_json and rng.random() < 0.7 else damaged(right, rng)
    file = folder / "file"
    for old in folder.glob("file*"):
        old.unlink()
    file.write_bytes(content)
    try:
        with time_limit():
            target.use(file)
    except target.errors as error:
        if len(str(error)) > 3000:
            return f"a message of {len(str(error))} letters: {str(error)[:200]}"
    except TooSlow:
        return f"takes more than {SECONDS} seconds: {''.join(traceback.format_exc().splitlines(True)[-4:])}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:200]}"
    return None


def run(cases: int, seed: int, first: int = 0, only: str | None = None) -> list[str]:
    """Tries `cases` damaged files, of all kinds in turn. Returns a line for each fault."""
    targets = {name: target for name, target in TARGETS.items() if only in (None, name)}
    faults = []
    with tempfile.TemporaryDirectory() as place:
        rights = {}
        for name, target in targets.items():
            folder = Path(place) / name
            folder.mkdir()
            target.make(folder / "right")
            rights[name] = (folder / "right").read_bytes()
        for number in range(first, first + cases):
            for name, target in targets.items():
                fault = fault_of(target, rights[name], Path(place) / name, seed, number)
                if fault:
                    faults.append(f"--only {name!r} --seed {seed} --first {number} --cases 1: {fault}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", choices=TARGETS, help="one kind of file")
    arguments = parser.parse_args()
    if sys.platform == "linux":
        import resource

        present = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (present + (GIGABYTES << 30),) * 2)
    logging.getLogger("inception_rcnn").setLevel(logging.ERROR)  # Each damaged cache is a warning.
    start = time.monotonic()
    faults = run(arguments.cases, arguments.seed, arguments.first, arguments.only)
    kinds = 1 if arguments.only else len(TARGETS)
    print(*faults, sep="\n")
    print(f"{len(faults)} faults in {arguments.cases * kinds} cases, {time.monotonic() - start:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
