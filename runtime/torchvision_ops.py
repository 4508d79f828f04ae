"""torchvision's compiled operators, without the import of the torchvision package.

`import torchvision` takes two seconds, because it also imports torchvision's models and torch's compiler. Detection
needs two operators only, which a shared library in torchvision's folder registers.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor


def _register() -> None:
    """Makes `torch.ops.torchvision` available."""
    spec = find_spec("torchvision")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for library in sorted([*Path(folder).glob("_C*.so"), *Path(folder).glob("_C*.pyd")]):
            try:
                torch.ops.load_library(library)
            except OSError:
                continue
    if not hasattr(torch.ops.torchvision, "nms"):  # another version keeps its library elsewhere
        import torchvision  # noqa: F401


_register()


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, see `torchvision.ops.nms`.

    Args:
        boxes: float [N, 4].
        scores: float [N].
        iou_threshold: a box is dropped if its IoU with a kept box of higher score is above this.

    Returns:
        The rows of the kept boxes, int64, by falling score. Equal scores keep their order.
    """
    return torch.ops.torchvision.nms(boxes, scores, iou_threshold)


def roi_align(maps: Tensor, boxes: list[Tensor], size: int, *, spatial_scale: float, sampling_ratio: int) -> Tensor:
    """Pools regions of feature maps by bilinear samples, see `torchvision.ops.roi_align` with `aligned=True`.

    Args:
        maps: float [N, C, h, w].
        boxes: N tensors [R_n, 4], the regions of each map.
        size: a region is pooled to `size` x `size` cells.
        spatial_scale: pixels of the map in a unit of the boxes.
        sampling_ratio: samples in a cell, in each direction.

    Returns:
        float [R, C, size, size], R the number of regions of all maps.
    """
    if maps.requires_grad and torch.is_grad_enabled():
        import torchvision  # noqa: F401  # registers the gradient
    numbers = torch.cat([torch.full_like(rows[:, :1], number) for number, rows in enumerate(boxes)])
    numbered = torch.cat([numbers, torch.cat(boxes)], dim=1)
    return torch.ops.torchvision.roi_align(maps, numbered, spatial_scale, size, size, sampling_ratio, True)
