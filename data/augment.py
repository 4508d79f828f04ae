"""Random augmentation of training pictures that keeps their labels valid."""

import math

import cv2
import numpy as np

# "Random interpolation methods (bilinear, area, nearest neighbor and cubic, with equal probability)", section 6.
_INTERPOLATIONS = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_CUBIC)
_TRIES = 10


def random_area_crop(image: np.ndarray, rng: np.random.Generator, size: int = 224) -> np.ndarray:
    """Returns a random patch of an image, resized to a square; flipped horizontally with probability 0.5.

    This is the training crop of "Going Deeper with Convolutions", section 6: "various sized patches of the image whose
    size is distributed evenly between 8% and 100% of the image area with aspect ratio constrained to the interval
    [3/4, 4/3]". The interpolation method is random.

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of the area, the aspect ratio (uniform on a logarithmic scale), the position, the flip and the
            interpolation method.
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
    else:  # The image is so elongated that few such patches fit: take the largest square.
        w = h = min(width, height)
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    patch = image[y : y + h, x : x + w]
    if rng.random() < 0.5:
        patch = patch[:, ::-1]
    method = _INTERPOLATIONS[rng.integers(len(_INTERPOLATIONS))]
    return cv2.resize(np.ascontiguousarray(patch), (size, size), interpolation=method)


def centre_crop(image: np.ndarray, size: int = 224, shorter: int = 256) -> np.ndarray:
    """Resizes the shorter side of an image to `shorter` pixels and returns its central square, for testing classifiers.

    Args:
        image: uint8 RGB [H, W, 3].
        size: side of the result in pixels.
        shorter: length of the shorter side before the crop in pixels, at least `size`.

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
    """Changes brightness, saturation and contrast randomly ("photometric distortions", Howard 2013, section 2).

    Args:
        image: uint8 RGB [H, W, 3].
        rng: source of the three factors.
        strength: each factor is drawn uniformly from [1 - strength, 1 + strength].

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
