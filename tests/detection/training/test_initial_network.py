"""The networks that training starts from."""

import pytest
import torch

from inception_rcnn.data.categories import Category
from inception_rcnn.detection.classifier_files import save_classifier
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.networks.weights import ModelError
from inception_rcnn.detection.training.initial_network import initial_multibox, initial_network
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid

pytestmark = pytest.mark.usefixtures("tiny_googlenet")


def test_training_from_scratch_starts_with_batch_norm():
    assert initial_network("scratch").batch_norm


def test_a_classifier_of_detect_train_classifier_keeps_its_architecture_and_weights(tmp_path):
    network = GoogLeNet(3, stem="separable", batch_norm=True).eval()
    file = tmp_path / "classifier.safetensors"
    save_classifier(network, ["a", "b", "c"], file, {"data": "none"})
    loaded = initial_network(str(file))
    assert (loaded.stem, loaded.batch_norm, loaded.num_classes) == ("separable", True, 3)
    state = network.state_dict()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value.float(), state[name].half().float(), rtol=0, atol=0)


def test_a_file_that_is_no_classifier_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"none\.safetensors: there is no such file"):
        initial_network(str(tmp_path / "none.safetensors"))
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"a\.safetensors: not a classifier"):
        initial_network(str(tmp_path / "a.safetensors"))


def test_only_a_model_with_a_multibox_network_gives_one(tmp_path):
    multibox = MultiBox(headless(GoogLeNet(2)), [PriorGrid(32, 1, ((20.0, 30.0),))], width=8, sizes=(64,)).eval()
    members, categories = [GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),)
    save_model(Model(members, categories), tmp_path / "without")
    save_model(Model(members, categories, card={"multibox": {"views": 5}}, multibox=multibox), tmp_path / "with")
    assert initial_multibox(str(tmp_path / "without")) == (None, {})
    found, card = initial_multibox(str(tmp_path / "with"))
    assert (found.grids, card) == (multibox.grids, {"views": 5})
    assert initial_multibox("scratch") == initial_multibox("bvlc.caffemodel") == (None, {})
