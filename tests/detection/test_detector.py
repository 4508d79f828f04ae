"""The detector, with a stand-in for the networks wherever the expected detections are computed by hand."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.categories import Category, CategoryError, Subclass
from inception_rcnn.data.images import ImageError
from inception_rcnn.detection.calibration import ScoreCalibration, ScreenedCalibration
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.detector import FileResult, _Picture
from inception_rcnn.detection.engines import ensemble as ensemble_module
from inception_rcnn.detection.model_files import Model, RegionSettings
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.detection.regression import BoxRegressor
from inception_rcnn.proposals.files import ProposalWriter, read_proposals
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.screen import Screen, ScreenThresholds
from inception_rcnn.proposals.selective_search import selective_search

DOG, CAT = 58, 7
CATEGORIES = (Category(DOG, "n02084071", "dog"), Category(CAT, "n02510455", "cat"))

# A grey picture of 100 x 40 pixels with a red, a green and a blue square, and the three regions that fit the squares.
RED, GREEN, BLUE = (0, 0, 20, 20), (40, 0, 60, 20), (80, 20, 100, 40)
REGIONS = np.array([RED, GREEN, BLUE], np.float32)

# What two stand-in networks give red, green and blue regions: probabilities of background, dog and cat.
FIRST = [[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.75, 0.125, 0.125]]
SECOND = [[0.25, 0.625, 0.125], [0.25, 0.125, 0.625], [0.5, 0.125, 0.375]]
# Their mean: red 0.25, 0.5625, 0.1875; green 0.375, 0.1875, 0.4375; blue 0.625, 0.125, 0.25.


class Table(list[list[float]]):
    """Stands in for a network: its probabilities [3, 1 + classes] of red, green and blue regions."""

    input_ranges = MappingProxyType({})


class ColourEngine:
    """Stands in for `Engine`: the features of a region are its mean colour, and a table gives the probabilities.

    Args:
        member: probabilities [3, 1 + classes] of red, green and blue regions.
    """

    device = "cpu"
    description = "stand-in"
    batch_size = 4

    def __init__(self, member, **options):
        self.table = np.array(member, np.float32)
        self.regions = 0

    def features(self, crops):
        self.regions += len(crops)
        return crops.mean((1, 2), dtype=np.float64).astype(np.float32)

    def classify(self, features):
        return self.table[features.argmax(axis=1)]

    def __call__(self, crops):
        return self.classify(self.features(crops))


@pytest.fixture
def colour_engine(monkeypatch):
    monkeypatch.setattr(ensemble_module, "Engine", ColourEngine)
    monkeypatch.setattr(ensemble_module, "shared_blocks", lambda members: 0)


def colour_detector(*members, regions=REGIONS, threshold=None, regressor=None, **settings) -> Detector:
    """A detector with stand-in networks, the cascade's `threshold`, and `regions` as the proposals of every picture."""
    model = Model(
        [Table(one) for one in members], CATEGORIES, RegionSettings(padding=0), cascade=threshold, regressor=regressor
    )
    detector = Detector(model, **settings)
    proposals = Proposals(np.array(regions, np.float32).reshape(-1, 4), np.zeros(len(regions), np.float32))
    detector.propose = lambda image, threads=None: proposals
    return detector


def colour_picture() -> np.ndarray:
    image = np.full((40, 100, 3), 100, np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate((RED, GREEN, BLUE)):
        image[y1:y2, x1:x2] = 0
        image[y1:y2, x1:x2, channel] = 255
    return image


def rows(found: Detections) -> list[tuple[int, tuple[float, ...], float]]:
    """Label, box and score of each detection. Detections of the same score are sorted by label."""
    listed = zip(found.labels.tolist(), map(tuple, found.boxes.tolist()), found.scores.tolist(), strict=True)
    return sorted(listed, key=lambda row: (-row[2], row[0]))


def picture(seed: int, width: int = 120, height: int = 90) -> np.ndarray:
    """A grey picture with four coloured rectangles, in which selective search finds few regions."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 100, np.uint8)
    for _ in range(4):
        x, y = rng.integers(0, width - 30), rng.integers(0, height - 30)
        image[y : y + rng.integers(15, 30), x : x + rng.integers(15, 30)] = rng.integers(0, 256, 3)
    return image


def narrow_detector(members: int, **settings) -> Detector:
    """A detector with narrow GoogLeNets of random weights."""
    torch.manual_seed(0)
    networks = []
    for _ in range(members):
        network = GoogLeNet(3, auxiliary=False).eval()
        with torch.no_grad():  # random features are large, and all probabilities would be 0 or 1
            network.classifier.weight.mul_(0.01)
        networks.append(network)
    return Detector(Model(networks, CATEGORIES, cascade=0.66), device="cpu", **settings)


def same(a: Detections, b: Detections) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("boxes", "scores", "labels"))


# The ensemble


@pytest.mark.usefixtures("colour_engine")
def test_an_ensemble_averages_the_probabilities_of_its_members():
    found = colour_detector(FIRST, SECOND, score_threshold=0.2)(colour_picture())
    assert rows(found) == [(DOG, RED, 0.5625), (CAT, GREEN, 0.4375), (CAT, BLUE, 0.25)]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.usefixtures("colour_engine")
def test_regions_below_the_cascades_threshold_are_background_and_not_scored_by_the_other_members():
    # The first member gives the red, green and blue region object probabilities of 0.75, 0.5 and 0.25.
    detector = colour_detector(FIRST, SECOND, threshold=0.5, score_threshold=0.15)
    expected = [(DOG, RED, 0.5625), (CAT, GREEN, 0.4375), (CAT, RED, 0.1875), (DOG, GREEN, 0.1875)]
    assert rows(detector(colour_picture())) == expected
    assert [engine.regions for engine in detector.ensemble.engines] == [3, 2]


@pytest.mark.usefixtures("colour_engine")
@pytest.mark.parametrize("options", [{"threshold": None}, {"threshold": 0.5, "cascade": False}])
def test_without_a_cascade_every_member_scores_every_region(options):
    detector = colour_detector(FIRST, SECOND, score_threshold=0.2, **options)
    assert rows(detector(colour_picture())) == [(DOG, RED, 0.5625), (CAT, GREEN, 0.4375), (CAT, BLUE, 0.25)]
    assert [engine.regions for engine in detector.ensemble.engines] == [3, 3]


@pytest.mark.usefixtures("colour_engine")
def test_with_one_member_the_scores_are_those_of_the_first():
    detector = colour_detector(FIRST, SECOND, members=1, score_threshold=0.5)
    assert rows(detector(colour_picture())) == [(DOG, RED, 0.5)]
    assert len(detector.ensemble.engines) == 1


@pytest.mark.usefixtures("colour_engine")
@pytest.mark.parametrize("members", [0, 3])
def test_more_or_fewer_members_than_the_model_has_are_refused(members):
    with pytest.raises(ValueError, match=f"members is {members}, expected 1 to 2"):
        colour_detector(FIRST, SECOND, members=members)


@pytest.mark.usefixtures("colour_engine")
@pytest.mark.parametrize(
    "option",
    [{"score_threshold": -0.1}, {"score_threshold": 1.5}, {"max_detections": 0}, {"max_regions": 0}, {"seed": -1}],
)
def test_settings_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        colour_detector(FIRST, **option)


# Pictures of all kinds


@pytest.mark.usefixtures("colour_engine")
def test_arrays_pil_pictures_and_files_give_the_same_detections(tmp_path):
    detector = colour_detector(FIRST, SECOND, score_threshold=0.2)
    expected = detector(colour_picture())
    assert expected.names == ["dog", "cat", "cat"]
    Image.fromarray(colour_picture()).save(tmp_path / "a.png")
    for picture in (Image.fromarray(colour_picture()), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert same(detector(picture), expected)
    with pytest.raises(ImageError, match=r"expected uint8 RGB \[H, W, 3\]"):
        detector(colour_picture() / 255)
    with pytest.raises(ImageError, match="No such file"):
        detector(tmp_path / "b.png")


@pytest.mark.usefixtures("colour_engine")
@pytest.mark.parametrize("keep_image", [False, True])
def test_a_stream_of_pictures_gives_a_result_for_each(tmp_path, keep_image):
    detector = colour_detector(FIRST, SECOND, score_threshold=0.2)
    expected = detector(colour_picture())
    Image.fromarray(colour_picture()).save(tmp_path / "a.png")
    stream = iter([colour_picture(), None, Image.fromarray(colour_picture()), tmp_path / "a.png", tmp_path / "no.png"])
    results = list(detector.detect_images(stream, keep_image=keep_image))
    assert [result.path for result in results] == [0, 1, 2, tmp_path / "a.png", tmp_path / "no.png"]
    for row in (0, 2, 3):
        assert same(results[row].detections, expected)
        assert results[row].size == (100, 40)
        assert (results[row].image is not None) == keep_image
    for row in (1, 4):
        assert (results[row].detections, results[row].size, results[row].image) == (None, None, None)
    assert "got NoneType" in str(results[1].error)
    if keep_image:
        np.testing.assert_array_equal(results[0].image, colour_picture())


@pytest.mark.usefixtures("colour_engine")
def test_an_endless_stream_can_be_left(tmp_path):
    taken = []

    def frames():
        while True:
            taken.append(len(taken))
            yield colour_picture()

    results = colour_detector(FIRST).detect_images(frames())
    assert [next(results).path for _ in range(3)] == [0, 1, 2]
    results.close()
    count = len(taken)
    assert list(results) == []
    assert len(taken) == count


@pytest.mark.usefixtures("colour_engine")
def test_files_may_be_left_out_of_the_results(tmp_path):
    Image.fromarray(colour_picture()).save(tmp_path / "a.png")
    (result,) = colour_detector(FIRST).detect_files([tmp_path / "a.png"], keep_image=False)
    assert (result.image, result.size) == (None, (100, 40))


@pytest.mark.usefixtures("colour_engine")
def test_a_closed_detector_refuses_pictures(tmp_path):
    with colour_detector(FIRST) as detector:
        assert len(detector(colour_picture())) > 0
    detector.close()  # a second time
    for use in (detector, lambda image: detector.detect_images([image]), lambda image: detector.detect_files([])):
        with pytest.raises(ValueError, match="the detector is closed; load it again"):
            use(colour_picture())


# Chosen classes and subclasses


@pytest.mark.usefixtures("colour_engine")
@pytest.mark.parametrize("regressor", [False, True])
@pytest.mark.parametrize("classes", ["cat", ["dog"], ["n02084071", "CAT"]])
def test_chosen_classes_get_the_detections_that_they_have_among_all_classes(classes, regressor):
    options = {"regressor": regression() if regressor else None, "score_threshold": 0.1}
    everything = colour_detector(FIRST, SECOND, **options)(colour_picture())
    detector = colour_detector(FIRST, SECOND, classes=classes, **options)
    found = detector(colour_picture())
    ids = [category.id for category in detector.categories]
    assert ids == [one.id for one in CATEGORIES if one.name in str(classes).lower() or one.wnid in classes]
    assert rows(found) == rows(everything[np.isin(everything.labels, ids)])
    assert 0 < len(found) <= len(everything)


@pytest.mark.usefixtures("colour_engine")
def test_the_limit_of_detections_counts_the_chosen_classes_only():
    detector = colour_detector(FIRST, SECOND, classes=["cat"], max_detections=2, score_threshold=0)
    assert [score for *_, score in rows(detector(colour_picture()))] == [0.4375, 0.25]


@pytest.mark.usefixtures("colour_engine")
def test_a_class_that_the_model_lacks_is_refused():
    with pytest.raises(CategoryError, match="no class 'cow'"):
        colour_detector(FIRST, classes=["cow"])


FINEST = (Subclass("n11", "Samoyed", DOG), Subclass("n12", "beagle", DOG), Subclass("n21", "tabby", CAT))
WITHOUT = (*FINEST, Subclass("n31", "tench", None))


@pytest.fixture
def subclass_detector(tiny_googlenet, uncompiled_networks):
    """Makes detectors with a narrow network of random weights that tells four subclasses apart."""
    torch.manual_seed(0)
    network = GoogLeNet(5, auxiliary=False).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(0.01)
    model = Model([network], CATEGORIES, subclasses=WITHOUT)
    return lambda **options: Detector(model, device="cpu", score_threshold=0, max_detections=10_000, **options)


def test_detections_know_their_finest_names(subclass_detector):
    found = subclass_detector()(picture(0))
    assert found.finest == WITHOUT
    assert set(found.finest_names) <= {"dog: Samoyed", "dog: beagle", "cat: tabby"}
    assert {name.split(":")[0] for name in found.finest_names} == {"dog", "cat"}
    assert [name.split(":")[0] for name in found.finest_names] == found.names
    chosen = subclass_detector(classes=["cat"])(picture(0))
    assert set(chosen.finest_names) == {"cat: tabby"}
    assert same(chosen, found[found.labels == CAT])


def test_finest_classes_are_reported_as_classes(subclass_detector):
    detector = subclass_detector(classes="imagenet")
    assert [category.name for category in detector.categories] == ["Samoyed", "beagle", "tabby", "tench"]
    found = detector(picture(0))
    assert set(found.names) == {"Samoyed", "beagle", "tabby", "tench"}
    assert found.finest_names == found.names
    # A tabby is the only subclass of a cat, so it has the scores of a cat.
    cats = subclass_detector(classes=["cat"])(picture(0))
    tabbies = found[found.labels == 3]
    np.testing.assert_array_equal(tabbies.boxes, cats.boxes)
    np.testing.assert_allclose(tabbies.scores, cats.scores, rtol=1e-5)
    one = subclass_detector(classes="tabby")
    assert [category.name for category in one.categories] == ["tabby"]
    assert same(one(picture(0)), tabbies)


# The screen


def screened_model(score: float = 0.0, calibration: ScoreCalibration | None = None) -> Model:
    """One narrow GoogLeNet with a MultiBox network and a screen of random weights."""
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False).eval()
    trunk = headless(GoogLeNet(1, auxiliary=False))
    multibox = MultiBox(trunk, [PriorGrid(16, 1, ((20.0, 20.0), (40.0, 30.0)))], width=8, sizes=(64,)).eval()
    channels = multibox.lateral_fine.in_channels, multibox.lateral_coarse.in_channels
    screen = Screen(2, *channels, width=8, grid=3, hidden=16).eval()
    with torch.no_grad():  # random features are large, and all probabilities would be 0 or 1
        network.classifier.weight.mul_(0.001)
        screen.classifier.weight.mul_(0.1)
        screen.quality.weight.mul_(0.1)
    screen.thresholds = ScreenThresholds(score, nms=0.95)
    return Model([network], CATEGORIES, multibox=multibox, screen=screen, calibration=calibration)


@pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")
def test_the_screen_keeps_the_best_of_all_regions():
    model, image = screened_model(), picture(0)
    everything = Detector(model, device="cpu", screen=False).propose(image)
    assert everything.quality is None
    kept = Detector(model, device="cpu").propose(image)
    known = set(map(tuple, everything.boxes.tolist()))
    assert set(map(tuple, kept.boxes.tolist())) <= known
    assert (np.diff(kept.scores) <= 0).all()
    assert kept.quality.shape == kept.scores.shape
    best = Detector(model, device="cpu", max_regions=3).propose(image)
    np.testing.assert_array_equal(best.boxes, kept.boxes[:3])
    middle = float(kept.scores[len(kept) // 2])
    above = Detector(screened_model(middle), device="cpu").propose(image)
    np.testing.assert_array_equal(above.boxes, kept.boxes[kept.scores >= middle])


@pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")
def test_a_number_of_regions_needs_a_screen():
    model = screened_model()
    with pytest.raises(ValueError, match=r"needs a screen.*but the screen is switched off"):
        Detector(model, device="cpu", screen=False, max_regions=5)
    model.screen = None
    with pytest.raises(ValueError, match=r"needs a screen.*but this model has no screen"):
        Detector(model, device="cpu", max_regions=5)


@pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")
@pytest.mark.parametrize("screen", [True, False])
def test_members_share_their_lower_blocks(screen):
    model = screened_model()
    model.members.append(model.members[0])
    assert Detector(model, device="cpu", screen=screen).ensemble.shared == len(model.members[0].trunk)


@pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")
def test_scores_are_calibrated_with_the_quality_of_the_region():
    image = picture(0)
    plain = Detector(screened_model(), device="cpu", max_detections=1000, max_regions=1)(image)
    calibration = ScoreCalibration(0.5, 2.0, 0.25)
    model = screened_model(calibration=calibration)
    detector = Detector(model, device="cpu", max_detections=1000, max_regions=1)
    quality = float(detector.propose(image).quality[0])
    expected = [
        1 / (1 + np.exp(-(0.5 * np.log(p / (1 - p)) + 2 * np.log(quality / (1 - quality)) + 0.25)))
        for p in plain.scores.astype(float)
    ]
    np.testing.assert_allclose(detector(image).scores, expected, rtol=1e-4)
    unscreened = Detector(model, device="cpu", max_detections=1000, screen=False)(image)
    without = Detector(screened_model(), device="cpu", max_detections=1000, screen=False)(image)
    np.testing.assert_array_equal(unscreened.scores, without.scores)


@pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")
def test_a_class_that_the_screen_knows_is_scored_by_the_screen_too():
    image, labels = picture(0), [category.id for category in CATEGORIES]
    plain = Detector(screened_model(), device="cpu", max_detections=1000, max_regions=1)(image)
    model = screened_model(calibration=ScoreCalibration(1.0, 0.0, 0.0, ScreenedCalibration(0.5, 0.0, 2.0, 0.25)))
    model.screen.class_names = (None, CATEGORIES[0].name)  # the screen of a model with other classes
    detector = Detector(model, device="cpu", max_detections=1000, max_regions=1)
    seen = float(detector.propose(image).classes[0, 2])
    before = dict(zip(plain.labels.tolist(), plain.scores.astype(float).tolist(), strict=True))
    after = detector(image)
    found = dict(zip(after.labels.tolist(), after.scores.tolist(), strict=True))
    probability = before[labels[0]]
    exponent = 0.5 * np.log(probability / (1 - probability)) + 2 * np.log(seen / (1 - seen)) + 0.25
    assert found[labels[0]] == pytest.approx(1 / (1 + np.exp(-exponent)), rel=1e-4)
    assert found[labels[1]] == pytest.approx(before[labels[1]], rel=1e-4)
    some = Detector(model, device="cpu", max_detections=1000, max_regions=1, classes=[CATEGORIES[0].name])
    assert some(image).scores.tolist() == [found[labels[0]]]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_googlenet")
def test_screened_detections_do_not_depend_on_the_other_files_nor_on_a_proposals_file(tmp_path):
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        Image.fromarray(picture(seed)).save(path)
    model = screened_model(calibration=ScoreCalibration(1.0, 0.5, 0.0))
    detector = Detector(model, device="cpu", max_regions=20)
    alone = [detector(picture(seed)) for seed in range(3)]
    together = [result.detections for result in detector.detect_files(reversed(paths))]
    assert all(map(same, alone, together[::-1]))
    unscreened = Detector(model, device="cpu", screen=False)
    with ProposalWriter(tmp_path / "regions.npz", {}) as writer:
        for seed, path in enumerate(paths):
            writer.add(path.name, 120, 90, unscreened.propose(picture(seed)))
    with read_proposals(tmp_path / "regions.npz") as proposals:
        from_file = [result.detections for result in detector.detect_files(paths, proposals=proposals)]
    assert all(map(same, alone, from_file))


# Threads


@pytest.mark.usefixtures("tiny_googlenet")
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_threads_that_share_a_detector_get_what_one_thread_gets(compiled, request, tmp_path):
    if not compiled:
        request.getfixturevalue("uncompiled_networks")
    detector = Detector(screened_model(), device="cpu")
    images = [picture(number)[: 40 + 30 * number] for number in range(4)]
    files = []
    for number, image in enumerate(images):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(image).save(files[-1])
    expected = [detector(image) for image in images]
    assert len({len(found) for found in expected}) > 1

    def detect(number: int) -> list[Detections | None]:
        streamed = [result.detections for result in detector.detect_files(files[: number + 1])]
        return [*streamed, detector(images[number])]

    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(detect, range(4))):
            right = [*expected[: number + 1], expected[number]]
            for one, other in zip(found, right, strict=True):
                assert same(one, other)


# Regions and boxes


@pytest.mark.usefixtures("colour_engine")
def test_a_region_that_is_proposed_twice_is_scored_once():
    detector = colour_detector(FIRST, regions=[*REGIONS, *REGIONS[::-1]], score_threshold=0.5)
    assert rows(detector(colour_picture())) == [(DOG, RED, 0.5)]
    assert detector.ensemble.engines[0].regions == 3


@pytest.mark.usefixtures("colour_engine")
def test_a_picture_without_proposals_has_no_detections():
    found = colour_detector(FIRST, SECOND, regions=[])(colour_picture())
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


@pytest.mark.usefixtures("colour_engine")
@pytest.mark.parametrize("connectivity", [4, 8])
def test_selective_search_gets_the_settings_of_the_model(connectivity):
    regions = RegionSettings(superpixel_scale=1.5, min_side=30, connectivity=connectivity)
    found = Detector(Model([Table(FIRST)], CATEGORIES, regions)).propose(picture(0))
    expected = selective_search(picture(0), superpixel_scale=1.5, min_side=30, connectivity=connectivity)
    np.testing.assert_array_equal(found.boxes, expected.boxes)


def regression() -> BoxRegressor:
    """Moves the box of a dog to the right by a quarter of its width, and leaves the box of a cat in place."""
    weights = np.zeros((2, 1 + 3, 4), np.float32)
    weights[0, 0, 0] = 0.25
    return BoxRegressor(weights)


@pytest.mark.usefixtures("colour_engine")
def test_box_regression_moves_the_boxes_of_a_class_as_its_weights_say():
    options = {"regressor": regression(), "score_threshold": 0.2}
    assert rows(colour_detector(FIRST, SECOND, **options)(colour_picture())) == [
        (DOG, (5, 0, 25, 20), 0.5625),
        (CAT, GREEN, 0.4375),
        (CAT, BLUE, 0.25),
    ]
    without = colour_detector(FIRST, SECOND, box_regression=False, **options)(colour_picture())
    assert rows(without)[0] == (DOG, RED, 0.5625)


@pytest.mark.usefixtures("colour_engine")
def test_box_regression_leaves_regions_that_the_first_member_takes_for_background():
    # An object probability of 1/128 is below LEAST_PROBABILITY, whatever the other members say.
    certain = [[127 / 128, 1 / 128, 0]] * 3
    other = [[0, 1, 0]] * 3
    found = colour_detector(certain, other, regions=[RED], regressor=regression())(colour_picture())
    assert rows(found) == [(DOG, RED, 129 / 256)]


@pytest.mark.usefixtures("colour_engine")
def test_crops_made_on_the_device_of_the_network_equal_crops_made_here_within_a_grey_level():
    detector = colour_detector(FIRST)
    boxes = np.array([RED, (10, 5, 70, 40), (0, 0, 100, 40)], np.float32)
    one = _Picture(FileResult(Path("a.png"), picture(1, 100, 40), None, None), boxes)
    here = np.empty((3, 224, 224, 3), np.uint8)
    there = torch.empty((3, 224, 224, 3), dtype=torch.uint8)
    detector._warp(one, boxes, here)
    detector._warp(one, boxes, there)
    assert np.abs(there.numpy().astype(int) - here).max() <= 1
    uploaded = one.uploaded
    detector._warp(one, boxes[:2], there[:2])
    assert one.uploaded is uploaded  # a picture is uploaded once for all its batches


# Files


@pytest.mark.slow
def test_detections_depend_neither_on_the_other_files_nor_on_their_order(tiny_googlenet, tmp_path):
    detector = narrow_detector(2, score_threshold=0.1)
    paths = []
    for seed, size in enumerate([(120, 90), (1, 1), (100, 80)]):
        paths.append(tmp_path / f"{9 - seed}.png")
        Image.fromarray(picture(seed, *size) if size[0] > 30 else np.zeros((1, 1, 3), np.uint8)).save(paths[-1])
    results = list(detector.detect_files(paths))
    assert [result.path for result in results] == paths
    assert all(len(result.detections) for result in results)
    for result in results:
        assert same(result.detections, detector(result.image))
    for before, result in zip(results, reversed(list(detector.detect_files(paths[::-1]))), strict=True):
        assert same(result.detections, before.detections)


@pytest.mark.usefixtures("colour_engine")
def test_a_file_that_cannot_be_read_is_a_result_between_the_others(tmp_path):
    good, bad = tmp_path / "a.png", tmp_path / "b.jpg"
    Image.fromarray(colour_picture()).save(good)
    bad.write_text("not a picture")
    first, second, third = colour_detector(FIRST, score_threshold=0.5).detect_files([good, bad, good])
    assert rows(first.detections) == rows(third.detections) == [(DOG, RED, 0.5)]
    assert second.image is None
    assert second.detections is None
    assert second.error.path == bad
    assert second.error.reason


@pytest.mark.usefixtures("colour_engine")
def test_an_error_in_the_list_of_files_reaches_the_caller():
    def paths():
        yield from ()
        raise OSError("the list broke off")

    with pytest.raises(OSError, match="broke off"):
        list(colour_detector(FIRST).detect_files(paths()))


@pytest.mark.usefixtures("colour_engine")
def test_boxes_of_a_proposals_file_replace_the_detectors_own(tmp_path):
    known, unknown, resized = (tmp_path / f"{name}.png" for name in ("known", "unknown", "resized"))
    for path in (known, unknown, resized):
        Image.fromarray(colour_picture()).save(path)
    proposals = Proposals(REGIONS[:2], np.array([2, 1], np.float32))
    with ProposalWriter(tmp_path / "boxes.npz", {}) as writer:
        writer.add("known.png", 100, 40, proposals)
        writer.add("resized.png", 50, 20, proposals)
    detector = colour_detector(SECOND, regions=[BLUE], score_threshold=0.375)
    with read_proposals(tmp_path / "boxes.npz") as file:
        first, second, third = detector.detect_files([known, unknown, resized], proposals=file)
    assert rows(first.detections) == [(CAT, GREEN, 0.625), (DOG, RED, 0.625)]
    assert "the proposals file does not contain this picture" in second.error.reason
    assert third.detections is None
    assert third.error.path == resized


@pytest.mark.usefixtures("colour_engine")
def test_stopping_early_stops_the_reading_and_its_threads(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(colour_picture()).save(file)
    asked = []

    def paths():
        for number in range(10_000):
            asked.append(number)
            yield file

    detector = colour_detector(FIRST, regions=[(x, 0, x + 50, 40) for x in range(50)])
    results = detector.detect_files(paths())
    next(results)
    results.close()
    assert len(asked) < 100  # 50 regions a picture: the batches ahead hold some ten pictures
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("map_ahead", "prefetch"))]


# The package


def test_the_package_is_imported_without_torch_and_numba():
    code = "import sys, inception_rcnn; print('torch' in sys.modules, 'numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.home())
    assert done.stdout.split() == ["False", "False"]
