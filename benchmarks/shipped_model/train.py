"""Train the shipped model: MultiBox and the screen on whole pictures, six networks on windows.

    python benchmarks/training_list.py ILSVRC/ imagenet-val/ --out joined/
    python benchmarks/shipped_model/train.py joined/ --init old-model/ --teacher bvlc_googlenet.caffemodel \\
        --teacher-classes imagenet_to_det.tsv --out model/

MultiBox and the screen go on from those of the model `--init`; the networks start from the teacher. The box regression
and the calibration are fitted last, the calibration to the pictures of `train_fitted.txt`. Each part is stored in
OUT/training when it is finished, and a repeated command does not train it again.
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from locator import LocatorSettings, train_locator
from networks import MEMBERS, NetworkSettings, NetworkTraining, with_own_blocks
from pictures import Pictures
from regions import Regions, collect_regions
from safetensors.torch import load_file, save_file
from torch import Tensor

from inception_rcnn.data.dataset import Dataset
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.engines.choice import resolve_device
from inception_rcnn.detection.engines.quantisation import measure_input_ranges
from inception_rcnn.detection.model_files import Model, load_model, save_model
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training.box_regression import train_box_regressor
from inception_rcnn.detection.training.initial_network import initial_network
from inception_rcnn.detection.training.known_classes import with_known_classes
from inception_rcnn.detection.training.members_stage import some_crops
from inception_rcnn.detection.training.screen_thresholds import fit_scores
from inception_rcnn.detection.training.teacher import Lesson, make_lesson, read_teacher, with_teachers_classifier
from inception_rcnn.detection.training.windows import Windows
from inception_rcnn.detection.training.windows_stage import with_outputs
from inception_rcnn.proposals.screen import ScreenThresholds

SEED = 0
DATA = "ILSVRC train and extra, half of imagenet-val"
# The share of the initial weights in the weights of MultiBox and the screen (Wortsman et al., "Robust fine-tuning of
# zero-shot models", CVPR 2022). On 60 pictures of val, 200 boxes of MultiBox have a recall at IoU 0.5 of 0.921 with
# this share, of 0.895 with 0 and of 0.882 with 1.
KEPT_OF_INIT = 0.3
# The thresholds of the screen are set by hand: it keeps some 70 regions of a picture.
THRESHOLDS = ScreenThresholds(score=0.07, nms=0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that training_list.py made")
    parser.add_argument("--init", required=True, help="a model with a MultiBox network and a screen")
    parser.add_argument("--teacher", required=True, help="a classifier of ImageNet's 1,000 classes")
    parser.add_argument("--teacher-classes", type=Path, required=True, help="see detect-train")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    arguments = parser.parse_args()
    folder, device = arguments.out / "training", resolve_device(arguments.device)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset(arguments.data, "train")
    counts = Counter(label for sample in dataset for label in sample.labels[~sample.difficult].tolist())
    teacher = read_teacher(initial_network(arguments.teacher), arguments.teacher_classes, dataset.categories)
    lesson = make_lesson(teacher, dataset, dataset.categories, set(counts))
    assert lesson is not None
    if not (folder / "regions.npz").exists():
        collect_regions(dataset, arguments.init, SEED).save(folder / "regions.npz")
    regions = Regions.load(folder / "regions.npz")
    windows = with_outputs(Windows(regions.images, regions.boxes, regions.labels), dataset.categories)
    initial = load_model(arguments.init)
    torch.manual_seed(SEED)
    network = with_teachers_outputs(lesson)
    if not (folder / f"network_{1 + len(MEMBERS)}.safetensors").exists():
        # Rounding to TF32 is far below the noise of a training.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        pictures = Pictures(dataset, device)
        if not (folder / "screen.safetensors").exists():
            locator = train_locator(copy.deepcopy(initial), dataset, pictures, regions, LocatorSettings(), device)
            for name, part in locator.items():
                save(folder / f"{name}.safetensors", part.state_dict())
        training = NetworkTraining(network, lesson, pictures, regions, windows.labels, NetworkSettings(), device)
        if not (folder / "network_1.safetensors").exists():
            training.train_first()
            save(folder / "network_1.safetensors", network.state_dict())
        network.load_state_dict(load(folder / "network_1.safetensors"))
        for number, own in enumerate(training.train_others(), 2):
            save(folder / f"network_{number}.safetensors", own.state_dict())
    model = assembled(folder, initial, network.cpu(), dataset, windows, lesson)
    model.card = card_of(arguments, dataset, counts, lesson)
    complete(model, folder, dataset, windows, open_dataset(arguments.data, "train_fitted"), device)
    save_model(model, arguments.out)


def with_teachers_outputs(lesson: Lesson) -> GoogLeNet:
    """The teacher's network with a classifier of all outputs of the lesson."""
    assert lesson.teacher is not None
    network = copy.deepcopy(lesson.teacher.network)
    assert isinstance(network, GoogLeNet)
    with_teachers_classifier(network, lesson.teacher, 1 + len(lesson.subclasses))
    return network


def assembled(
    folder: Path, initial: Model, network: GoogLeNet, dataset: Dataset, windows: Windows, lesson: Lesson
) -> Model:
    """The model of all trained parts, without box regression, thresholds and calibration."""
    multibox, screen = copy.deepcopy(initial.multibox), copy.deepcopy(initial.screen)
    assert multibox is not None
    assert screen is not None
    for name, part in (("multibox", multibox), ("screen", screen)):
        trained, old = load(folder / f"{name}.safetensors"), part.state_dict()
        mean = {key: KEPT_OF_INIT * old[key] + (1 - KEPT_OF_INIT) * value for key, value in trained.items()}
        part.load_state_dict(mean)
    boxed = {label for sample in dataset for label in sample.labels.tolist()}
    screen.class_names = tuple(one.name if one.id in boxed else None for one in dataset.categories)
    network.load_state_dict(load(folder / "network_1.safetensors"))
    members = [network]
    for number in range(2, 2 + len(MEMBERS)):
        members.append(with_own_blocks(network, load(folder / f"network_{number}.safetensors")))
    crops = some_crops(dataset, windows, initial.regions, SEED)
    for member in members:
        member.eval().input_ranges = measure_input_ranges(member, crops)
    return Model(
        list(members),
        dataset.categories,
        initial.regions,
        multibox=multibox.half().float(),
        screen=screen.half().float(),
        subclasses=lesson.subclasses,
    )


def complete(model: Model, folder: Path, dataset: Dataset, windows: Windows, fitted: Dataset, device: str) -> None:
    """Set the thresholds of the screen, and fit the box regression and the calibration to the weights as stored."""
    save_model(model, folder / "rounded")
    model.members = load_model(folder / "rounded").members
    model.regressor = train_box_regressor(
        model.members[0],
        dataset,
        windows,
        model.regions,
        len(model.categories),
        folder,
        seed=SEED,
        device=device,
        report=print_progress,
    )
    assert model.screen is not None
    model.screen.thresholds = THRESHOLDS
    known = with_known_classes(fitted, model.categories)
    model.calibration, figures = fit_scores(model, list(known), known, device=device, report=print_progress)
    model.card["screen"]["thresholds"] = figures


def card_of(
    arguments: argparse.Namespace, dataset: Dataset, counts: Mapping[int, int], lesson: Lesson
) -> dict[str, Any]:
    """The card of the model."""
    assert lesson.teacher is not None
    taught = {one.category for one in lesson.teacher.outputs}
    data = {"data": DATA, "pictures": len(dataset)}
    return {
        **data,
        "objects": {category.name: counts.get(category.id, 0) for category in dataset.categories},
        "taught": [category.name for category in dataset.categories if category.id in taught],
        "init": Path(arguments.teacher).name,
        "teacher": Path(arguments.teacher).name,
        "members": 1 + len(MEMBERS),
        "settings": asdict(NetworkSettings()),
        "multibox": {**data, "settings": asdict(LocatorSettings())},
        "screen": {**data, "settings": asdict(LocatorSettings())},
    }


def save(file: Path, weights: Mapping[str, Tensor]) -> None:
    """Store weights as float16."""
    save_file({name: value.half().cpu().contiguous() for name, value in weights.items()}, file)


def load(file: Path) -> dict[str, Tensor]:
    """The weights that `save` stored, as float32."""
    return {name: value.float() for name, value in load_file(file).items()}


def print_progress(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
    """Print the progress of a stage on one line."""
    print(f"\r{stage}: {done:,} of {total:,}", end="\n" if done == total else "", flush=True)


if __name__ == "__main__":
    main()
