"""The training loop on a data set small enough for a test: four drawn pictures, two classes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from inception_rcnn import Detector
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.detection.model_files import Model, load_model, save_model
from inception_rcnn.detection.networks.backbones import headless, with_classes
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.regression import BoxRegressor
from inception_rcnn.detection.training import box_regression, finetune, train
from inception_rcnn.detection.training import lower_features as lower_features_module
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.initial_network import initial_network
from inception_rcnn.detection.training.lower_features import lower_features
from inception_rcnn.detection.training.multibox import MultiBoxSettings
from inception_rcnn.detection.training.train import BACKGROUND_SHIFT, _with_known_classes, train_detector
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid

DOG, CAT = "n02084071", "n02121808"
SETTINGS = FineTuneSettings(
    iterations=4, positives=2, backgrounds=4, freeze_below="inception_5b", pool=36, learning_rate=1e-4
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("ilsvrc")
    for kind in ("Data/DET/train", "Annotations/DET/train", "ImageSets/DET"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        image = np.full((80, 100, 3), 100, np.uint8)
        image[5:25, 5:25] = rng.integers(0, 256, 3)
        image[20:60, 30 + number : 80] = (200, 30, 30) if number % 2 else (30, 30, 200)
        Image.fromarray(image).save(root / f"Data/DET/train/{number}.JPEG", quality=95)
        one = AnnotatedObject(DOG if number % 2 else CAT, (31 + number, 21, 80, 60))
        write_annotation(root / f"Annotations/DET/train/{number}.xml", Annotation(str(number), 100, 80, (one,)))
    (root / "ImageSets/DET/train.txt").write_text("".join(f"{n} {n + 1}\n" for n in range(4)))
    return open_dataset(root, "train")


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    """A model folder to start from."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("start")
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),)), folder)
    return str(folder)


def states_of_training(dataset, out, **arguments) -> list[tuple[str, int]]:
    """Train, and say what was reported: stage and units done."""
    states: list[tuple[str, int]] = []
    train_detector(
        dataset, out, device="cpu", report=lambda stage, done, total, note: states.append((stage, done)), **arguments
    )
    return states


@pytest.fixture(scope="module")
def uninterrupted(dataset, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    losses: list[str] = []
    model = train_detector(
        dataset, out, init=start, settings=SETTINGS, device="cpu", report=lambda *state: losses.append(state[3])
    )
    return out, model, [note for note in losses if note]


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
        np.testing.assert_array_equal(load_model(tmp_path).regressor.weights, np.full((2, 5121, 4), 0.5))
    assert len(fits) == 1
    assert fits[0] > 0


def test_only_blocks_from_the_named_one_on_are_trained(uninterrupted, start):
    before, after = load_file(f"{start}/member_1.safetensors"), weights(uninterrupted[0])
    changed = {
        name.split(".")[1] for name in before if name.startswith("trunk") and not torch.equal(before[name], after[name])
    }
    assert changed == {"inception_5b"}


def test_the_background_is_as_likely_as_in_pictures_not_as_in_mini_batches(uninterrupted):
    out, model, _ = uninterrupted
    trained = load_file(out / "training" / "member_1" / "checkpoint.safetensors")["weight.classifier.bias"]
    moved = (model.members[0].classifier.bias.detach() - trained).tolist()
    assert moved == pytest.approx([BACKGROUND_SHIFT, 0, 0], abs=1e-3)  # biases are float16


def test_large_features_are_cleaned_up_and_the_checkpoint_kept(uninterrupted):
    training = uninterrupted[0] / "training"
    assert (training / "member_1" / "checkpoint.safetensors").is_file()
    assert not list(training.glob("lower_features*"))


def test_the_same_seed_trains_the_same_weights_and_another_does_not(dataset, start, uninterrupted, tmp_path):
    train_detector(dataset, tmp_path / "same", init=start, settings=SETTINGS, device="cpu")
    assert same_weights(weights(tmp_path / "same"), weights(uninterrupted[0]))
    other = FineTuneSettings(**{**SETTINGS.__dict__, "seed": 1})
    train_detector(dataset, tmp_path / "other", init=start, settings=other, device="cpu")
    assert not same_weights(weights(tmp_path / "other"), weights(uninterrupted[0]))


class Stop(Exception):
    pass


@pytest.mark.parametrize(("stage", "after"), [("frozen blocks", 20), ("training", 3)])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    dataset, start, uninterrupted, tmp_path, monkeypatch, stage, after
):
    monkeypatch.setattr(finetune, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(lower_features_module, "FLUSHED_EVERY", 1)

    def stop(at, done, total, note):
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
    other = FineTuneSettings(**{**SETTINGS.__dict__, "learning_rate": 0.5})
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
        report=lambda at, done, total, note: steps.append(at),
    )
    assert set(steps) == {"proposals"}
    assert same_weights(weights(uninterrupted[0]), before)


@pytest.fixture(scope="module")
def ensemble(dataset, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("ensemble")
    return out, states_of_training(dataset, out, init=start, settings=SETTINGS, members=2)


def test_members_share_frozen_blocks_and_start_and_differ_in_what_they_learned(ensemble, uninterrupted):
    out, states = ensemble
    assert [stage for stage, _ in states].count("frozen blocks") == len(
        {state for state in states if "frozen" in state[0]}
    )
    assert not same_weights(weights(out, 1), weights(out, 2))
    assert same_weights(weights(out, 1), weights(uninterrupted[0]))
    frozen = [name for name in weights(out) if name.startswith("trunk") and "inception_5b" not in name]
    assert all(torch.equal(weights(out, 1)[name], weights(out, 2)[name]) for name in frozen)


def test_an_ensemble_is_one_model_folder_whose_card_says_so(ensemble):
    model = load_model(ensemble[0])
    assert len(model.members) == 2
    assert model.card["members"] == 2


def test_members_that_are_there_are_not_trained_again(dataset, start, uninterrupted, ensemble, tmp_path):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)
    added = states_of_training(dataset, tmp_path, init=start, settings=SETTINGS, members=2)
    assert {stage for stage, _ in added} == {"proposals", "frozen blocks", "training member 2 of 2", "cascade"}
    assert same_weights(weights(tmp_path, 2), weights(ensemble[0], 2))
    again = states_of_training(dataset, tmp_path, init=start, settings=SETTINGS, members=2)
    assert {stage for stage, _ in again} == {"proposals"}


def test_networks_that_are_there_get_the_rest_without_being_trained(dataset, ensemble, tmp_path):
    states = states_of_training(dataset, tmp_path, init=str(ensemble[0]), members=0)
    assert {stage for stage, _ in states} == {"proposals", "box regression", "cascade"}
    before, after = load_model(ensemble[0]), load_model(tmp_path)
    assert all(same_weights(weights(tmp_path, number), weights(ensemble[0], number)) for number in (1, 2))
    assert after.cascade == before.cascade
    assert after.categories == before.categories
    assert after.card["objects"] == before.card["objects"]
    again = states_of_training(dataset, tmp_path, init=str(ensemble[0]), members=0, regression=False)
    assert not again  # nothing is left to do


def test_the_classifier_alone_is_trained_on_pooled_features(dataset, start, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(finetune, "lower_features", lambda *a, **k: kept.append(lower_features(*a, **k)) or kept[0])
    settings = replace(SETTINGS, freeze_below="classifier", learning_rate=1e-7)
    model = train_detector(dataset, tmp_path, init=start, settings=settings, device="cpu")
    assert kept[0].shape == (36, 1024, 1, 1)
    before, after = load_file(f"{start}/member_1.safetensors"), weights(tmp_path)
    assert [name for name in before if name.startswith("trunk") and not torch.equal(before[name], after[name])] == []
    untrained = initial_network(start)
    torch.manual_seed(SETTINGS.seed)
    with_classes(untrained, 3)
    trained = load_file(tmp_path / "training" / "member_1" / "checkpoint.safetensors")["weight.classifier.weight"]
    moved = (trained - untrained.classifier.weight).abs()
    assert 0 < moved.max() < 0.001  # four small steps from there, no other random numbers
    assert (model.members[0].classifier.weight - trained).abs().max() < 0.001


def test_the_whole_network_can_be_trained(dataset, start, tmp_path):
    settings = FineTuneSettings(iterations=1, positives=1, backgrounds=2, freeze_below=None, learning_rate=1e-4)
    train_detector(dataset, tmp_path, init=start, settings=settings, device="cpu", regression=False)
    before = initial_network(start).trunk.conv1.convolution.weight  # what is stored has 8 bits
    after = load_file(tmp_path / "training" / "member_1" / "checkpoint.safetensors")
    (name,) = (name for name in after if name.startswith("weight.") and name.endswith("conv1.convolution.weight"))
    assert not torch.equal(before, after[name])


def test_a_loss_that_is_no_number_stops_with_the_remedy(dataset, start, tmp_path):
    settings = FineTuneSettings(**{**SETTINGS.__dict__, "learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"lower --learning-rate.*failed_batch"):
        train_detector(dataset, tmp_path, init=start, settings=settings, device="cpu")
    kept = tmp_path / "training" / "member_1" / "failed_batch.safetensors"
    batch = load_file(kept)
    assert batch["inputs"].shape == (6, 832, 7, 7)
    assert batch["boxes"].shape == (6, 4)
    assert (batch["labels"] > 0).tolist() == [True] * 2 + [False] * 4
    with safe_open(kept, framework="pt") as file:
        pictures = json.loads(file.metadata()["pictures"])
    assert set(pictures) <= {str(sample.path) for sample in dataset}


def test_a_disk_without_room_for_features_is_said_before_they_are_made(dataset, start, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=400_000_000))
    states = []
    with pytest.raises(TrainingError, match=r"the disk has 0\.4 GB free.*--pool"):
        train_detector(
            dataset, tmp_path, init=start, settings=SETTINGS, device="cpu", report=lambda *s: states.append(s[0])
        )
    assert set(states) == {"proposals"}
    assert not list((tmp_path / "training").glob("lower_features*"))


def test_a_disk_without_room_for_the_views_of_multibox_is_said_first(dataset, start, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=503_000_000))
    states = []
    # of 448 x 448 below inception_4e: 528 x 28 x 28 in 16 bits, 0.83 MB
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
    assert not (tmp_path / "training").exists()  # so that it is said the next time too


def test_too_few_objects_for_the_priors_of_multibox_are_said_first(dataset, start, tmp_path):
    with pytest.raises(TrainingError, match=r"fewer than the 90 shapes of priors(.|\n)*Nothing is trained yet"):
        train_detector(dataset, tmp_path, init=start, settings=SETTINGS, multibox=MultiBoxSettings(shapes=90))


def test_the_model_that_training_starts_from_is_not_written_over(dataset, start):
    before = weights(Path(start))
    with pytest.raises(TrainingError, match="write the new model to another --out"):
        train_detector(dataset, start, init=start, settings=SETTINGS)
    assert same_weights(weights(Path(start)), before)


def test_a_model_that_is_there_stays_until_the_new_one_is_whole(dataset, start, uninterrupted, tmp_path, monkeypatch):
    shutil.copytree(uninterrupted[0], tmp_path, dirs_exist_ok=True)

    def fail(*arguments, **settings):
        raise TrainingError("no luck")

    document = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**document, "card": {"data": "of before"}}))
    monkeypatch.setattr(train, "train_multibox", fail)
    with pytest.raises(TrainingError, match="no luck"):
        train_detector(dataset, tmp_path, init=start, settings=SETTINGS, multibox=MultiBoxSettings(), device="cpu")
    assert load_model(tmp_path).card == {"data": "of before"}


def test_features_of_other_blocks_are_not_taken_for_those_wanted(dataset, start, tmp_path):
    def stop(stage, done, total, note):
        if stage == "training":
            raise Stop

    made = {}
    for block in ("inception_5a", "inception_5b"):  # both take 832 x 7 x 7
        with pytest.raises(Stop):
            train_detector(
                dataset, tmp_path, init=start, settings=replace(SETTINGS, freeze_below=block), device="cpu", report=stop
            )
        (file,) = (tmp_path / "training").glob(f"lower_features_*_{block}.npy")
        made[block] = np.load(file)
    assert made["inception_5a"].shape == made["inception_5b"].shape
    assert (made["inception_5a"] != made["inception_5b"]).any()


def test_an_unknown_block_is_refused_with_the_known_ones(dataset, start, tmp_path):
    settings = FineTuneSettings(freeze_below="inception_6a")
    with pytest.raises(TrainingError, match=r"inception_6a.*inception_5b"):
        train_detector(dataset, tmp_path, init=start, settings=settings, device="cpu")


def test_training_from_scratch_starts_with_batch_norm():
    assert initial_network("scratch").batch_norm


def test_the_network_that_proposes_is_that_of_the_start_unless_one_is_trained(dataset, tmp_path):
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


def test_what_is_measured_are_known_classes_by_name_in_pictures_that_were_not_trained_on(dataset):
    names = {category.id: category.name for category in dataset.categories}
    dog, cat = (
        next(i for i, one in enumerate(dataset) if names[int(one.labels[0])] == name)
        for name in ("dog", "domestic cat")
    )
    known = _with_known_classes(dataset, (Category(3, "x", "dog"),))
    assert known[dog].labels.tolist() == [3]
    assert known[cat].labels.tolist() == []
    assert known[cat].boxes.shape == (0, 4)
    assert [one.image_id for one in dataset.without(dataset[:3])] == [dataset[3].image_id]
