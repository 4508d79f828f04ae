"""The operators are torchvision's, and loading them does not import torchvision."""

import subprocess
import sys

import pytest
import torch
import torchvision.ops

from inception_rcnn.runtime.torchvision_ops import nms, roi_align


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 50
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * 40], dim=1)


@pytest.mark.parametrize("count", [0, 1, 300])
def test_nms_is_torchvisions(count: int) -> None:
    boxes = random_boxes(count, 0)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(1)).mul(20).round()  # many equal scores
    assert nms(boxes, scores, 0.4).tolist() == torchvision.ops.nms(boxes, scores, 0.4).tolist()


def test_roi_align_is_torchvisions_with_its_gradient() -> None:
    boxes = [random_boxes(5, 0), random_boxes(0, 1), random_boxes(3, 2)]
    results = []
    for pool in (
        lambda maps: roi_align(maps, boxes, 5, spatial_scale=1 / 16, sampling_ratio=2),
        lambda maps: torchvision.ops.roi_align(maps, boxes, 5, 1 / 16, 2, aligned=True),
    ):
        maps = torch.rand(3, 4, 7, 7, generator=torch.Generator().manual_seed(3)).requires_grad_()
        pooled = pool(maps)
        pooled.square().sum().backward()
        results.append((pooled, maps.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert results[0][1].abs().sum() > 0


@pytest.mark.slow
def test_roi_align_has_its_gradient_in_a_process_that_did_not_import_torchvision() -> None:
    program = """
import torch
from inception_rcnn.runtime.torchvision_ops import roi_align
maps = torch.ones(1, 1, 4, 4, requires_grad=True)
roi_align(maps, [torch.tensor([[0., 0, 4, 4]])], 1, spatial_scale=1.0, sampling_ratio=2).sum().backward()
assert abs(maps.grad.sum().item() - 1) < 1e-6, maps.grad
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["import torchvision", "pass"])
def test_the_detector_starts_without_torchvision_and_works_beside_it(after: str) -> None:
    program = f"""
import sys, torch
import inception_rcnn.detection.detector
assert "torchvision" not in sys.modules
assert "scipy.optimize" not in sys.modules
from inception_rcnn.runtime.torchvision_ops import nms
{after}
assert nms(torch.tensor([[0., 0, 9, 9], [0, 0, 9, 8]]), torch.tensor([0.5, 0.6]), 0.5).tolist() == [1]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
