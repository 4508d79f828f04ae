"""`warp_regions` in torch: regions are cropped and resized on the device where the network runs.

The formula in `warp.py` is written as two matrix products, out = u_y I u_x^T for each colour. The matrices u_y and u_x
hold the weights of a region's rows and columns. The matrix I holds the source pixels of the region; pixels outside the
picture have the colour `fill`.

Tolerance: crops differ from those of `warp_regions` by at most 1 grey level of 255. On a GPU, the factors of the
products are float16 and the sums float32. float16 holds pixels exactly and weights to 11 bits.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .warp import MEAN_RGB, WarpMode, check_boxes, check_settings, halved_pictures, placement

# Largest number of pixels and weights in a group of regions that are resized together: some 500 MB.
_MAX_ELEMENTS = 2**25


def warp_on_device(
    image: Tensor,
    boxes: np.ndarray,
    size: int = 224,
    padding: int = 16,
    mode: WarpMode = "warp",
    fill: Sequence[int] = MEAN_RGB,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Crop every box and resize the crops to the network's input, as `warp_regions` does, on the device of `image`.

        crops = warp_on_device(torch.from_numpy(image).to("cuda"), boxes)

    Every call halves the picture anew if a box needs it (see `EXACT_SHRINK`), so pass all boxes of a picture at once.

    Args:
        image: uint8 RGB [H, W, 3].
        boxes, size, padding, mode, fill: as for `warp_regions`; `boxes` is a numpy array.
        precision: type of the matrix products; None for float16 on a GPU and float32 on a CPU.

    Returns:
        uint8 RGB [N, size, size, 3] on the device of `image`.

    Raises:
        TypeError, ValueError: an argument is wrong, as for `warp_regions`.
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

    steps, origins, visible = placement(regions.astype(np.float64), size, padding, mode)
    channels_first = image.permute(2, 0, 1)  # [3, H, W]
    for halved, indices, scale in halved_pictures(channels_first, steps, colour, _halve_height, _halve_width):
        _resample(halved, indices, origins * scale, steps * scale, colour, precision, out)
    if mode == "square_without_context":
        _fill_invisible(out, torch.from_numpy(visible).to(image.device), colour)
    return out


def _halve_height(image: Tensor, fill: Tensor) -> Tensor:
    """[3, H, W] -> [3, ceil(H / 2), W], with exactly the values of `kernels.halve_height`."""
    channels, height, width = image.shape
    if height % 2:
        image = torch.cat([image, fill[:, None, None].expand(channels, 1, width)], dim=1)
    pairs = image.view(channels, -1, 2, width).short().sum(2)
    x = 3 * _arange(width, image) + _arange(channels, image)[:, None, None]  # index in a row of interleaved RGB
    return ((pairs + (x + _arange(pairs.shape[1], image)[:, None]) % 2) // 2).to(torch.uint8)


def _halve_width(image: Tensor, fill: Tensor) -> Tensor:
    """[3, H, W] -> [3, H, ceil(W / 2)], with exactly the values of `kernels.halve_width`."""
    channels, height, width = image.shape
    up = (_arange((width + 1) // 2, image) + _arange(height, image)[:, None]) % 2
    if width % 2:
        image = torch.cat([image, fill[:, None, None].expand(channels, height, 1)], dim=2)
        up[:, -1] = _arange(height, image) % 2
    pairs = image.view(channels, height, -1, 2).short().sum(3)
    return ((pairs + up) // 2).to(torch.uint8)


def _arange(length: int, like: Tensor) -> Tensor:
    """0, 1, ..., length - 1 on the device of `like`."""
    return torch.arange(length, device=like.device)


def _resample(
    image: Tensor,
    indices: np.ndarray,
    origins: np.ndarray,
    steps: np.ndarray,
    fill: Tensor,
    precision: torch.dtype,
    out: Tensor,
) -> None:
    """Resize the regions `indices` and write region n to `out[n]`.

    `image` is uint8 [3, H, W], halved as often as these regions need. `origins` and `steps` are those of `placement`,
    in pixels of `image`.
    """
    size = out.shape[1]
    channels, height, width = image.shape
    framed = fill[:, None, None].expand(channels, height + 2, width + 2).clone()
    framed[:, 1:-1, 1:-1] = image
    supports = np.maximum(steps[indices], 1.0)
    starts = np.floor(origins[indices] - supports)  # [n, 2] first source pixel that has a weight
    extents = np.ceil(size * steps[indices] + 2 * supports).astype(np.int64) + 2  # [n, 2] number of them

    for group in _groups_of_similar_extent(extents, size):
        wide, high = (int(longest) for longest in extents[group].max(axis=0))

        def indices_and_weights(axis: int, taps: int, limit: int, group: np.ndarray = group) -> tuple[Tensor, Tensor]:
            values = starts[group], origins[indices[group]], steps[indices[group]], supports[group]
            start, origin, step, support = (torch.from_numpy(v[:, axis]).to(image.device) for v in values)
            index = (start[:, None] + _arange(taps, image)).clamp(-1, limit).long() + 1
            return index, _weights(origin - start, step, support, size, taps).to(precision)

        columns, across = indices_and_weights(0, wide, width)
        rows, down = indices_and_weights(1, high, height)
        pixels = framed[:, rows[:, :, None], columns[:, None, :]].to(precision)  # [3, n, high, wide]
        crops = down @ (pixels @ across.mT)  # [3, n, size, size]
        rounded = (crops.float() + 0.5).clamp(0, 255).to(torch.uint8)
        out[torch.from_numpy(indices[group]).to(image.device)] = rounded.permute(1, 2, 3, 0)


def _weights(corner: Tensor, step: Tensor, support: Tensor, size: int, taps: int) -> Tensor:
    """Weights u_k of the formula in `warp.py`, float32 [n, size, taps].

    `corner` [n] is the position of each crop's edge, relative to the first of its `taps` source pixels.
    """
    centres = corner[:, None] + (_arange(size, corner) + 0.5) * step[:, None]  # [n, size]
    distances = (_arange(taps, corner) + 0.5 - centres[:, :, None]).float().abs()
    triangle = (1 - distances / support.float()[:, None, None]).clamp(min=0)
    return triangle / triangle.sum(2, keepdim=True)


def _groups_of_similar_extent(extents: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Groups of regions to resize together, as indices of `extents` [N, 2], which are widths and heights in pixels."""
    order = np.argsort(extents.prod(axis=1), kind="stable")
    begin = 0
    for end in range(1, len(order) + 1):
        wide, high = extents[order[begin : end + 1]].max(axis=0).tolist()  # of the group and the next region
        if end == len(order) or (end + 1 - begin) * (wide * high + size * (wide + high)) > _MAX_ELEMENTS:
            yield order[begin:end]
            begin = end


def _fill_invisible(crops: Tensor, visible: Tensor, fill: Tensor) -> None:
    """Fill crop n outside the rectangle `visible[n]`, half-open (left, top, right, bottom)."""
    x = _arange(crops.shape[2], crops)
    columns = (x >= visible[:, :1]) & (x < visible[:, 2:3])  # [N, size]
    rows = (x >= visible[:, 1:2]) & (x < visible[:, 3:])
    inside = rows[:, :, None] & columns[:, None, :]
    crops[~inside] = fill
