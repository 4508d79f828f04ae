"""An ensemble with shared blocks scores crops as its members do one by one."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.engines.choice import Kind
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.engines.ensemble import EnsembleEngine
from inception_rcnn.detection.engines.quantisation import measure_input_ranges
from inception_rcnn.detection.networks.backbones import shared_blocks

CROPS = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)


def members_from(block: str | None, count: int = 3) -> list[GoogLeNet]:
    """Narrow networks that differ from `block` on; None for networks that share no block."""
    torch.manual_seed(0)
    first = GoogLeNet(4, auxiliary=False).eval()
    nn.init.normal_(first.classifier.weight, std=0.001)  # random features are large
    members = [first]
    for _ in range(count - 1):
        member = copy.deepcopy(first)
        names = [name for name, _ in member.trunk.named_children()]
        changed = nn.ModuleList([member.trunk[0 if block is None else names.index(block) :], member.classifier])
        with torch.no_grad():
            for parameter in changed.parameters():
                parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
        members.append(member)
    return members


@pytest.mark.usefixtures("tiny_googlenet")
@pytest.mark.parametrize(("block", "shared"), [("inception_4e", 14), ("inception_5b", 17), (None, 0)])
def test_blocks_of_equal_weights_are_shared(block: str | None, shared: int) -> None:
    assert shared_blocks(members_from(block)) == shared


@pytest.mark.usefixtures("tiny_googlenet")
@pytest.mark.parametrize(
    ("kind", "block"),
    [("torch", "inception_4e"), ("torch", None), pytest.param("openvino", "inception_4e", marks=pytest.mark.slow)],
)
def test_scores_equal_those_of_separate_engines(kind: Kind, block: str | None) -> None:
    members = members_from(block)
    ensemble = EnsembleEngine(members, kind=kind, device="cpu", moments=True)
    engines = [Engine(member, kind=kind, device="cpu", moments=number == 0) for number, member in enumerate(members)]
    found = ensemble(CROPS)
    each = [engine(CROPS) for engine in engines]
    assert np.abs(each[0] - each[1]).max() > 0.01  # the members disagree
    tolerance = 1e-6 if "float32" in ensemble.description else 0.03
    np.testing.assert_allclose(ensemble.each(CROPS), each, atol=tolerance)
    np.testing.assert_allclose(found.probabilities, np.mean(each, axis=0), atol=tolerance)
    np.testing.assert_allclose(found.objectness, 1 - each[0][:, 0], atol=tolerance)
    assert found.features.shape == (5, 5 * 64)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_googlenet")
def test_8_bits_need_members_that_store_their_input_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inception_rcnn.detection.engines.choice.cpu_is_faster_with_8_bits", lambda: True)
    members = members_from("inception_5b", count=2)
    members[0].input_ranges = measure_input_ranges(members[0], CROPS)
    assert "int8" not in EnsembleEngine(members, device="cpu", allow_8_bits=True).description
    members[1].input_ranges = measure_input_ranges(members[1], CROPS)
    assert "int8" not in EnsembleEngine(members, device="cpu").description
    ensemble = EnsembleEngine(members, device="cpu", allow_8_bits=True)
    assert "int8" in ensemble.description
    np.testing.assert_array_equal(
        ensemble(CROPS).probabilities, EnsembleEngine(members, kind="openvino-int8")(CROPS).probabilities
    )


@pytest.mark.usefixtures("tiny_googlenet")
def test_crops_that_the_first_member_rejects_are_background() -> None:
    members = members_from("inception_4e")
    first = Engine(members[0], kind="torch", device="cpu")(CROPS)
    threshold = float(np.sort(1 - first[:, 0])[2:4].mean())  # between the third and the fourth crop
    found = EnsembleEngine(members, kind="torch", device="cpu", cascade=threshold)(CROPS)
    everywhere = EnsembleEngine(members, kind="torch", device="cpu")(CROPS)
    passed = 1 - first[:, 0] >= threshold
    assert passed.sum() == 2
    np.testing.assert_array_equal(found.probabilities[passed], everywhere.probabilities[passed])
    np.testing.assert_array_equal(found.probabilities[~passed], [[1, 0, 0, 0]] * 3)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_googlenet")
def test_a_crop_has_the_same_bits_whatever_batch_it_is_in() -> None:
    ensemble = EnsembleEngine(members_from("inception_4e", 2), kind="openvino", device="cpu", moments=True)
    together = ensemble(CROPS)
    for row in range(len(CROPS)):
        alone = ensemble(CROPS[row : row + 1])
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[row])
        np.testing.assert_array_equal(alone.features[0], together.features[row])


@pytest.mark.usefixtures("tiny_googlenet")
def test_no_crops_have_no_scores() -> None:
    found = EnsembleEngine(members_from("inception_4e", 2), kind="torch", device="cpu")(CROPS[:0])
    assert found.probabilities.shape == (0, 4)
    assert found.features.shape == (0, 64)
