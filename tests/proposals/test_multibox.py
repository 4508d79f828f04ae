"""MultiBox: priors, encoding, matching and loss against their definitions."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.data.boxes import iou
from inception_rcnn.proposals.multibox import (
    BACKGROUND,
    IGNORED,
    DecodedMultiBox,
    MultiBox,
    PriorGrid,
    cluster_shapes,
    decode,
    encode,
    match,
    multibox_loss,
    multibox_proposals,
)
from inception_rcnn.proposals.proposals import Source

NO_BOXES = np.zeros((0, 4), np.float32)
GRIDS = (
    PriorGrid(16, 2, ((10.0, 20.0), (30.0, 12.0))),
    PriorGrid(16, 1, ((50.0, 60.0),)),
    PriorGrid(32, 1, ((150.0, 90.0), (90.0, 150.0), (200.0, 200.0))),
)


class TinyTrunk(nn.Module):
    """A trunk with two rows: 5 channels at stride 16 and 7 channels at stride 32."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential()
        self.trunk.add_module("fine", nn.Conv2d(3, 5, 16, stride=16))
        self.trunk.add_module("coarse", nn.Conv2d(5, 7, 2, stride=2))

    def normalise(self, pixels):
        return pixels / 255


def random_boxes(rng, count, size=96.0):
    corners = rng.uniform(0, size - 12, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(4, 60, (count, 2))], axis=1).astype(np.float32)


def test_priors_are_centred_in_the_divided_cells_of_the_feature_map():
    priors = PriorGrid(16, 2, ((10, 20),)).priors(64)
    assert priors.shape == (64, 4)
    assert priors[0].tolist() == [4 - 5, 4 - 10, 4 + 5, 4 + 10]
    assert priors[1].tolist() == [12 - 5, 4 - 10, 12 + 5, 4 + 10]
    assert priors[8].tolist() == [4 - 5, 12 - 10, 4 + 5, 12 + 10]


def test_a_prediction_depends_only_on_pixels_near_its_prior():
    torch.manual_seed(0)
    network = MultiBox(TinyTrunk(), GRIDS, split="fine", width=4).eval()
    with torch.no_grad():
        pixels = torch.zeros(1, 3, 128, 128)
        before = network(pixels)
        pixels[:, :, 96:112, 32:48] = 255.0  # the cell in row 6 and column 2 at stride 16
        changed = (network(pixels) != before).any(dim=2)[0].numpy()
    priors = network.priors(128)
    assert before.shape == (1, len(priors), 5)
    centres = (priors[:, :2] + priors[:, 2:]) / 2
    count = len(GRIDS[0].priors(128))
    near = np.abs(centres - (40, 104)).max(axis=1)
    # The 3x3 convolution after the sum with the coarse map reaches at most three fine cells.
    assert changed[:count].any()
    assert near[changed].max() <= 56
    assert changed[near <= 8].all()


@pytest.mark.parametrize("seed", range(3))
def test_decode_is_the_inverse_of_encode(seed):
    rng = np.random.default_rng(seed)
    boxes, priors = random_boxes(rng, 50), random_boxes(rng, 50)
    np.testing.assert_allclose(decode(encode(boxes, priors), priors), boxes, atol=1e-3)
    assert not encode(priors, priors).any()


def test_decode_limits_extreme_offsets_to_16_times_the_prior():
    priors = random_boxes(np.random.default_rng(0), 2)
    boxes = decode(np.array([[0, 0, 1e4, -1e4], [1e3, -1e3, -1e4, 1e4]], np.float32), priors)
    assert np.isfinite(boxes).all()
    sides, prior_sides = boxes[:, 2:] - boxes[:, :2], priors[:, 2:] - priors[:, :2]
    np.testing.assert_allclose(sides[0] / prior_sides[0], (16, 1 / 16), rtol=1e-2)


def test_the_network_with_decoding_gives_the_clipped_boxes_of_decode_in_parts_of_the_image():
    torch.manual_seed(0)
    network = MultiBox(TinyTrunk(), GRIDS, split="fine", width=8).eval()
    for head in network.heads.values():
        nn.init.normal_(head[2].weight, std=3)  # some boxes reach the limit of 16 times their prior
    pixels = torch.rand(2, 3, 96, 96) * 255
    with torch.no_grad():
        predictions = network(pixels).numpy()
        boxes, confidences = DecodedMultiBox(network, 96)(pixels)
    for row in range(2):
        expected = decode(predictions[row, :, :4], network.priors(96)).clip(0, 96) / 96
        np.testing.assert_allclose(boxes[row], expected, atol=1e-5)
    np.testing.assert_allclose(confidences, 1 / (1 + np.exp(-predictions[..., 4])), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_every_object_gets_its_own_prior_such_that_the_sum_of_overlaps_is_largest(seed):
    rng = np.random.default_rng(seed)
    priors, objects = random_boxes(rng, 7), random_boxes(rng, 3)
    assignment = match(priors, objects, NO_BOXES)
    overlaps = iou(priors, objects)
    best = max(sum(overlaps[list(chosen), range(3)]) for chosen in itertools.permutations(range(7), 3))
    own = max(
        sum(overlaps[list(chosen), range(3)])
        for chosen in itertools.permutations(range(7), 3)
        if all(assignment[prior] == number for number, prior in enumerate(chosen))
    )
    assert own == pytest.approx(best)


def test_other_priors_are_matched_from_iou_0_5_and_ignored_from_0_4():
    objects = np.array([[0, 0, 10, 10]], np.float32)
    # IoU               1               0.6            0.45            0.2
    priors = np.array([[0, 0, 10, 10], [0, 0, 6, 10], [0, 0, 4.5, 10], [0, 0, 2, 10]], np.float32)
    assert match(priors, objects, NO_BOXES).tolist() == [0, 0, IGNORED, BACKGROUND]


def test_priors_on_ignored_boxes_are_ignored_unless_they_match_an_object():
    box = np.array([[0, 0, 10, 10]], np.float32)
    priors = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    assert match(priors, NO_BOXES, box).tolist() == [IGNORED, BACKGROUND]
    assert match(priors, box, box).tolist() == [0, BACKGROUND]


def slow_loss(predictions, assignment, offsets, alpha):
    """Computes the loss of Erhan et al. number by number, without torch."""
    confidence = location = positives = 0.0
    for image in range(len(predictions)):
        for prior in range(predictions.shape[1]):
            *predicted, logit = predictions[image, prior].tolist()
            probability = 1 / (1 + math.exp(-logit))
            if assignment[image, prior] >= 0:
                positives += 1
                confidence -= math.log(probability)
                for one, other in zip(predicted, offsets[image, prior].tolist(), strict=True):
                    distance = abs(one - other)
                    location += distance**2 / 2 if distance < 1 else distance - 0.5
            elif assignment[image, prior] == BACKGROUND:
                confidence -= math.log(1 - probability)
    return (confidence + alpha * location) / max(1, positives)


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_equals_the_formula_computed_number_by_number(seed):
    rng = np.random.default_rng(seed)
    predictions = rng.normal(0, 2, (3, 11, 5))
    assignment = rng.integers(-2, 2, (3, 11))
    offsets = rng.normal(0, 2, (3, 11, 4))
    loss, _ = multibox_loss(*map(torch.from_numpy, (predictions, assignment, offsets)), alpha=0.3)
    assert loss.item() == pytest.approx(slow_loss(predictions, assignment, offsets, 0.3))


def test_the_terms_of_the_loss_of_a_small_example():
    # Both logits are 0, so each prior costs log 2. The object's offsets are off by 0.5 and 2: 0.5^2 / 2 + (2 - 0.5).
    predictions, assignment = torch.zeros(1, 3, 5), torch.tensor([[0, BACKGROUND, IGNORED]])
    offsets = torch.tensor([[[0.5, -2, 0, 0], [9, 9, 9, 9], [9, 9, 9, 9]]])
    loss, terms = multibox_loss(predictions, assignment, offsets, alpha=2)
    assert terms.tolist() == pytest.approx([2 * math.log(2), 1.625])
    assert loss.item() == pytest.approx(2 * math.log(2) + 3.25)


@pytest.mark.parametrize("label", [BACKGROUND, IGNORED])
def test_without_objects_only_the_confidences_of_background_have_gradients(label):
    predictions = torch.randn(2, 6, 5, requires_grad=True)
    loss, _ = multibox_loss(predictions, torch.full((2, 6), label), torch.zeros(2, 6, 4))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(predictions.grad).all()
    assert bool(predictions.grad[..., 4].any()) == (label == BACKGROUND)
    assert not predictions.grad[..., :4].any()


def test_clustering_recovers_the_shapes_from_noisy_boxes():
    rng = np.random.default_rng(0)
    true = np.array([[10, 10], [20, 60], [200, 100]], np.float32)
    sides = np.concatenate([shape * np.exp(rng.normal(0, 0.05, (50, 2))) for shape in true])
    np.testing.assert_allclose(cluster_shapes(sides, 3), true, rtol=0.05)


def predictions_of(boxes, logits, priors):
    return np.column_stack([encode(boxes, priors), np.array(logits, np.float32)]).astype(np.float32)


def boxes_at(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def test_boxes_are_in_pixels_of_the_image_clipped_to_it_and_best_first():
    priors = boxes_at([0, 0, 20, 20], [40, 40, 60, 60], [80, 80, 100, 100])
    seen = boxes_at([10, 10, 20, 30], [50, 50, 100, 100], [90, 90, 130, 120])  # in pixels of a 100 x 100 input
    found = multibox_proposals([predictions_of(seen, [0, 2, -1], priors)], [priors], [100], 200, 50)
    np.testing.assert_allclose(found.boxes, [[100, 25, 200, 50], [20, 5, 40, 15], [180, 45, 200, 50]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.880797, 0.5, 0.268941], rtol=1e-5)
    assert (found.source == Source.MULTIBOX).all()


def test_near_duplicates_of_a_better_box_are_dropped_and_at_most_count_boxes_are_kept():
    priors = np.repeat(boxes_at([10, 10, 50, 50]), 3, axis=0)
    seen = boxes_at([10, 10, 50, 50], [11, 10, 50, 50], [10, 10, 30, 30])
    found = multibox_proposals([predictions_of(seen, [0, 1, 2], priors)], [priors], [64], 64, 64, nms_threshold=0.7)
    np.testing.assert_allclose(found.boxes, seen[[2, 1]], atol=1e-3)
    assert len(multibox_proposals([predictions_of(seen, [0, 1, 2], priors)], [priors], [64], 64, 64, count=1)) == 1


def test_boxes_of_several_input_sizes_are_pooled():
    small, large = boxes_at([0, 0, 20, 20]), boxes_at([50, 50, 90, 90])
    found = multibox_proposals(
        [predictions_of(small, [1], small), predictions_of(large, [2], large)], [small, large], [100, 200], 100, 100
    )
    np.testing.assert_allclose(found.boxes, [[25, 25, 45, 45], [0, 0, 20, 20]], atol=1e-3)


def test_boxes_outside_the_image_are_dropped():
    priors = boxes_at([0, 0, 20, 20])
    outside = predictions_of(boxes_at([-30, 0, -10, 20]), [3], priors)
    assert len(multibox_proposals([outside], [priors], [100], 100, 100)) == 0
