"""The keys of stored results: digests of everything that a result depends on.

Trainings store features, thresholds and box regressions in files whose names contain a key. A later training in the
same folder uses a file only if its own key is the same. All keys are made here, so that none leaves an input out.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from torch import nn

from ...data.dataset import Dataset
from ...data.images import ImageError
from ...proposals.multibox import MultiBox


def result_key(**inputs: object) -> str:
    """The key of a result: 16 hexadecimal digits.

    The key also depends on the versions of the libraries that decode and resize pictures.

    Args:
        inputs: everything that the result depends on, by name: arrays, networks, dataclasses, None, and values that
            JSON can express.
    """
    digest = hashlib.sha256(f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}".encode())
    for name, value in sorted(inputs.items()):
        digest.update(f"\0{name}\0".encode())
        _add(digest, value)
    return digest.hexdigest()[:16]


def pictures_key(dataset: Dataset, rows: Iterable[int]) -> str:
    """The key of the contents of some pictures of a data set, in the order of `rows`.

    Raises:
        ImageError: a picture cannot be read.
    """
    return result_key(pictures=[_content_hash(dataset[int(row)].path) for row in rows])


def _content_hash(path: Path) -> str:
    try:
        status = path.stat()
        return _hash_of_version(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ImageError(path, f"cannot read the file: {error.strerror}") from error


@cache
def _hash_of_version(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file. The size and the time of the last change tell the versions of a file apart."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _add(digest: Any, value: object) -> None:
    if isinstance(value, np.ndarray):
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, nn.Module):
        digest.update(type(value).__name__.encode())
        for name, tensor in value.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        # The ranges decide the results in 8 bits; the grids and sizes decide MultiBox's boxes.
        _add(digest, getattr(value, "input_ranges", None))
        if isinstance(value, MultiBox):
            _add(digest, [value.sizes, value.split, [asdict(grid) for grid in value.grids]])
    elif is_dataclass(value) and not isinstance(value, type):
        _add(digest, asdict(value))
    else:
        digest.update(json.dumps(value, sort_keys=True).encode())
