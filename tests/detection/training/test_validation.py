"""The figures of a model's card, and that a measurement goes on where it was."""

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.boxes import to_inclusive
from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.voc import evaluate_voc
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.training import validation
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.validation import measure_detector

CATEGORIES = (Category(1, "a", "gnome"), Category(2, "b", "flamingo"))
BOX = np.array([[20, 10, 60, 50]], np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save_model(Model([GoogLeNet(3, auxiliary=False).eval()], CATEGORIES), folder)
    return folder


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(3)]
    for file in files:
        image = np.full((60, 80, 3), 100, np.uint8)
        image[10:50, 20:60] = rng.integers(0, 256, 3)
        Image.fromarray(image).save(file)
    return files


def dataset(paths, difficult: bool = False) -> Dataset:
    def read(number: int) -> Sample:
        hard = np.array([difficult and number == 0])
        return Sample(str(number), number + 1, paths[number], BOX, np.array([1 + number % 2]), hard)

    return Dataset("garden", CATEGORIES, range(len(paths)), read)


@pytest.mark.parametrize("difficult", [False, True])
def test_figures_are_those_of_an_evaluation_of_what_the_detector_finds(model, paths, tmp_path, difficult):
    found = [item.detections for item in Detector.load(model).detect_files(paths)]
    truth = GroundTruth.from_arrays(
        range(3), range(3), [1, 2, 1], to_inclusive(np.repeat(BOX, 3, 0)), difficult=[difficult, False, False],
        categories=CATEGORIES,
    )  # fmt: skip
    submission = Submission.from_boxes(
        np.repeat(range(3), [len(one) for one in found]),
        np.concatenate([one.labels for one in found]),
        np.concatenate([one.scores for one in found]),
        np.concatenate([one.boxes for one in found]),
    )
    expected = (evaluate_voc if difficult else evaluate)(truth, submission)
    card = measure_detector(model, dataset(paths, difficult), tmp_path, pictures=10, device="cpu")
    assert card["mAP"] == pytest.approx(expected.mean_ap(), abs=5e-5)
    assert card["protocol"] == ("voc12" if difficult else "ilsvrc")
    assert (card["data"], card["pictures"]) == ("garden", 3)
    assert card["classes"]["gnome"]["objects"] == (1 if difficult else 2)
    assert card["classes"]["flamingo"]["AP"] == pytest.approx(expected.ap[2], abs=5e-5)
    low, high = card["interval"]
    assert 0 <= low <= high <= 1


def test_an_interrupted_measurement_goes_on_and_a_finished_one_is_not_repeated(model, paths, tmp_path, monkeypatch):
    whole = measure_detector(model, dataset(paths), tmp_path / "whole", pictures=10, device="cpu")

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_detector(model, dataset(paths), tmp_path / "parts", pictures=10, device="cpu", report=stop)
    states = []
    again = measure_detector(
        model, dataset(paths), tmp_path / "parts", pictures=10, device="cpu", report=lambda *state: states.append(state)
    )
    assert (again, states) == (whole, [(2, 3), (3, 3)])
    monkeypatch.delattr(validation.Detector, "load")  # not needed any more
    assert measure_detector(model, dataset(paths), tmp_path / "parts", pictures=10, device="cpu") == whole


def test_another_draw_of_pictures_is_measured_anew(model, paths, tmp_path):
    first = measure_detector(model, dataset(paths), tmp_path, pictures=1, device="cpu")
    assert first["pictures"] == 1
    assert measure_detector(model, dataset(paths), tmp_path, pictures=3, device="cpu")["pictures"] == 3


def test_a_picture_that_cannot_be_read_is_named(model, tmp_path):
    with pytest.raises(TrainingError, match=r"missing\.png"):
        measure_detector(model, dataset([tmp_path / "missing.png"]), tmp_path, pictures=1, device="cpu")
