"""Training a detector with a tiny network on four drawn pictures with two classes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from inception_rcnn import Detector
from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.calibration import ScoreCalibration
from inception_rcnn.detection.model_files import Model, load_model, model_digest, save_model
from inception_rcnn.detection.networks.backbones import headless, with_classes
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.regression import BoxRegressor
from inception_rcnn.detection.training import box_regression, checkpoint, multibox_stage, screen_thresholds, split
from inception_rcnn.detection.training import lower_features as lower_features_module
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.initial_network import initial_network
from inception_rcnn.detection.training.members_stage import BACKGROUND_SHIFT
from inception_rcnn.detection.training.multibox import MultiBoxSettings
from inception_rcnn.detection.training.screen import ScreenSettings
from inception_rcnn.detection.training.screen_thresholds import FittedThresholds
from inception_rcnn.detection.training.train_detector import train_detector
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.screen import ScreenThresholds

pytestmark = pytest.mark.usefixtures("tiny_googlenet_in_module", "uncompiled_networks")

SETTINGS = FineTuneSettings(
    iterations=4, positives=2, backgrounds=4, freeze_below="inception_5b", pool=36, learning_rate=1e-4
)


@pytest.fixture(scope="module")
def start(tmp_path_factory, tiny_googlenet_in_module, uncompiled_networks) -> str:
    """A model folder to start from."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("start")
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),)), folder)
    return str(folder)


def states_of_training(dataset, out, **arguments) -> list[tuple[str, int]]:
    """The reports of a training: stage and steps done."""
    states: list[tuple[str, int]] = []
    train_detector(
        dataset, out, device="cpu", report=lambda stage, done, total, figures: states.append((stage, done)), **arguments
    )
    return states


@pytest.fixture(scope="module")
def uninterrupted(dataset, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    losses: list[float] = []

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if "loss" in figures:
            losses.append(figures["loss"])

    model = train_detector(dataset, out, init=start, settings=SETTINGS, device="cpu", report=report)
    return out, model, losses


def weights(folder, member=1):
    return load_file(folder / f"member_{member}.safetensors")


def same_weights(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_writes_a_model_that_detects(uninterrupted, dataset):
    out, model, losses = uninterrupted
    assert [category.name for category in model.categories] == ["dog", "domestic cat"]
    assert len(losses) == 4
    assert model.card["objects"] == {"dog": 2, "domestic cat": 2}
    assert load_model(out).members[0].input_ranges["trunk.conv2.convolution"] > 0
    detector = Detector.load(out, device="cpu", score_threshold=0)
    found = detector(np.asarray(Image.open(dataset[0].path)))
    assert len(found) > 0
    assert set(found.labels) <= {category.id for category in model.categories}


def test_a_box_regression_that_helps_becomes_part_of_the_model_and_is_fitted_once(
    dataset, start, uninterrupted, tmp_path, monkeypatch
):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "training").glob("box_regression_*"):
        file.unlink()
    fits = []

    def fit(features, windows, objects, classes):
        fits.append(len(windows))
        return BoxRegressor(np.full((classes, 1 + features.shape[1], 4), 0.5, np.float32))

    monkeypatch.setattr(box_regression, "fit_if_it_helps", fit)
    for _ in range(2):
        train_detector(dataset, tmp_path, init=start, settings=SETTINGS, device="cpu")
        np.testing.assert_array_equal(load_model(tmp_path).regressor.weights, np.full((2, 1 + 5 * 64, 4), 0.5))
    assert len(fits) == 1
    assert fits[0] > 0


def test_only_blocks_from_the_named_one_on_are_trained(uninterrupted, start):
    before, after = load_file(f"{start}/member_1.safetensors"), weights(uninterrupted[0])
    changed = {
        name.split(".")[1] for name in before if name.startswith("trunk") and not torch.equal(before[name], after[name])
    }
    assert changed == {"inception_5b"}


def test_the_bias_of_the_background_is_shifted_from_batches_towards_pictures(uninterrupted):
    out, model, _ = uninterrupted
    trained = load_file(out / "training" / "member_1" / "checkpoint.safetensors")["weight.classifier.bias"]
    moved = (model.members[0].classifier.bias.detach() - trained).tolist()
    assert moved == pytest.approx([BACKGROUND_SHIFT, 0, 0], abs=1e-3)  # Biases are stored as float16.


def test_features_are_deleted_and_the_checkpoint_is_kept(uninterrupted):
    training = uninterrupted[0] / "training"
    assert (training / "member_1" / "checkpoint.safetensors").is_file()
    assert not list(training.glob("lower_features*"))


def test_the_same_seed_trains_the_same_weights_and_another_does_not(dataset, start, uninterrupted, tmp_path):
    train_detector(dataset, tmp_path / "same", init=start, settings=SETTINGS, device="cpu")
    assert same_weights(weights(tmp_path / "same"), weights(uninterrupted[0]))
    other = replace(SETTINGS, seed=1)
    train_detector(dataset, tmp_path / "other", init=start, settings=other, device="cpu")
    assert not same_weights(weights(tmp_path / "other"), weights(uninterrupted[0]))


class Stop(Exception):
    pass


@pytest.mark.parametrize(("stage", "after"), [("frozen blocks", 20), ("training", 3)])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    dataset, start, uninterrupted, tmp_path, monkeypatch, stage, after
):
    monkeypatch.setattr(checkpoint, "STEPS_BETWEEN", 2)
    monkeypatch.setattr(lower_features_module, "FLUSHED_EVERY", 1)
    monkeypatch.setattr(lower_features_module, "_CROPS_TOGETHER", 1)

    def stop(at, done, total, figures):
        if at == stage and done >= after:
            raise Stop

    with pytest.raises(Stop):
        train_detector(dataset, tmp_path, init=start, settings=SETTINGS, device="cpu", report=stop)
    assert not (tmp_path / "model.json").exists()
    states = states_of_training(dataset, tmp_path, init=start, settings=SETTINGS)
    assert [done for at, done in states if at == "training"] == ([3, 4] if stage == "training" else [1, 2, 3, 4])
    made_again = [done for at, done in states if at == "frozen blocks"]
    assert not made_again if stage == "training" else made_again[0] > 9  # of 36 crops
    assert same_weights(weights(tmp_path), weights(uninterrupted[0]))


def test_a_checkpoint_of_other_settings_is_refused_naming_them(dataset, start, uninterrupted):
    other = replace(SETTINGS, learning_rate=0.5)
    with pytest.raises(TrainingError, match=r"learning_rate was 0.0001, is 0\.5"):
        train_detector(dataset, uninterrupted[0], init=start, settings=other, device="cpu")


def test_a_finished_training_is_not_repeated(dataset, start, uninterrupted):
    before = weights(uninterrupted[0])
    steps = []
    train_detector(
        dataset,
        uninterrupted[0],
        init=start,
        settings=SETTINGS,
        device="cpu",
        report=lambda at, done, total, figures: steps.append(at),
    )
    assert set(steps) == {"proposals"}
    assert same_weights(weights(uninterrupted[0]), before)


@pytest.fixture(scope="module")
def ensemble(dataset, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble")
    return out, states_of_training(dataset, out, init=start, settings=SETTINGS, members=2)


def test_members_share_frozen_blocks_and_features_and_differ_in_trained_blocks(ensemble, uninterrupted):
    out, states = ensemble
    assert [stage for stage, _ in states].count("frozen blocks") == len(
        {state for state in states if "frozen" in state[0]}
    )
    assert not same_weights(weights(out, 1), weights(out, 2))
    assert same_weights(weights(out, 1), weights(uninterrupted[0]))
    frozen = [name for name in weights(out) if name.startswith("trunk") and "inception_5b" not in name]
    assert frozen
    assert not set(frozen) & set(weights(out, 2))  # stored once


def test_an_ensemble_is_one_model_folder_with_the_number_of_members_on_its_card(ensemble):
    model = load_model(ensemble[0])
    assert len(model.members) == 2
    assert model.card["members"] == 2


def test_existing_members_are_not_trained_again(dataset, start, uninterrupted, ensemble, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    added = states_of_training(dataset, tmp_path, init=start, settings=SETTINGS, members=2)
    assert {stage for stage, _ in added} == {"proposals", "frozen blocks", "training member 2 of 2", "cascade"}
    assert same_weights(weights(tmp_path, 2), weights(ensemble[0], 2))
    again = states_of_training(dataset, tmp_path, init=start, settings=SETTINGS, members=2)
    assert {stage for stage, _ in again} == {"proposals"}


def test_0_members_keeps_the_initial_networks_and_does_the_other_steps(dataset, ensemble, tmp_path):
    states = states_of_training(dataset, tmp_path, init=str(ensemble[0]), members=0)
    assert {stage for stage, _ in states} == {"proposals", "box regression", "cascade"}
    before, after = load_model(ensemble[0]), load_model(tmp_path)
    assert all(same_weights(weights(tmp_path, number), weights(ensemble[0], number)) for number in (1, 2))
    assert after.cascade == before.cascade
    assert after.categories == before.categories
    assert after.card["objects"] == before.card["objects"]
    again = states_of_training(dataset, tmp_path, init=str(ensemble[0]), members=0, regression=False)
    assert not again


def test_training_starts_from_the_initial_network_with_a_new_classifier_of_the_seed(dataset, start, tmp_path):
    settings = replace(SETTINGS, freeze_below="classifier", learning_rate=1e-7)
    model = train_detector(dataset, tmp_path, init=start, settings=settings, device="cpu", regression=False)
    untrained = initial_network(start)
    torch.manual_seed(SETTINGS.seed)
    with_classes(untrained, 3)
    trained = load_file(tmp_path / "training" / "member_1" / "checkpoint.safetensors")["weight.classifier.weight"]
    assert 0 < (trained - untrained.classifier.weight).abs().max() < 0.001  # Four steps with a tiny learning rate.
    assert (model.members[0].classifier.weight - trained).abs().max() < 0.001


def test_a_disk_without_room_for_features_is_an_error_before_they_are_made(dataset, start, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=400_000_000))
    states = []
    with pytest.raises(TrainingError, match=r"the disk has 0\.4 GB free.*--pool"):
        train_detector(
            dataset, tmp_path, init=start, settings=SETTINGS, device="cpu", report=lambda *s: states.append(s[0])
        )
    assert set(states) == {"proposals"}
    assert not list((tmp_path / "training").glob("lower_features*"))


def test_a_disk_without_room_for_multibox_is_an_error_before_training(dataset, start, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500_500_000))
    states = []
    # Features of a view below inception_4e are 33 x 28 x 28 numbers of 16 bits: 20 views need 1.03 MB.
    with pytest.raises(
        TrainingError, match=r"MultiBox: .*GB, the disk has 0\.5 GB free.*--views(.|\n)*Nothing is trained"
    ):
        train_detector(
            dataset,
            tmp_path,
            init=start,
            settings=SETTINGS,
            multibox=MultiBoxSettings(shapes=2),
            device="cpu",
            report=lambda *s: states.append(s[0]),
        )
    assert not states
    assert not (tmp_path / "training").exists()  # A repeated training checks the room again.


def test_too_few_objects_for_the_priors_of_multibox_are_an_error_before_training(dataset, start, tmp_path):
    with pytest.raises(TrainingError, match=r"fewer than the 90 shapes of priors(.|\n)*Nothing is trained yet"):
        train_detector(dataset, tmp_path, init=start, settings=SETTINGS, multibox=MultiBoxSettings(shapes=90))


def test_the_initial_model_is_not_overwritten(dataset, start):
    before = weights(Path(start))
    with pytest.raises(TrainingError, match="write the new model to another --out"):
        train_detector(dataset, start, init=start, settings=SETTINGS)
    assert same_weights(weights(Path(start)), before)


def test_an_existing_model_stays_until_the_new_model_is_complete(dataset, start, uninterrupted, tmp_path, monkeypatch):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)

    def fail(*arguments, **settings):
        raise TrainingError("no luck")

    document = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**document, "card": {"data": "of before"}}))
    monkeypatch.setattr(multibox_stage, "train_multibox", fail)
    with pytest.raises(TrainingError, match="no luck"):
        train_detector(dataset, tmp_path, init=start, settings=SETTINGS, multibox=MultiBoxSettings(), device="cpu")
    assert load_model(tmp_path).card == {"data": "of before"}


def test_the_initial_multibox_network_is_kept_unless_another_is_trained(dataset, tmp_path):
    torch.manual_seed(2)
    multibox = MultiBox(headless(GoogLeNet(2)), [PriorGrid(32, 1, ((20.0, 30.0),))], width=8, sizes=(64,)).eval()
    start = Model([GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),), multibox=multibox)
    save_model(start, tmp_path / "start")
    settings = replace(SETTINGS, freeze_below="classifier", iterations=1)
    arguments = {"init": str(tmp_path / "start"), "settings": settings, "regression": False, "device": "cpu"}
    kept = train_detector(dataset, tmp_path / "kept", **arguments).multibox
    for name, value in multibox.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], value.half().float(), rtol=0, atol=0)

    recipe = MultiBoxSettings(iterations=1, batch=2, views=1, size=64, shapes=2)
    states = []
    for _ in range(2):
        model = train_detector(
            dataset, tmp_path / "trained", multibox=recipe, report=lambda *state: states.append(state), **arguments
        )
    assert len(model.multibox.grids[0].shapes) == 2
    assert model.card["multibox"]["settings"]["iterations"] == 1
    assert load_model(tmp_path / "trained").multibox is not None
    assert [state[:3] for state in states if state[0] == "MultiBox, training"] == [("MultiBox, training", 1, 1)]


RECIPES = {
    "multibox": MultiBoxSettings(iterations=1, batch=2, views=1, size=64, shapes=2),
    "screen": ScreenSettings(iterations=3, batch=2, positives=4, near=6, far=4),
}


@pytest.fixture
def _few_objects_suffice(monkeypatch):
    """One of the four pictures is not trained on, and its object suffices to fit the screen's thresholds."""
    monkeypatch.setattr(split, "ONE_UNSEEN_IN", 4)
    monkeypatch.setattr(split, "FEWEST_UNSEEN_OBJECTS", 1)


@pytest.fixture(scope="module")
def screened(dataset, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("screened")
    settings = replace(SETTINGS, freeze_below="classifier", iterations=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "ONE_UNSEEN_IN", 4)
        patch.setattr(split, "FEWEST_UNSEEN_OBJECTS", 1)
        states = states_of_training(dataset, out, init=start, settings=settings, regression=False, **RECIPES)
    return out, settings, states


def test_multibox_and_the_screen_are_trained_before_the_networks(dataset, screened):
    out, _, states = screened
    order = list(dict.fromkeys(stage for stage, _ in states))
    assert order == [
        "MultiBox, frozen blocks", "MultiBox, training", "regions", "feature maps", "screen", "proposals",
        "frozen blocks", "training", "screen thresholds",
    ]  # fmt: skip
    model = load_model(out)
    assert model.screen.num_classes == 2
    assert model.card["screen"]["pictures"] == 3
    assert model.card["screen"]["thresholds"]["pictures"] == 1
    assert Detector(model, device="cpu").propose(np.asarray(Image.open(dataset[0].path))).quality is not None


@pytest.mark.usefixtures("_few_objects_suffice")
def test_a_repeated_training_with_a_screen_repeats_no_step(dataset, start, screened):
    out, settings, _ = screened
    before = model_digest(out)
    again = states_of_training(dataset, out, init=start, settings=settings, regression=False, **RECIPES)
    assert {stage for stage, _ in again} == {"regions", "proposals"}
    assert model_digest(out) == before


@pytest.mark.usefixtures("_few_objects_suffice")
def test_0_members_keep_the_screen_or_start_from_it(dataset, screened, tmp_path):
    first = load_model(screened[0])
    states_of_training(dataset, tmp_path / "kept", init=str(screened[0]), members=0, regression=False)
    kept = load_model(tmp_path / "kept")
    assert same_weights(kept.screen.state_dict(), first.screen.state_dict())
    assert kept.calibration == first.calibration
    still = replace(RECIPES["screen"], iterations=1, learning_rate=0.0)
    states_of_training(dataset, tmp_path / "new", init=str(screened[0]), members=0, regression=False, screen=still)
    new = load_model(tmp_path / "new").screen.state_dict()
    for name, value in first.screen.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(new[name], value)


def as_dogs(sample: Sample) -> Sample:
    """The sample with all objects in the class 58."""
    return replace(sample, labels=np.full(len(sample.labels), 58))


def test_few_objects_keep_the_screen_of_the_initial_model_and_all_pictures_are_trained_on(dataset, screened, tmp_path):
    first = load_model(screened[0])
    dogs = [one for one in dataset.categories if one.id == 58]
    one_class = Dataset("dogs", dogs, list(dataset), as_dogs)
    said: list[str] = []
    trained = train_detector(
        one_class, tmp_path / "new", init=str(screened[0]), settings=screened[1], regression=False, members=2,
        screen=RECIPES["screen"], device="cpu", say=said.append,
    )  # fmt: skip
    assert (len(trained.categories), trained.screen.num_classes) == (1, 2)
    assert same_weights(trained.screen.state_dict(), first.screen.state_dict())
    assert trained.screen.thresholds.score == first.screen.thresholds.score / 4
    assert trained.screen.thresholds.nms == first.screen.thresholds.nms
    assert (trained.calibration, trained.cascade) == (first.calibration, None)
    assert trained.card["pictures"] == 4
    assert f"screen: kept from {screened[0]}, because a new screen needs about 750 objects" in said


def test_few_objects_train_no_screen_beside_a_new_multibox_network(dataset, start, tmp_path):
    said: list[str] = []
    settings = replace(SETTINGS, freeze_below="classifier", iterations=1)
    model = train_detector(
        dataset, tmp_path / "new", init=start, settings=settings, regression=False, device="cpu", say=said.append,
        **RECIPES,
    )  # fmt: skip
    assert model.screen is None
    assert "screen: none, because a new screen needs about 750 objects" in said


@pytest.mark.usefixtures("_few_objects_suffice")
def test_thresholds_are_fitted_on_pictures_that_the_screen_has_not_seen_and_only_once(
    dataset, start, screened, tmp_path, monkeypatch
):
    calls = []
    fitted = FittedThresholds(
        ScreenThresholds(0.25, 0.5), ScoreCalibration(0.5, 0.25, -1.0), {"pictures": 1, "regions": 40.2, "lost": 0.0}
    )

    def fit(model, samples, held_out, **options):
        calls.append([sample.path for sample in samples])
        return fitted

    monkeypatch.setattr(screen_thresholds, "fit_thresholds", fit)
    for _ in range(2):
        model = train_detector(
            dataset, tmp_path / "out", init=start, settings=screened[1], regression=False, device="cpu", **RECIPES
        )
        assert (model.screen.thresholds, model.calibration) == (fitted.thresholds, fitted.calibration)
        assert model.card["screen"]["pictures"] == 3
    assert len(calls) == 1
    assert len(calls[0]) == 1
