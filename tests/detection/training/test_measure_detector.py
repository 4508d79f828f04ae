"""The figures of a detector's card, from a stand-in whose detections are known."""

from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock

from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.training import measure_detector as measuring
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.measure_detector import measure_detector

GNOME, FLAMINGO = 1, 2
CATEGORIES = (Category(GNOME, "a", "gnome"), Category(FLAMINGO, "b", "flamingo"))
FINEST = (Subclass("n1", "garden gnome", GNOME), Subclass("n2", "greater flamingo", FLAMINGO))
# Every picture has one object with this box: a gnome in pictures 0 and 2, a flamingo in picture 1.
BOX = (20, 10, 60, 50)
ELSEWHERE = (0, 0, 10, 10)
# Score, class and box of the detections in each picture.
FOUND = {
    "0.png": [(0.9, GNOME, BOX)],
    "1.png": [(0.95, GNOME, ELSEWHERE), (0.7, FLAMINGO, BOX)],
    "2.png": [(0.5, FLAMINGO, ELSEWHERE)],
}


class StandIn:
    """A detector that finds what `FOUND` says."""

    @classmethod
    def load(cls, model, device):
        return cls()

    def detect_files(self, paths):
        for path in paths:
            if path.name not in FOUND:
                yield SimpleNamespace(image=None, detections=None, error=f"{path}: no such file")
                continue
            scores, labels, boxes = zip(*FOUND[path.name], strict=True)
            # The networks tell subclasses apart, as those of the shipped model do.
            finest = np.array(labels) - 1
            detections = Detections(
                np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels), subclasses=finest
            )
            yield SimpleNamespace(image=np.zeros((60, 80, 3), np.uint8), detections=detections, error=None)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(measuring, "Detector", StandIn)
    monkeypatch.setattr(measuring, "model_digest", lambda model: model.name)
    described = SimpleNamespace(categories=CATEGORIES, subclasses=FINEST)
    monkeypatch.setattr(measuring, "read_description", lambda file: described)


@pytest.fixture
def paths(tmp_path):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        file.write_bytes(file.name.encode())
    return files


def dataset(paths, difficult: bool = False) -> Dataset:
    def read(number: int) -> Sample:
        boxes, labels = np.array([BOX], np.float32), np.array([(GNOME, FLAMINGO)[number % 2]])
        return Sample(str(number), number + 1, paths[number], boxes, labels, np.array([difficult and number == 0]))

    return Dataset("garden", CATEGORIES, range(len(paths)), read)


def test_figures_of_known_detections(paths, tmp_path):
    # Gnomes: a false positive, then one of two objects at precision 1/2, so AP = 1/2 * 1/2. Flamingos: the object at
    # precision 1, then a false positive, so AP = 1.
    card = measure_detector(tmp_path / "model", dataset(paths), tmp_path, pictures=10)
    assert (card["data"], card["pictures"], card["protocol"]) == ("garden", 3, "ilsvrc")
    assert card["mAP"] == 0.625
    assert {name: (one["AP"], one["objects"]) for name, one in card["classes"].items()} == {
        "gnome": (0.25, 2),
        "flamingo": (1.0, 1),
    }
    for figures in (card, *card["classes"].values()):
        low, high = figures["interval"]
        assert 0 <= low < high <= 1 or figures is card["classes"]["flamingo"]
    # A draw of pictures has the flamingo at precision 1, or no flamingo.
    assert card["classes"]["flamingo"]["interval"] == [1, 1]


def test_a_difficult_object_does_not_count_by_the_rules_of_voc(paths, tmp_path):
    # The detection of the difficult gnome is ignored; the other gnome is missed.
    card = measure_detector(tmp_path / "model", dataset(paths, difficult=True), tmp_path, pictures=10)
    assert (card["protocol"], card["mAP"]) == ("voc12", 0.5)
    assert (card["classes"]["gnome"]["AP"], card["classes"]["gnome"]["objects"]) == (0, 1)


def test_an_interrupted_measurement_resumes_and_a_finished_measurement_is_not_repeated(paths, tmp_path, monkeypatch):
    whole = measure_detector(tmp_path / "model", dataset(paths), tmp_path / "whole", pictures=10)

    def stop(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_detector(tmp_path / "model", dataset(paths), tmp_path / "parts", pictures=10, report=stop)
    states = []
    again = measure_detector(
        tmp_path / "model",
        dataset(paths),
        tmp_path / "parts",
        pictures=10,
        report=lambda *state: states.append(state),
    )
    assert again == whole
    assert states == [("evaluation", 2, 3, {}), ("evaluation", 3, 3, {})]
    monkeypatch.delattr(StandIn, "load")  # A finished measurement loads no detector.
    assert measure_detector(tmp_path / "model", dataset(paths), tmp_path / "parts", pictures=10) == whole


@pytest.mark.parametrize(("model", "pictures"), [("model", 3), ("other model", 1)])
def test_another_model_or_other_pictures_are_measured_again(paths, tmp_path, model, pictures):
    measure_detector(tmp_path / "model", dataset(paths), tmp_path, pictures=1)
    done = []
    card = measure_detector(
        tmp_path / model,
        dataset(paths),
        tmp_path,
        pictures=pictures,
        report=lambda stage, number, total, figures: done.append(number),
    )
    assert card["pictures"] == pictures
    assert done == list(range(pictures + 1))


def test_a_file_that_another_process_works_on_is_not_deleted(paths, tmp_path):
    measure_detector(tmp_path / "model", dataset(paths), tmp_path, pictures=3)
    before = (tmp_path / "evaluation.sqlite").read_bytes()
    with (
        FileLock(f"{tmp_path / 'evaluation.sqlite'}.lock", timeout=0),
        pytest.raises(TrainingError, match="another process is working"),
    ):
        measure_detector(tmp_path / "other model", dataset(paths), tmp_path, pictures=3)
    assert (tmp_path / "evaluation.sqlite").read_bytes() == before


def test_a_damaged_file_is_measured_again(paths, tmp_path):
    whole = measure_detector(tmp_path / "model", dataset(paths), tmp_path, pictures=3)
    (tmp_path / "evaluation.sqlite").write_bytes(b"x" * 5000)
    assert measure_detector(tmp_path / "model", dataset(paths), tmp_path, pictures=3) == whole


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "missing.png").touch()
    with pytest.raises(TrainingError, match=r"missing\.png"):
        measure_detector(tmp_path / "model", dataset([tmp_path / "missing.png"]), tmp_path, pictures=1)


def test_pictures_without_an_object_that_counts_are_refused(paths, tmp_path):
    with pytest.raises(TrainingError, match="none of 1 pictures shows an object to find"):
        measure_detector(tmp_path / "model", dataset(paths[:1], difficult=True), tmp_path, pictures=1)
