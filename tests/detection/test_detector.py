from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.boxes import area
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.detector import FileResult, _Picture
from inception_rcnn.detection.model_files import Model, RegionSettings
from inception_rcnn.detection.regression import BoxRegressor
from inception_rcnn.detection.suppression import Detections, select_detections, vote_boxes
from inception_rcnn.proposals.files import ProposalWriter, read_proposals
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.selective_search import selective_search

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02510455", "cat"))


def picture(seed: int, width: int = 120, height: int = 90) -> np.ndarray:
    """A few coloured rectangles: something for selective search to find, and little for the network to do."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 100, np.uint8)
    for _ in range(4):
        x, y = rng.integers(0, width - 30), rng.integers(0, height - 30)
        image[y : y + rng.integers(15, 30), x : x + rng.integers(15, 30)] = rng.integers(0, 256, 3)
    return image


def model(members: int = 1) -> Model:
    torch.manual_seed(0)
    networks = []
    for _ in range(members):
        network = GoogLeNet(3, auxiliary=False).eval()
        with torch.no_grad():  # random features are large; scores would all be 0 or 1
            network.classifier.weight.mul_(0.01)
        networks.append(network)
    return Model(networks, CATEGORIES)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(model(), device="cpu", score_threshold=0.2)


def same(a: Detections, b: Detections) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels"))


def test_detections_are_boxes_in_the_picture_best_first(detector):
    found = detector(picture(0))
    assert len(found)
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert found.boxes.shape == (len(found), 4)
    assert (np.diff(found.scores) <= 0).all()
    assert found.boxes.min() >= 0
    assert (found.boxes[:, 2:] <= [120, 90]).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
    assert set(found.labels) <= {58, 7}
    assert found.scores.min() >= 0.2


def test_files_give_what_the_pictures_alone_give_in_the_order_of_the_files(detector, tmp_path):
    paths = []
    for seed, size in enumerate([(120, 90), (60, 200), (1, 1), (120, 90)]):
        paths.append(tmp_path / f"{9 - seed}.png")
        Image.fromarray(picture(seed, *size) if size[0] > 30 else np.zeros((1, 1, 3), np.uint8)).save(paths[-1])
    results = list(detector.detect_files(paths))
    assert [result.path for result in results] == paths
    for result in results:
        assert same(result.detections, detector(result.image))


def test_a_file_that_cannot_be_read_is_a_result_between_the_others(detector, tmp_path):
    good, bad = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(picture(1)).save(good)
    bad.write_text("not a picture")
    first, second, third = detector.detect_files([good, bad, good])
    assert second.detections is None
    assert second.error.path == bad
    assert second.error.reason
    assert same(first.detections, third.detections)


def test_an_error_while_reading_ahead_reaches_the_caller(detector):
    def paths():
        yield from ()
        raise OSError("the list broke off")

    with pytest.raises(OSError, match="broke off"):
        list(detector.detect_files(paths()))


def test_proposals_from_a_file_take_the_place_of_our_own(detector, tmp_path, monkeypatch):
    known, unknown, resized = (tmp_path / f"{name}.png" for name in ("known", "unknown", "resized"))
    for path in (known, unknown, resized):
        Image.fromarray(picture(1)).save(path)
    some = detector.propose(picture(1)).top(5)
    with ProposalWriter(tmp_path / "boxes.npz", {}) as writer:
        writer.add("known.png", 120, 90, some)
        writer.add("resized.png", 12, 9, some)
    with read_proposals(tmp_path / "boxes.npz") as file:
        first, second, third = detector.detect_files([known, unknown, resized], proposals=file)
    monkeypatch.setattr(detector, "propose", lambda image: some)
    assert same(first.detections, detector(picture(1)))
    assert "nothing for this picture" in second.error.reason
    assert third.detections is None
    assert third.error.path == resized


def test_crops_made_where_the_network_runs_equal_those_made_here_within_a_grey_level(detector):
    image = picture(1)
    one = _Picture(FileResult(Path("a.png"), image, None, None), detector.propose(image).boxes[:7])
    here = np.empty((7, 224, 224, 3), np.uint8)
    there = torch.empty((7, 224, 224, 3), dtype=torch.uint8)
    detector._warp(one, one.boxes, here)
    detector._warp(one, one.boxes, there)
    assert np.abs(there.numpy().astype(int) - here).max() <= 1
    uploaded = one.uploaded
    detector._warp(one, one.boxes[:2], there[:2])
    assert one.uploaded is uploaded  # once for all its batches


def test_stopping_early_stops_the_reading(detector, tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(picture(1)).save(file)
    asked = []

    def paths():
        for number in range(1000):
            asked.append(number)
            yield file

    results = detector.detect_files(paths())
    next(results)
    results.close()
    count = len(asked)
    assert count < 1000
    assert len(asked) == count


def test_a_picture_without_proposals_has_no_detections(detector, monkeypatch):
    nothing = Proposals(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
    monkeypatch.setattr(detector, "propose", lambda image: nothing)
    found = detector(picture(0))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_an_ensemble_averages_the_probabilities_of_its_members():
    both = model(2)
    image = picture(3)
    ensemble = Detector(both, device="cpu", score_threshold=0)
    boxes = ensemble.propose(image).boxes
    members = [Detector(Model([member], CATEGORIES), device="cpu", score_threshold=0) for member in both.members]
    from inception_rcnn.detection.warping.warp import warp_regions

    crops = warp_regions(image, boxes)
    mean = np.mean([member.engines[0](crops) for member in members], axis=0)
    expected = select_detections(boxes, mean, np.array([58, 7]), score_threshold=0, max_detections=100)
    found = ensemble(image)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def ensemble_probabilities(both: Model, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, what the first member says of them, what the members say on average."""
    from inception_rcnn.detection.warping.warp import warp_regions

    detector = Detector(both, device="cpu")
    boxes = detector.propose(image).boxes
    each = [engine(warp_regions(image, boxes)) for engine in detector.engines]
    return boxes, each[0], np.mean(each, axis=0)


def test_the_cascade_takes_what_the_first_member_rejects_for_background():
    both = model(2)
    image = picture(3, 200, 160)
    boxes, first, mean = ensemble_probabilities(both, image)
    both.cascade = float(np.median(1 - first[:, 0]))
    rejected = 1 - first[:, 0] < both.cascade
    assert 0 < rejected.sum() < len(boxes)
    mean[rejected] = [1, 0, 0]
    options = {"device": "cpu", "score_threshold": 0.01}
    expected = select_detections(boxes, mean, np.array([58, 7]), score_threshold=0.01, max_detections=100)
    expected = vote_boxes(expected, boxes, mean, np.array([58, 7]))
    found = Detector(both, **options)(image)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
    without = Detector(both, cascade=False, **options)(image)
    assert not same(found, without)
    both.cascade = None
    assert same(Detector(both, **options)(image), without)


def test_the_first_members_alone_are_a_model_of_these():
    both = model(2)
    image = picture(3)
    alone = Detector(Model(both.members[:1], CATEGORIES), device="cpu")(image)
    assert same(Detector(both, members=1, device="cpu")(image), alone)
    assert not same(Detector(both, members=2, device="cpu")(image), alone)


@pytest.mark.parametrize("members", [0, 3])
def test_members_that_the_model_does_not_have_are_refused(members):
    with pytest.raises(ValueError, match="1 to 2"):
        Detector(model(2), members=members, device="cpu")


def test_results_of_an_ensemble_do_not_depend_on_the_pictures_before(tmp_path):
    both = model(2)
    both.cascade = 0.6
    detector = Detector(both, device="cpu", score_threshold=0.1)
    paths = []
    for seed, size in enumerate([(120, 90), (150, 100), (60, 60), (200, 120)]):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(picture(seed, *size)).save(paths[-1])
    together = {result.path: result.detections for result in detector.detect_files(paths)}
    for path, result in zip(paths[::-1], detector.detect_files(paths[::-1]), strict=True):
        assert same(result.detections, together[path])
    assert same(detector(picture(1, 150, 100)), together[paths[1]])


def test_a_region_that_is_named_twice_counts_once(detector, monkeypatch):
    image = picture(0)
    once = detector.propose(image).top(6)
    twice = Proposals(np.concatenate([once.boxes, once.boxes[::-1]]), np.concatenate([once.scores, once.scores]))
    monkeypatch.setattr(detector, "propose", lambda image: once)
    expected = detector(image)
    monkeypatch.setattr(detector, "propose", lambda image: twice)
    assert same(detector(image), expected)


def regressed(weights: np.ndarray, **settings) -> Detector:
    return Detector(replace(model(), regressor=BoxRegressor(weights)), device="cpu", score_threshold=0.2, **settings)


def test_a_regression_that_moves_nothing_changes_nothing_and_one_that_moves_does_unless_it_is_off(detector):
    weights = np.zeros((2, 5121, 4), np.float32)
    plain = detector(picture(0))
    np.testing.assert_allclose(regressed(weights)(picture(0)).boxes, plain.boxes, atol=1e-3)
    weights[:, 0, 2:] = -0.4  # every box shrinks
    shrunk = regressed(weights)(picture(0))
    assert np.median(area(shrunk.boxes)) < 0.7 * np.median(area(plain.boxes))
    assert same(plain, regressed(weights, box_regression=False)(picture(0)))


@pytest.mark.parametrize("option", [{"score_threshold": -0.1}, {"score_threshold": 1.5}, {"max_detections": 0}])
def test_impossible_settings_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        Detector(model(), device="cpu", **option)


def test_the_package_hands_out_its_names_without_importing_torch():
    import subprocess
    import sys

    code = "import sys, inception_rcnn; print('torch' in sys.modules, 'numba' in sys.modules); inception_rcnn.Detector"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home())
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("connectivity", [4, 8])
def test_proposals_are_those_that_the_models_settings_ask_for(connectivity):
    network = GoogLeNet(3, auxiliary=False).eval()
    regions = RegionSettings(superpixel_scale=1.5, min_side=30, connectivity=connectivity)
    found = Detector(Model([network], CATEGORIES, regions), device="cpu").propose(picture(0))
    expected = selective_search(picture(0), superpixel_scale=1.5, min_side=30, connectivity=connectivity)
    np.testing.assert_array_equal(found.boxes, expected.boxes)
