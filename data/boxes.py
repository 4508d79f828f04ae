"""Operations on boxes, the box convention of the program, and conversions from and to other conventions.

A box is `(x1, y1, x2, y2)`: float32, 0-based, continuous and half-open. The box `(0, 0, width, height)` covers a
whole `width x height` picture. The width of a box is `x2 - x1`. N boxes are an array [N, 4]; the functions also accept
an empty list for N = 0.

Files use other conventions. ILSVRC and PASCAL VOC use 1-based inclusive pixels (`from_inclusive`, `to_inclusive`).
COCO uses corner and size (`from_xywh`, `to_xywh`). `to_inclusive` and `to_xywh` return float64, which is precise
enough for sums of float32 coordinates, so a round trip returns the same boxes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LARGEST_COORDINATE = 2**24
"""Files may place boxes at most this many pixels from the origin. Beyond it, float32 skips whole pixels."""


def area(boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the areas of boxes [N, 4] in square pixels, float32 [N]; 0 for empty and inverted boxes."""
    x1, y1, x2, y2 = _columns(boxes, np.float32)
    return np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Returns the intersection over union (IoU) of each box of `a` [N, 4] with each box of `b` [M, 4].

    Returns:
        float32 [N, M] in [0, 1]; 0 where both boxes are empty.
    """
    ax1, ay1, ax2, ay2 = (column[:, None] for column in _columns(a, np.float32, "a"))  # each [N, 1]
    bx1, by1, bx2, by2 = _columns(b, np.float32, "b")  # each [M]
    width = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1), 0)  # [N, M]
    height = np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1), 0)  # [N, M]
    intersection = width * height  # [N, M]
    union = area(a)[:, None] + area(b) - intersection  # [N, M]
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def clip(boxes: npt.ArrayLike, width: float, height: float) -> npt.NDArray[np.float32]:
    """Clips boxes [N, 4] to a `width x height` picture; returns float32 [N, 4].

    A box that is entirely outside the picture becomes an empty box on its border.
    """
    boxes = _as_boxes(boxes, np.float32)
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def reach_beyond(boxes: npt.ArrayLike, width: float, height: float, tolerance: float = 1) -> npt.NDArray[np.bool_]:
    """Whether boxes [N, 4] extend more than `tolerance` pixels beyond a `width x height` picture, bool [N]."""
    x1, y1, x2, y2 = _columns(boxes, np.float32)
    return np.maximum.reduce([-x1, -y1, x2 - width, y2 - height]) > tolerance


def flip_horizontal(boxes: npt.ArrayLike, width: float) -> npt.NDArray[np.float32]:
    """Flips boxes [N, 4] horizontally with their picture, which is `width` pixels wide; returns float32 [N, 4]."""
    x1, y1, x2, y2 = _columns(boxes, np.float64)
    return np.stack([width - x2, y1, width - x1, y2], axis=1).astype(np.float32)


def from_inclusive(boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Converts 1-based inclusive `(xmin, ymin, xmax, ymax)` [N, 4], as in ILSVRC and VOC files, to float32 [N, 4].

    The top left pixel is `(1, 1, 1, 1)` in these files and `(0, 0, 1, 1)` in the program. The coordinates may be of
    any integer or float type; unsigned integers do not wrap around.
    """
    return np.subtract(_as_boxes(boxes, np.float64), (1, 1, 0, 0)).astype(np.float32)


def to_inclusive(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Converts boxes [N, 4] to 1-based inclusive `(xmin, ymin, xmax, ymax)`, float64 [N, 4], without rounding."""
    return np.add(_as_boxes(boxes, np.float64), (1, 1, 0, 0), dtype=np.float64)


def from_xywh(boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Converts COCO's 0-based continuous `(x, y, width, height)` [N, 4] to boxes, float32 [N, 4]."""
    x, y, width, height = _columns(boxes, np.float64)
    return np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)


def to_xywh(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Converts boxes [N, 4] to COCO's `(x, y, width, height)`, float64 [N, 4]."""
    x1, y1, x2, y2 = _columns(boxes, np.float64)
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def _as_boxes(boxes: npt.ArrayLike, dtype: npt.DTypeLike, name: str = "boxes") -> npt.NDArray[np.floating]:
    array = np.asarray(boxes, dtype=dtype)
    if array.shape == (0,):
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        hint = " (a single box is an array [1, 4])" if array.shape == (4,) else ""
        raise ValueError(f"{name}: expected an array [N, 4], got an array of shape {list(array.shape)}{hint}")
    return array


def _columns(boxes: npt.ArrayLike, dtype: npt.DTypeLike, name: str = "boxes") -> tuple[npt.NDArray[np.floating], ...]:
    x1, y1, x2, y2 = _as_boxes(boxes, dtype, name).T
    return x1, y1, x2, y2
