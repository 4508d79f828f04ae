"""`warp_regions` with torch, so that regions are cropped and resized on the device where the network runs.

The formula is that of `warp`, its two sums written as matrix products: with u the weights of a region's rows and
columns, out = u_y I u_x^T for each colour, I being the pixels that the weights reach, extended by `fill`.

Tolerance: crops equal those of `warp_regions` up to 1 grey level of 255. On a GPU the products are in float16, which
holds pixels exactly and weights to 11 bits, and whose sums are kept in float32.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .warp import MEAN_RGB, WarpMode, check_boxes, check_settings, halvings, placement

# Most pixels and weights of regions that are resized together: some 500 MB.
_MOST_ELEMENTS = 2**25


def warp_on_device(
    image: Tensor,
    boxes: np.ndarray,
    size: int = 224,
    padding: int = 16,
    mode: WarpMode = "warp",
    fill: Sequence[int] = MEAN_RGB,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Crop and resample every box to the network's input, as `warp_regions`, on the device that has the picture.

        crops = warp_on_device(torch.from_numpy(image).to("cuda"), boxes)

    A picture from which halved copies are needed (see `warp`) is halved at each call: give all its boxes at once.

    Args:
        image: uint8 RGB [H, W, 3].
        boxes, size, padding, mode, fill: as for `warp_regions`; boxes [N, 4] are an array.
        precision: of the products; None for float16 on a GPU and float32 on a CPU.

    Returns:
        uint8 RGB [N, size, size, 3] on the device of `image`.

    Raises:
        TypeError, ValueError: as `warp_regions`.
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"image must be a uint8 tensor [H, W, 3], got {image.dtype}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image must be [H, W, 3] with at least one pixel, got {list(image.shape)}")
    regions = np.asarray(boxes)
    check_boxes(regions, width=image.shape[1], height=image.shape[0])
    colour = torch.from_numpy(check_settings(size, padding, mode, fill)).to(image.device)
    precision = precision or (torch.float32 if image.device.type == "cpu" else torch.float16)
    out = torch.empty((len(regions), size, size, 3), dtype=torch.uint8, device=image.device)
    if len(regions) == 0:
        return out

    steps, origins, shown = placement(regions.astype(np.float64), size, padding, mode)
    levels = halvings(steps)
    short = image.permute(2, 0, 1)  # [3, H, W]
    for level_y in range(int(levels[:, 1].max()) + 1):
        if level_y:
            short = _halve_height(short, colour)
        here = levels[:, 1] == level_y
        narrow = short
        for level_x in range(int(levels[here, 0].max(initial=-1)) + 1):
            if level_x:
                narrow = _halve_width(narrow, colour)
            chosen = np.flatnonzero(here & (levels[:, 0] == level_x))
            if len(chosen):
                scale = 0.5 ** np.array([level_x, level_y])
                _resample(narrow, chosen, origins * scale, steps * scale, colour, precision, out)
    if mode == "square_without_context":
        _hide(out, torch.from_numpy(shown).to(image.device), colour)
    return out


def _halve_height(image: Tensor, fill: Tensor) -> Tensor:
    """[3, H, W] -> [3, ceil(H / 2), W], to the bit as `kernels.halve_height`."""
    channels, height, width = image.shape
    if height % 2:
        image = torch.cat([image, fill[:, None, None].expand(channels, 1, width)], dim=1)
    pairs = image.view(channels, -1, 2, width).short().sum(2)
    x = 3 * _count(width, image) + _count(channels, image)[:, None, None]  # of interleaved RGB
    return ((pairs + (x + _count(pairs.shape[1], image)[:, None]) % 2) // 2).to(torch.uint8)


def _halve_width(image: Tensor, fill: Tensor) -> Tensor:
    """[3, H, W] -> [3, H, ceil(W / 2)], to the bit as `kernels.halve_width`."""
    channels, height, width = image.shape
    up = (_count((width + 1) // 2, image) + _count(height, image)[:, None]) % 2
    if width % 2:
        image = torch.cat([image, fill[:, None, None].expand(channels, height, 1)], dim=2)
        up[:, -1] = _count(height, image) % 2
    pairs = image.view(channels, height, -1, 2).short().sum(3)
    return ((pairs + up) // 2).to(torch.uint8)


def _count(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device)


def _resample(
    image: Tensor,
    chosen: np.ndarray,
    origins: np.ndarray,
    steps: np.ndarray,
    fill: Tensor,
    precision: torch.dtype,
    out: Tensor,
) -> None:
    """Write the regions `chosen` to `out`: image uint8 [3, H, W], origins and steps as of `placement`."""
    size = out.shape[1]
    channels, height, width = image.shape
    framed = fill[:, None, None].expand(channels, height + 2, width + 2).clone()
    framed[:, 1:-1, 1:-1] = image
    supports = np.maximum(steps[chosen], 1.0)
    starts = np.floor(origins[chosen] - supports)  # the first pixel that a weight may reach
    reach = np.ceil(size * steps[chosen] + 2 * supports).astype(np.int64) + 2  # [n, 2], and how many follow it

    for some in _alike(reach, size):
        wide, high = (int(most) for most in reach[some].max(axis=0))

        def along(axis: int, taps: int, limit: int, some: np.ndarray = some) -> tuple[Tensor, Tensor]:
            values = starts[some], origins[chosen[some]], steps[chosen[some]], supports[some]
            start, origin, step, support = (torch.from_numpy(v[:, axis]).to(image.device) for v in values)
            index = (start[:, None] + _count(taps, image)).clamp(-1, limit).long() + 1
            return index, _weights(origin - start, step, support, size, taps).to(precision)

        columns, across = along(0, wide, width)
        rows, down = along(1, high, height)
        pixels = framed[:, rows[:, :, None], columns[:, None, :]].to(precision)  # [3, n, high, wide]
        crops = down @ (pixels @ across.mT)  # [3, n, size, size]
        rounded = (crops.float() + 0.5).clamp(0, 255).to(torch.uint8)
        out[torch.from_numpy(chosen[some]).to(image.device)] = rounded.permute(1, 2, 3, 0)


def _weights(corner: Tensor, step: Tensor, support: Tensor, size: int, taps: int) -> Tensor:
    """u_k of the formula of `warp`, float32 [n, size, taps], for regions with corners `corner` [n] after pixel 0."""
    centres = corner[:, None] + (_count(size, corner) + 0.5) * step[:, None]  # [n, size]
    distances = (_count(taps, corner) + 0.5 - centres[:, :, None]).float().abs()
    triangle = (1 - distances / support.float()[:, None, None]).clamp(min=0)
    return triangle / triangle.sum(2, keepdim=True)


def _alike(reach: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Indices of regions about as large, that are resized together: `reach` [N, 2] is width and height in pixels."""
    order = np.argsort(reach.prod(axis=1), kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        wide, high = reach[order[begin : end + 1]].max(axis=0).tolist()  # with the next one
        if end == len(order) or (end + 1 - begin) * (wide * high + size * (wide + high)) > _MOST_ELEMENTS:
            yield order[begin:end]
            begin = end


def _hide(crops: Tensor, shown: Tensor, fill: Tensor) -> None:
    """Fill what lies outside the half-open (left, top, right, bottom) of `shown` [N, 4]."""
    x = _count(crops.shape[2], crops)
    columns = (x >= shown[:, :1]) & (x < shown[:, 2:3])  # [N, size]
    rows = (x >= shown[:, 1:2]) & (x < shown[:, 3:])
    inside = rows[:, :, None] & columns[:, None, :]
    crops[~inside] = fill
