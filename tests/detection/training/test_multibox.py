"""Training MultiBox with a tiny network on five drawn pictures, one of them without objects."""

import json
from dataclasses import replace

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
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training import checkpoint, multibox
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.initial_network import initial_network
from inception_rcnn.detection.training.multibox import MultiBoxSettings, add_multibox
from inception_rcnn.proposals.proposals import Proposals, Source

SETTINGS = MultiBoxSettings(iterations=4, batch=2, views=2, size=64, shapes=4, learning_rate=1e-4)
DOG = "n02084071"

pytestmark = pytest.mark.usefixtures("tiny_googlenet_in_module", "uncompiled_networks")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("ilsvrc")
    for kind in ("Data/DET/train", "Annotations/DET/train", "ImageSets/DET"):
        (root / kind).mkdir(parents=True)
    for number in range(5):
        image = np.full((80, 100, 3), 100, np.uint8)
        objects = []
        if number < 4:
            image[20:60, 30 + number : 80] = (200, 30, 30)
            objects.append(AnnotatedObject(DOG, (31 + number, 21, 80, 60)))
        Image.fromarray(image).save(root / f"Data/DET/train/{number}.JPEG", quality=95)
        write_annotation(root / f"Annotations/DET/train/{number}.xml", Annotation(str(number), 100, 80, tuple(objects)))
    (root / "ImageSets/DET/train.txt").write_text("".join(f"{n} {n + 1}\n" for n in range(5)))
    return open_dataset(root, "train")


@pytest.fixture(scope="module")
def start(tmp_path_factory, tiny_googlenet_in_module, uncompiled_networks) -> str:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("start")
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(58, DOG, "dog"),)), folder)
    return str(folder)


@pytest.fixture(scope="module")
def uninterrupted(dataset, start, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted")
    reports: list[tuple] = []
    add_multibox(
        start,
        dataset,
        out,
        settings=SETTINGS,
        validation=dataset,
        device="cpu",
        report=lambda *report: reports.append(report),
    )
    return out, reports


@pytest.mark.slow
def test_the_detector_proposes_regions_of_the_trained_network(uninterrupted, dataset, start):
    out, _ = uninterrupted
    model = load_model(out)
    assert model.card["multibox"]["pictures"] == 5
    assert model.multibox.sizes == (64,)
    before = load_file(f"{start}/member_1.safetensors")
    after = load_file(out / "member_1.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    image = np.asarray(Image.open(dataset[0].path))
    found = Detector(model, device="cpu").propose(image)
    assert set(found.source) == {Source.SELECTIVE_SEARCH, Source.MULTIBOX}
    assert (found.source == Source.MULTIBOX).sum() <= 200
    assert found.boxes.min() >= 0
    assert (found.boxes.max(axis=0) <= (100, 80, 100, 80)).all()


def test_frozen_blocks_stay_and_the_others_learn(uninterrupted, start):
    before = initial_network(start).state_dict()
    after = load_file(uninterrupted[0] / "multibox.safetensors")
    trunk = [name for name in before if name.startswith("trunk.")]
    changed = {name.split(".")[1] for name in trunk if not torch.equal(before[name].half(), after[f"trunk.{name}"])}
    assert changed == {"inception_4e", "inception_5a", "inception_5b"}


def test_losses_and_recall_are_reported(uninterrupted):
    _, reports = uninterrupted
    steps = [(done, figures) for stage, done, _, figures in reports if stage == "training" and "loss" in figures]
    assert [done for done, _ in steps] == [1, 2, 3, 4]
    assert all(np.isfinite(list(figures.values())).all() for _, figures in steps)
    # A batch has 2 of the 5 pictures: the first epoch ends in step 3. Recall is also measured after the last step.
    assert [done for _, done, _, figures in reports if "recall" in figures] == [3, 4]


def test_recall_is_the_share_of_objects_that_a_box_covers_at_iou_0_5(dataset, monkeypatch):
    # The objects are 50, 49, 48 and 47 pixels wide, and the box covers 24 columns of each: IoU 0.48, 0.49, 0.5, 0.51.
    box = Proposals(np.array([[33, 20, 57, 60]], np.float32), np.ones(1, np.float32))
    monkeypatch.setattr(multibox, "MultiBoxEngine", lambda network, device: lambda image: box)
    assert multibox.recall_at_half(None, dataset) == 0.5


def test_an_interrupted_training_ends_with_the_same_weights(uninterrupted, dataset, start, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "STEPS_BETWEEN", 2)

    class Interrupted(Exception):
        pass

    def interrupt(stage, done, total, figures):
        if stage == "training" and done == 3:
            raise Interrupted

    with pytest.raises(Interrupted):
        add_multibox(start, dataset, tmp_path, settings=SETTINGS, device="cpu", report=interrupt)
    resumed = []
    add_multibox(
        start, dataset, tmp_path, settings=SETTINGS, device="cpu", report=lambda *report: resumed.append(report)
    )
    assert [done for stage, done, *_ in resumed if stage == "training"] == [3, 4]
    expected, after = load_file(uninterrupted[0] / "multibox.safetensors"), load_file(tmp_path / "multibox.safetensors")
    assert all(torch.equal(expected[name], after[name]) for name in expected)
    assert not list((tmp_path / "training").glob("*.npy"))
    with pytest.raises(TrainingError, match=r"alpha was 1\.0, is 2\.0"):
        add_multibox(start, dataset, tmp_path, settings=replace(SETTINGS, alpha=2.0), device="cpu")


def test_the_whole_network_can_be_trained(dataset, start, tmp_path):
    settings = replace(SETTINGS, freeze_below=None, iterations=1)
    add_multibox(start, dataset, tmp_path, settings=settings, device="cpu")
    before, after = initial_network(start), load_file(tmp_path / "multibox.safetensors")
    assert not torch.equal(before.trunk.conv1.convolution.weight.half(), after["trunk.trunk.conv1.convolution.weight"])


def test_the_batch_of_a_loss_that_is_not_finite_is_saved(dataset, start, tmp_path):
    with pytest.raises(TrainingError, match=r"lower learning rate of MultiBox(.|\n)*multibox_failed_batch"):
        add_multibox(start, dataset, tmp_path, settings=replace(SETTINGS, learning_rate=1e30), device="cpu")
    kept = tmp_path / "training" / "multibox_failed_batch.safetensors"
    batch = load_file(kept)
    assert len(batch["inputs"]) == len(batch["assignment"]) == len(batch["offsets"]) == 2
    with safe_open(kept, framework="pt") as file:
        assert set(json.loads(file.metadata()["pictures"])) <= {str(sample.path) for sample in dataset}


def test_batches_without_objects_give_finite_weights(dataset, start, tmp_path):
    # Clustering the priors needs objects, so only the batches have none.
    losses = []
    settings = replace(SETTINGS, iterations=1, batch=1)
    batches = multibox.ViewBatches.__call__

    def background_only(self, step):
        inputs, assignment, offsets = batches(self, step)
        return inputs, torch.full_like(assignment, -1), offsets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multibox.ViewBatches, "__call__", background_only)
        add_multibox(
            start, dataset, tmp_path, settings=settings, device="cpu", report=lambda *r: losses.append(r[3].get("loss"))
        )
    assert np.isfinite([loss for loss in losses if loss is not None]).all()
    assert all(torch.isfinite(value).all() for value in load_file(tmp_path / "multibox.safetensors").values())


@pytest.mark.parametrize(
    ("change", "message"), [({"freeze_below": "inception_5a"}, "inception_4e"), ({"shapes": 99}, "fewer")]
)
def test_settings_that_cannot_work_are_refused(change, message, dataset, start, tmp_path):
    with pytest.raises(TrainingError, match=message):
        add_multibox(start, dataset, tmp_path, settings=replace(SETTINGS, **change), device="cpu")


def test_the_cascade_is_fitted_again_and_the_evaluation_is_removed_from_the_card(dataset, start, tmp_path):
    one = load_model(start)
    ensemble = replace(one, members=one.members * 2, cascade=1.0, card={"data": "x", "evaluation": {"mAP": 0.5}})
    save_model(ensemble, tmp_path / "start")
    add_multibox(str(tmp_path / "start"), dataset, tmp_path, settings=replace(SETTINGS, iterations=1), device="cpu")
    model = load_model(tmp_path)
    assert 0 < model.cascade <= 1  # It was 2.
    assert (model.card["data"], model.card["multibox"]["pictures"]) == ("x", 5)
    assert "evaluation" not in model.card
