"""The one box convention, and the conversions at its borders.

A box is ``(x1, y1, x2, y2)``: float32, 0-based, continuous and half-open. A box that covers the whole of a
``width x height`` picture is ``(0, 0, width, height)``; its width is ``x2 - x1``. N boxes are an array
[N, 4], and no boxes are an array [0, 4] (an empty list will do as an argument).

Files count otherwise. ILSVRC and PASCAL VOC write 1-based inclusive pixels (``from_inclusive``,
``to_inclusive``), COCO writes corner and size (``from_xywh``, ``to_xywh``). The functions towards a file answer
in float64, which has room for the sums of float32 coordinates, so that a round trip gives the same boxes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def area(boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Areas in square pixels, float32 [N]; 0 for a box that is empty or inverted."""
    x1, y1, x2, y2 = _columns(boxes, np.float32)
    return np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Intersection over union of every box of ``a`` [N, 4] with every box of ``b`` [M, 4].

    Returns:
        float32 [N, M] in 0..1; 0 where both boxes are empty.
    """
    ax1, ay1, ax2, ay2 = (column[:, None] for column in _columns(a, np.float32, "a"))  # each [N, 1]
    bx1, by1, bx2, by2 = _columns(b, np.float32, "b")  # each [M]
    width = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1), 0)  # [N, M]
    height = np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1), 0)  # [N, M]
    intersection = width * height  # [N, M]
    union = area(a)[:, None] + area(b) - intersection  # [N, M]
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def clip(boxes: npt.ArrayLike, width: float, height: float) -> npt.NDArray[np.float32]:
    """The parts of the boxes inside a ``width x height`` picture, float32 [N, 4].

    A box that lies outside altogether becomes an empty one on the border.
    """
    boxes = _checked(boxes, np.float32)
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))


def reach_beyond(boxes: npt.ArrayLike, width: float, height: float, tolerance: float = 1) -> npt.NDArray[np.bool_]:
    """Which boxes [N, 4] reach more than ``tolerance`` pixels beyond a ``width x height`` picture, bool [N]."""
    x1, y1, x2, y2 = _columns(boxes, np.float32)
    return np.maximum.reduce([-x1, -y1, x2 - width, y2 - height]) > tolerance


def flip_horizontal(boxes: npt.ArrayLike, width: float) -> npt.NDArray[np.float32]:
    """The boxes [N, 4] in the mirror image of a picture that is ``width`` pixels wide, float32 [N, 4]."""
    x1, y1, x2, y2 = _columns(boxes, np.float64)
    return np.stack([width - x2, y1, width - x1, y2], axis=1).astype(np.float32)


def from_inclusive(boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Boxes from 1-based inclusive ``(xmin, ymin, xmax, ymax)`` [N, 4], as in ILSVRC and VOC files.

    The pixel in the top left corner is ``(1, 1, 1, 1)`` there and ``(0, 0, 1, 1)`` here. Any integer or float
    type will do; unsigned ones do not wrap.

    Returns:
        float32 [N, 4]
    """
    return np.subtract(_checked(boxes, np.float64), (1, 1, 0, 0)).astype(np.float32)


def to_inclusive(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """1-based inclusive ``(xmin, ymin, xmax, ymax)``, float64 [N, 4], unrounded: undoes ``from_inclusive``."""
    return np.add(_checked(boxes, np.float64), (1, 1, 0, 0), dtype=np.float64)


def from_xywh(boxes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Boxes, float32 [N, 4], from COCO's 0-based and continuous ``(x, y, width, height)`` [N, 4]."""
    x, y, width, height = _columns(boxes, np.float64)
    return np.stack([x, y, x + width, y + height], axis=1).astype(np.float32)


def to_xywh(boxes: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """COCO's ``(x, y, width, height)``, float64 [N, 4]: undoes ``from_xywh``."""
    x1, y1, x2, y2 = _columns(boxes, np.float64)
    return np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)


def _checked(boxes: npt.ArrayLike, dtype: npt.DTypeLike, name: str = "boxes") -> npt.NDArray[np.floating]:
    array = np.asarray(boxes, dtype=dtype)
    if array.shape == (0,):
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        hint = " (one box is an array [1, 4])" if array.shape == (4,) else ""
        raise ValueError(f"{name}: expected an array [N, 4], got the shape {list(array.shape)}{hint}")
    return array


def _columns(boxes: npt.ArrayLike, dtype: npt.DTypeLike, name: str = "boxes") -> tuple[npt.NDArray[np.floating], ...]:
    x1, y1, x2, y2 = _checked(boxes, dtype, name).T
    return x1, y1, x2, y2
