"""Classifying whole pictures: crops and networks are averaged as a slow reference does it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.data.augment import crop_places, crops_at
from inception_rcnn.data.categories import Category, CategoryError, Subclass
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.classification import Classifier, PictureModel, find_picture_model
from inception_rcnn.detection.classifier_files import save_classifier
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.networks.weights import ModelError

pytestmark = pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")

CLASSES = tuple(Category(number, f"n{number}", name) for number, name in enumerate(("dog", "cat", "car")))


def network(seed: int, outputs: int = 3) -> GoogLeNet:
    torch.manual_seed(seed)
    made = GoogLeNet(outputs, auxiliary=False).eval()
    nn.init.normal_(made.classifier.weight, std=0.001)  # random features are large
    return made


def of_networks(name: str, networks: list[GoogLeNet], classes: tuple[Category, ...]) -> PictureModel:
    return PictureModel(name, "", classes, len(networks), lambda: (list(networks), None))


@pytest.fixture
def model() -> PictureModel:
    return of_networks("two", [network(0), network(1)], CLASSES)


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    """A lying, an upright and a tiny picture, and two files that are no pictures."""
    rng = np.random.default_rng(0)
    for number, shape in enumerate([(60, 90), (90, 60), (1, 1)]):
        Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "text.jpg").write_text("text")
    return [tmp_path / name for name in ("text.jpg", "0.png", "1.png", "missing.jpg", "2.png")]


def slow_probabilities(member: nn.Module, crop: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return torch.softmax(member(torch.from_numpy(crop).permute(2, 0, 1)[None].float()), 1)[0].double().numpy()


def test_144_crops_are_the_mean_of_the_networks_on_each_crop(model):
    from skimage.data import chelsea

    image = np.ascontiguousarray(chelsea()[:120, :150])
    members = copy.deepcopy(model.load()[0])
    classifier = Classifier([model], device="cpu")
    crops = crops_at(image, crop_places(144, upright=False))
    each = classifier.classify_crops(crops)
    assert each.shape == (2, 144, 3)
    slow = np.array([[slow_probabilities(member, crop) for crop in crops] for member in members])
    np.testing.assert_allclose(each, slow, atol=1e-5)
    np.testing.assert_allclose(classifier(image, 144), slow.mean((0, 1)), atol=1e-5)
    assert np.ptp(slow, axis=1).max() > 0.01  # the crops differ


def test_files_get_the_probabilities_of_single_pictures_in_order(model, pictures):
    classifier = Classifier([model], device="cpu")
    found = list(classifier.classify_files(pictures, (1, 10)))
    assert [one.path for one in found] == pictures
    assert [one.error is None for one in found] == [False, True, True, False, True]
    assert [(one.width, one.height) for one in found] == [(0, 0), (90, 60), (60, 90), (0, 0), (1, 1)]
    for one in found:
        if one.probabilities is None:
            continue
        assert one.probabilities.shape == (2, 2, 3)
        for number, crops in enumerate((1, 10)):
            expected = classifier(read_image(one.path), crops)
            np.testing.assert_allclose(one.probabilities[number].mean(0), expected, atol=1e-6)


def test_pictures_share_full_batches(model, pictures, monkeypatch):
    classifier = Classifier([model], device="cpu")
    rows: list[int] = []
    real = Classifier.classify_crops

    def counting(self, crops):
        rows.append(len(crops))
        return real(self, crops)

    monkeypatch.setattr(Classifier, "classify_crops", counting)
    list(classifier.classify_files([pictures[1]] * 20, [10]))
    assert rows == [80, 80, 40]  # batches of 16
    rows.clear()
    list(classifier.classify_files([pictures[1], pictures[0]] * 20, [1]))
    assert rows == [16, 4]


def test_files_that_cannot_be_read_do_not_wait_for_a_full_batch(model, pictures):
    waiting = iter([pictures[0]] * 100)
    found = Classifier([model], device="cpu").classify_files(waiting)
    assert next(found).error is not None
    assert len(list(waiting)) > 30
    found.close()


def test_a_picture_is_resized_once_for_each_scale(pictures, monkeypatch):
    import cv2

    shapes = []
    real = cv2.resize

    def counting(image, size, **options):
        shapes.append(image.shape)
        return real(image, size, **options)

    monkeypatch.setattr(cv2, "resize", counting)
    crops_at(read_image(pictures[1]), crop_places(144, False))
    assert shapes.count((60, 90, 3)) == 4
    assert len(shapes) == 4 + 4 * 3  # and each square to 224x224


def test_models_with_the_same_classes_in_another_order_are_averaged(model):
    members, _ = model.load()
    turned = copy.deepcopy(members[1])
    with torch.no_grad():
        turned.classifier.weight.copy_(turned.classifier.weight[[2, 0, 1]])
        turned.classifier.bias.copy_(turned.classifier.bias[[2, 0, 1]])
    first = of_networks("first", members[:1], CLASSES)
    other = of_networks("turned", [turned], tuple(CLASSES[number] for number in (2, 0, 1)))
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    expected = Classifier([model], device="cpu").classify_crops(crops)
    classifier = Classifier([first, other], device="cpu")
    assert (classifier.classes, classifier.networks) == (CLASSES, 2)
    np.testing.assert_allclose(classifier.classify_crops(crops), expected, atol=1e-6)


@pytest.mark.parametrize("wnids", [("n0", "n1"), ("n0", "n1", "n9"), ("n0", "n1", "n2", "n3")])
def test_models_with_other_classes_are_refused(model, wnids):
    other = of_networks("other", [network(0, len(wnids))], tuple(Category(0, wnid, wnid) for wnid in wnids))
    with pytest.raises(ModelError, match="two and other tell different classes apart"):
        Classifier([model, other], device="cpu")


@pytest.mark.parametrize("subclasses", [False, True])
def test_a_detector_classifies_without_its_background(tmp_path, subclasses):
    categories = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))
    below = (
        Subclass("a", "beagle", 58),
        Subclass("b", "sea", None),
        Subclass("c", "tabby", 7),
        Subclass("d", "pug", 58),
    )
    made = network(0, 5 if subclasses else 3)
    made.classifier.bias.data[0] = 3
    save_model(Model([made], categories, subclasses=below if subclasses else ()), tmp_path)
    model = find_picture_model(str(tmp_path))
    assert model.classes == categories
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    found = Classifier([model], device="cpu").classify_crops(image[None])[0, 0]
    all_outputs = slow_probabilities(made, image)
    expected = np.array([all_outputs[[1, 4]].sum(), all_outputs[3]]) if subclasses else all_outputs[1:]
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.01)  # the file has 8 bits for each weight
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_a_folder_of_classifiers_is_an_ensemble(tmp_path):
    for number in (1, 2):
        name = "classifier.safetensors" if number == 1 else "classifier_2.safetensors"
        save_classifier(network(number), ["n02111889", "red", "blue"], tmp_path / name, {})
    model = find_picture_model(str(tmp_path))
    assert model.networks == len(model.load()[0]) == 2
    assert [one.name for one in model.classes] == ["Samoyed", "red", "blue"]
    single = find_picture_model(str(tmp_path / "classifier_2.safetensors"))
    assert single.networks == len(single.load()[0]) == 1
    assert single.digest != model.digest
    save_classifier(network(3), ["n02111889", "red", "green"], tmp_path / "classifier_3.safetensors", {})
    with pytest.raises(ModelError, match=r"classifier_3\.safetensors: its classes are not those of"):
        find_picture_model(str(tmp_path))


@pytest.mark.parametrize("name", ["nothing.caffemodel", "nothing.safetensors", "nothing"])
def test_a_missing_model_is_an_error_that_names_it(tmp_path, name):
    with pytest.raises((ModelError, OSError), match="nothing"):
        find_picture_model(str(tmp_path / name))


def test_weights_that_torchvision_cannot_download_are_an_error(monkeypatch):
    from inception_rcnn.detection import classification

    def fail(pretrained: bool) -> None:
        raise OSError("<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(classification, "TorchvisionGoogLeNet", fail)
    with pytest.raises(ModelError, match="torchvision cannot load its GoogLeNet, which it downloads"):
        find_picture_model("torchvision").load()


def test_a_caffemodel_needs_as_many_classes_as_outputs(tmp_path, monkeypatch):
    from inception_rcnn.detection import classification

    file = tmp_path / "three.caffemodel"
    file.write_bytes(b"weights")
    monkeypatch.setattr(classification, "load_caffemodel", lambda path: network(0))
    with pytest.raises(ModelError, match="3 outputs, but ImageNet has 1000 classes"):
        find_picture_model(str(file)).load()
    (tmp_path / "classes.txt").write_text("n01440764 tench, Tinca tinca\nred\nblue\n")
    model = find_picture_model(str(file), tmp_path / "classes.txt")
    assert [one.name for one in model.classes] == ["tench", "red", "blue"]
    assert len(model.load()[0]) == 1
    (tmp_path / "classes.txt").write_text("red\nblue\n")
    with pytest.raises(ModelError, match=r"classes\.txt has 2 classes"):
        find_picture_model(str(file), tmp_path / "classes.txt").load()
    with pytest.raises(CategoryError, match="cannot read the class list"):
        find_picture_model(str(file), tmp_path / "nothing.txt")
