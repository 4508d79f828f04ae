"""Files of classifiers, with narrow networks."""

import json

import pytest
from safetensors.torch import load_file, save_file

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.classifier_files import load_classifier, save_classifier
from inception_rcnn.detection.networks.weights import ModelError

pytestmark = pytest.mark.usefixtures("tiny_googlenet")


def about_classifier(**changes: object) -> dict[str, str]:
    about = {"network": {"name": "googlenet", "stem": "plain", "batch_norm": False}, "classes": ["a", "b"], "card": {}}
    return {"classifier": json.dumps({**about, **changes})}


def test_a_damaged_classifier_is_named(tmp_path):
    network = GoogLeNet(2, auxiliary=False)
    file = tmp_path / "classifier.safetensors"
    save_classifier(network, ["a", "b"], file, {})
    assert load_classifier(file).num_classes == 2
    tensors = load_file(file)
    for metadata in [
        {}, {"classifier": "["}, {"classifier": "[" * 100_000}, {"classifier": "[]"}, about_classifier(network=[]),
        about_classifier(network={"stem": "x"}), about_classifier(network={"stem": ["plain"]}),
        about_classifier(network={"batch_norm": "no"}), about_classifier(classes=None), about_classifier(classes=[]),
        about_classifier(classes="ab"), about_classifier(classes=["a"] * 3),
    ]:  # fmt: skip
        save_file(tensors, file, metadata)
        with pytest.raises(ModelError, match=r"classifier\.safetensors") as error:
            load_classifier(file)
        assert len(str(error.value)) < 600


@pytest.mark.parametrize("content", [b"", b"x" * 1000])
def test_a_classifier_of_other_bytes_is_named(tmp_path, content):
    (tmp_path / "classifier.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"classifier\.safetensors"):
        load_classifier(tmp_path / "classifier.safetensors")
