"""Changes of training pictures that leave their labels right."""

import numpy as np


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
