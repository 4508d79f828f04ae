import numpy as np
import pytest
import torch

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.backbones import TorchvisionGoogLeNet, with_classes
from inception_rcnn.detection.engine import Engine, EngineError, resolve_device

CROPS = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> GoogLeNet:
    torch.manual_seed(0)
    network = GoogLeNet(4, auxiliary=False).eval()
    with torch.no_grad():  # logits of a few units, so that a tolerance of probabilities says something
        features = network.features(torch.from_numpy(CROPS).permute(0, 3, 1, 2).float()).mean((2, 3))
        network.classifier.weight.mul_(3 / network.classifier(features).std())
    return network


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    return Engine(model, device="cpu", batch_size=2)


def reference(model, crops) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(model(torch.from_numpy(crops).permute(0, 3, 1, 2).float()), 1).numpy()


def test_float32_engine_equals_the_plain_network(model):
    np.testing.assert_allclose(
        Engine(model, device="cpu", precision="float32")(CROPS), reference(model, CROPS), atol=1e-4
    )


def test_default_engine_stays_within_the_stated_tolerance(model, engine):
    assert np.abs(engine(CROPS) - reference(model, CROPS)).max() < 0.03


def test_torchvisions_network_runs_too():
    network = with_classes(TorchvisionGoogLeNet(), 3).eval()
    engine = Engine(network, device="cpu", precision="float32", batch_size=2)
    np.testing.assert_allclose(engine(CROPS[:2]), reference(network, CROPS[:2]), atol=1e-4)


def test_rows_are_probabilities(engine):
    probabilities = engine(CROPS)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (5, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_rows_do_not_depend_on_their_company_by_a_single_bit(model, precision):
    engine = Engine(model, device="cpu", batch_size=2, precision=precision)
    together = engine(CROPS)
    for row in range(len(CROPS)):
        np.testing.assert_array_equal(engine(CROPS[row : row + 1])[0], together[row])
    np.testing.assert_array_equal(engine(CROPS[::-1])[::-1], together)


@pytest.mark.parametrize("other", [{"threads": 1}, {"batch_size": 3}])
def test_neither_threads_nor_batch_size_change_a_bit(model, engine, other):
    again = Engine(model, **{"device": "cpu", "batch_size": 2, **other})
    np.testing.assert_array_equal(again(CROPS), engine(CROPS))


def test_classifying_more_or_fewer_rows_together_changes_not_a_bit():
    rng = np.random.default_rng(0)
    engine = Engine(GoogLeNet(47, auxiliary=False), device="cpu", batch_size=1)
    features = rng.gamma(0.5, 1, (150, 1024)).astype(np.float32)
    together = engine.classify(features)
    for count in (*range(1, 40), 64, 65, 128, 149):
        start = rng.integers(0, len(features) - count + 1)
        np.testing.assert_array_equal(
            engine.classify(features[start : start + count]), together[start : start + count], str(count)
        )


def test_no_crops_give_no_rows(engine):
    assert engine(CROPS[:0]).shape == (0, 4)


def test_classifying_features_is_the_second_half_of_the_call(engine):
    np.testing.assert_array_equal(engine.classify(engine.features(CROPS)), engine(CROPS))


def test_the_network_is_copied_and_left_as_it_was(model):
    model.train()
    engine = Engine(model, device="cpu", batch_size=1)
    before = engine(CROPS[:1])
    assert model.training
    saved = model.classifier.weight.detach().clone()
    with torch.no_grad():
        model.classifier.weight.zero_()
    np.testing.assert_array_equal(engine(CROPS[:1]), before)
    with torch.no_grad():
        model.classifier.weight.copy_(saved)
    model.eval()


@pytest.mark.parametrize(
    "crops", [CROPS.astype(np.float32), CROPS[0], CROPS[:, :200], CROPS.transpose(0, 3, 1, 2), CROPS[..., :1]]
)
def test_other_arrays_are_refused_with_what_was_expected(engine, crops):
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 224, 224, 3\]"):
        engine(crops)


def test_an_unknown_device_is_refused():
    with pytest.raises(EngineError, match="'auto', 'cpu', 'cuda'"):
        resolve_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is meant")
def test_a_gpu_that_is_not_there_is_said_with_the_remedy(model):
    with pytest.raises(EngineError, match="--device cpu"):
        Engine(model, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_engine_stays_within_the_stated_tolerance(model):
    assert np.abs(Engine(model, device="cuda", batch_size=2)(CROPS) - reference(model, CROPS)).max() < 0.03


def test_a_batch_size_below_one_is_refused(model):
    with pytest.raises(ValueError, match="batch_size is 0"):
        Engine(model, batch_size=0)
