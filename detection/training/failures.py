"""What is left for inspection when a training stops."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def keep_batch(file: Path, tensors: Mapping[str, np.ndarray], pictures: Sequence[str | Path]) -> None:
    """Write what went into a step to a safetensors file, and the pictures' paths, a row each, as its metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    save_file(contiguous, file, {"pictures": json.dumps([str(path) for path in pictures])})
