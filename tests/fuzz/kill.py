"""Kills detection, training and evaluation at random moments (`kill -9`): repeated, they give the bytes of a whole run.

    python tests/fuzz/kill.py                                  # 9 moments, about a minute
    python tests/fuzz/kill.py --moments 100 --seed 7
    python tests/fuzz/kill.py --only training --seed 7 --first 41 --moments 1   # repeats one moment

Seed and number of a moment decide the command and how often and when it is killed; the moment within the command also
depends on the machine. The commands run in forks of this process, with tiny networks on tiny pictures, so that they
start at once. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import inception_rcnn.tools.detect_train  # noqa: F401  so that no fork has to import the training
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.layouts import open_dataset
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training import split
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.multibox import MultiBoxSettings
from inception_rcnn.detection.training.screen import ScreenSettings
from inception_rcnn.detection.training.train_detector import train_detector
from inception_rcnn.tools.detect import app as detect_app
from inception_rcnn.tools.detect_evaluate import app as evaluate_app

PICTURES = 3
CLASSES = ("n02084071", "n02121808")  # dog, domestic cat
# The state of a run and the intermediate files of a training, whose bytes depend on the interruptions.
_NOT_COMPARED = ("run.sqlite", "training")


def _make_data(work: Path, out: Path) -> None:
    """Writes pictures of 100 x 80 with an object each in the ILSVRC layout, and a tiny model to detect with."""
    root = work / "data"
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for kind in ("Data", "Annotations"):
            (root / kind / "DET" / part).mkdir(parents=True)
        (root / "ImageSets" / "DET").mkdir(parents=True, exist_ok=True)
        for number in range(PICTURES):
            image = np.full((80, 100, 3), 100, np.uint8)
            image[5:25, 5:25] = rng.integers(0, 256, 3)
            image[20:60, 30 + number : 80] = (200, 30, 30) if number % 2 else (30, 30, 200)
            Image.fromarray(image).save(root / "Data" / "DET" / part / f"{part}_{number}.JPEG", quality=95)
            one = AnnotatedObject(CLASSES[number % 2], (31 + number, 21, 80, 60))
            annotation = Annotation(f"{part}_{number}", 100, 80, (one,))
            write_annotation(root / "Annotations" / "DET" / part / f"{part}_{number}.xml", annotation)
        lines = "".join(f"{part}_{number} {number + 1}\n" for number in range(PICTURES))
        (root / "ImageSets" / "DET" / f"{part}.txt").write_text(lines)
    torch.manual_seed(0)
    categories = (Category(58, CLASSES[0], "dog"), Category(59, CLASSES[1], "domestic cat"))
    members = [GoogLeNet(3, auxiliary=False).eval() for _ in range(2)]
    save_model(Model(members, categories), work / "model")


def _detect(work: Path, out: Path) -> None:
    pictures = str(work / "data" / "Data" / "DET" / "val")
    detect_app([pictures, "--out", str(out), "--model", str(work / "model"), "--device", "cpu", "--resume"])


def _train(work: Path, out: Path) -> None:
    settings = FineTuneSettings(iterations=6, positives=2, backgrounds=4, freeze_below="inception_5b", pool=36)
    settings = replace(settings, learning_rate=1e-4)
    train_detector(
        open_dataset(work / "data", "train"),
        out,
        init=str(work / "model"),
        members=2,
        settings=settings,
        multibox=MultiBoxSettings(iterations=2, batch=2, views=1, size=64, shapes=2),
        screen=ScreenSettings(iterations=3, batch=2, positives=4, near=6, far=4),
        validation=open_dataset(work / "data", "val"),
        device="cpu",
    )


def _evaluate(work: Path, out: Path) -> None:
    found = str(work / "whole" / "detection" / "detections.json")
    files = ["--json", str(out / "numbers.json"), "--html", str(out / "page.html"), "--plots", str(out / "plots")]
    evaluate_app([found, "--root", str(work / "data"), "--split", "val", *files])


# This process itself must not compute: a fork cannot use the threads of its parent, and waits for them forever.
COMMANDS: dict[str, Callable[[Path, Path], None]] = {
    "detection": _detect,
    "training": _train,
    "evaluation": _evaluate,
}


def _start(command: Callable[[Path, Path], None], work: Path, out: Path) -> int:
    """Runs a command in a fork, whose output goes to a file. Returns the process id."""
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        os.setsid()
        log = os.open(work / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        torch.set_num_threads(1)
        command(work, out)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _whole_run(command: Callable[[Path, Path], None], work: Path, out: Path) -> str | None:
    """Runs a command to its end. Returns the error, or None."""
    _, status = os.waitpid(_start(command, work, out), 0)
    if status:
        return f"exit code {os.waitstatus_to_exitcode(status)}: {(work / 'log').read_text()[-1500:]}"
    return None


def _content(out: Path) -> dict[str, bytes]:
    files = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {
        name.as_posix(): path.read_bytes()
        for name, path in files.items()
        if not name.parts[0].startswith(_NOT_COMPARED)
    }


def _killed_run(name: str, work: Path, seconds: float, rng: np.random.Generator) -> str | None:
    """Kills a command one to three times, then lets it end. Returns how its files differ, or None."""
    out = work / "killed" / name  # as deep as the whole run's folder: pages hold relative addresses of pictures
    shutil.rmtree(out, ignore_errors=True)
    if rng.random() < 0.3:
        shutil.rmtree(work / "cache" / "inception-rcnn" / "annotations", ignore_errors=True)
    moments = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        moments.append(float(rng.uniform(0, seconds)))
        process = _start(COMMANDS[name], work, out)
        time.sleep(moments[-1])
        os.killpg(process, signal.SIGKILL) if _has_own_group(process) else os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    killed = f"killed after {', '.join(f'{moment:.2f}' for moment in moments)} of {seconds:.2f} s"
    error = _whole_run(COMMANDS[name], work, out)
    if error is not None:
        return f"{killed}: {error}"
    right, found = _content(work / "whole" / name), _content(out)
    other = sorted(file for file in right.keys() | found.keys() if right.get(file) != found.get(file))
    return f"{killed}: other files: {', '.join(other[:5])}" if other else None


def _has_own_group(process: int) -> bool:
    try:
        return os.getpgid(process) == process
    except ProcessLookupError:
        return False


def run(moments: int, seed: int, first: int = 0, only: str | None = None) -> list[str]:
    """Kills commands at `moments` moments, each command in turn. Returns a line for each fault."""
    names = [only] if only else list(COMMANDS)
    faults = []
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        work = Path(place)
        patch.setenv("XDG_CACHE_HOME", str(work / "cache"))
        _use_tiny_networks(patch)
        # Without them, the training pictures are too few to train a screen.
        patch.setattr(split, "ONE_UNSEEN_IN", PICTURES)
        patch.setattr(split, "FEWEST_UNSEEN_OBJECTS", 1)
        error = _whole_run(_make_data, work, work)
        if error is not None:
            return [error]
        seconds = {}
        for name in dict.fromkeys(["detection", *names]):  # the evaluation reads the detections
            for folder in ("again", name):
                start = time.monotonic()
                error = _whole_run(COMMANDS[name], work, work / "whole" / folder)
                seconds[name] = time.monotonic() - start
                if error is not None:
                    return [f"{name}: {error}"]
            if _content(work / "whole" / "again") != _content(work / "whole" / name):
                return [f"{name}: two whole runs give other bytes"]
            shutil.rmtree(work / "whole" / "again")
        for number in range(first, first + moments):
            name = names[number % len(names)]
            fault = _killed_run(name, work, seconds[name], np.random.default_rng([seed, number]))
            if fault:
                faults.append(f"{name}, --seed {seed} --first {number} --moments 1: {fault}")
                print(faults[-1], flush=True)
    return faults


def _use_tiny_networks(patch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("test_fixtures", Path(__file__).parents[1] / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    fixtures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fixtures)
    fixtures._narrow_googlenet(patch)
    fixtures._choose_plain_torch(patch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first moment")
    parser.add_argument("--only", choices=COMMANDS, help="one command")
    arguments = parser.parse_args()
    start = time.monotonic()
    faults = run(arguments.moments, arguments.seed, arguments.first, arguments.only)
    print(f"{len(faults)} faults at {arguments.moments} moments, {time.monotonic() - start:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
