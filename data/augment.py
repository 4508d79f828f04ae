"""Changes of training pictures that leave their labels right."""

import math

import cv2
import numpy as np

# "Random interpolation methods (bilinear, area, nearest neighbor and cubic, with equal probability)", section 6.
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC)
_TRIES = 10


def random_area_crop(image: np.ndarray, rng: np.random.Generator, size: int = 224) -> np.ndarray:
    """The training crop of "Going Deeper with Convolutions", section 6: "various sized patches of the image whose size
    is distributed evenly between 8% and 100% of the image area with aspect ratio constrained to the interval
    [3/4, 4/3]", resized by a random method, mirrored half of the time.

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of place, area, aspect ratio (even on a logarithmic scale), method and mirroring.
        size: side of the result in pixels.

    Returns:
        uint8 RGB [size, size, 3].
    """
    height, width = image.shape[:2]
    for _ in range(_TRIES):
        area = rng.uniform(0.08, 1) * height * width
        aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 1 <= w <= width and 1 <= h <= height:
            break
    else:  # a picture so long that few such patches fit: the largest square
        w = h = min(width, height)
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    patch = image[y : y + h, x : x + w]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    method = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
    return cv2.resize(np.ascontiguousarray(patch), (size, size), interpolation=method)


def centre_crop(image: np.ndarray, size: int = 224, shorter: int = 256) -> np.ndarray:
    """The crop that classifiers are tested on: the middle, after the shorter side was resized to `shorter` pixels.

    Args:
        image: uint8 RGB [H, W, 3].

    Returns:
        uint8 RGB [size, size, 3].
    """
    height, width = image.shape[:2]
    scale = shorter / min(height, width)
    w, h = max(shorter, round(width * scale)), max(shorter, round(height * scale))
    resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    x, y = (w - size) // 2, (h - size) // 2
    return np.ascontiguousarray(resized[y : y + size, x : x + size])


def distort_colours(image: np.ndarray, rng: np.random.Generator, strength: float = 0.2) -> np.ndarray:
    """Random brightness, contrast and saturation ("photometric distortions", Howard 2013, section 2).

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of the three factors.
        strength: each factor is uniform in [1 - strength, 1 + strength].

    Returns:
        A new uint8 RGB image [H, W, 3].
    """
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3).astype(np.float32)
    pixels = image.astype(np.float32) * brightness
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)  # [H, W], ITU-R BT.601 luma
    pixels = (pixels - grey[..., None]) * saturation + grey[..., None]
    mean = grey.mean()
    pixels = (pixels - mean) * contrast + mean
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
