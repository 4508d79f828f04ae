"""Compare what a training on few pictures starts from: the shipped model, another model, or a classifier of pictures.

    python benchmarks/own_pictures.py ILSVRC_FOLDER --work work/ \\
        --init "default --freeze-trunk" "bvlc_googlenet.caffemodel --freeze-trunk --no-multibox"

Random pictures of val that show one of two classes become a data set in the PASCAL VOC layout: 50 pictures to train
on, and others to measure on. `detect-train` trains a detector from each `--init`, and the detector looks at the other
pictures. The table has the mean AP of the two classes, with the gain over the first start. Finished trainings in
`--work` are not repeated. Each `--init` is followed by further options of `detect-train`.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from results import Measurement, print_rows, submission

from inception_rcnn import Detector
from inception_rcnn.data.dataset import Sample
from inception_rcnn.data.ground_truth import GroundTruth, read_ilsvrc_ground_truth
from inception_rcnn.data.ilsvrc import annotation_path, open_dataset
from inception_rcnn.detection.evaluation.ilsvrc import evaluate


def write_voc(samples: Sequence[Sample], ilsvrc: Path, names: dict[str, str], folder: Path) -> None:
    """Write a data set in the VOC layout with the list `train` and the classes `names`, which are given by WNID."""
    lists, annotations, pictures = (folder / one for one in ("ImageSets/Main", "Annotations", "JPEGImages"))
    for made in (lists, annotations, pictures):
        made.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        tree = ElementTree.parse(annotation_path(ilsvrc / "Annotations" / "DET" / "val", sample.image_id))
        root = tree.getroot()
        for thing in root.findall("object"):
            wnid = thing.findtext("name", "")
            if wnid in names:
                thing.find("name").text = names[wnid]  # type: ignore[union-attr]
            else:
                root.remove(thing)
        tree.write(annotations / f"{sample.image_id}.xml")
        link = pictures / f"{sample.image_id}{sample.path.suffix}"
        link.unlink(missing_ok=True)
        link.symlink_to(sample.path.resolve())
    (lists / "train.txt").write_text("".join(f"{sample.image_id}\n" for sample in samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ilsvrc", type=Path, help="data in the ILSVRC DET layout; its val split is used")
    parser.add_argument("--work", type=Path, required=True, help="folder for the data set and the models")
    parser.add_argument("--init", nargs="+", default=["default"], help="see detect-train --init")
    parser.add_argument("--classes", nargs=2, default=["horse", "sheep"], help="names of two DET classes")
    parser.add_argument("--pictures", type=int, default=50, help="number of pictures to train on")
    parser.add_argument("--measured", type=int, help="number of pictures to measure on; all others by default")
    parser.add_argument("--seed", type=int, default=7, help="seed of the draw")
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.ilsvrc, "val")
    wanted = {one.id: one for one in dataset.categories if one.name in arguments.classes}
    rows = [row for row, sample in enumerate(dataset) if set(sample.labels.tolist()) & wanted.keys()]
    order = np.random.default_rng(arguments.seed).permutation(rows).tolist()
    learned, others = ([dataset[row] for row in part] for part in np.split(order, [arguments.pictures]))
    measured = others[: arguments.measured]
    names = {one.wnid: one.name for one in wanted.values()}
    voc = arguments.work / "voc"
    write_voc(learned, arguments.ilsvrc, names, voc)
    truth = read_ilsvrc_ground_truth(arguments.ilsvrc, "val")
    indices = np.array([sample.index for sample in measured])
    kept = np.isin(truth.images, indices) & np.isin(truth.labels, list(wanted))
    truth = GroundTruth.from_arrays(
        indices, truth.images[kept], truth.labels[kept], truth.inclusive[kept], categories=truth.categories
    )
    results: dict[str, Measurement] = {}
    for number, init in enumerate(arguments.init, 1):
        out = arguments.work / f"model-{number}"
        command = ["detect-train", str(voc), "--out", str(out), "--validation", "none", "--init", *shlex.split(init)]
        start = time.perf_counter()
        subprocess.run(command, check=True)
        print(f"{init}: trained in {time.perf_counter() - start:.0f} s", flush=True)
        with Detector.load(out) as detector:
            results_of_files = list(detector.detect_files([sample.path for sample in measured]))
        labels = {one.name: one.id for one in wanted.values()}
        in_det = []
        for result in results_of_files:
            assert result.detections is not None, result.error
            numbers = np.array([labels[name] for name in result.detections.names], np.int64)
            in_det.append(replace(result.detections, labels=numbers))
        results[init] = Measurement(evaluate(truth, submission(indices, in_det)), {"both classes": list(wanted)})
    title = f"{len(learned)} pictures to train on, {len(measured)} measured, {truth.labels.size} objects"
    print_rows(title, results, results[arguments.init[0]])


if __name__ == "__main__":
    main()
