"""What the frozen lower blocks make of the training windows, computed once and kept in a file."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from ...data.augment import distort_colours
from ...data.boxes import flip_horizontal
from ...data.dataset import Dataset
from ...data.images import read_image
from ...runtime.prefetch import prefetch
from ..engines.engine import CROP_SIZE, CompiledForward
from ..model_files import RegionSettings
from ..networks.backbones import Backbone
from ..warping.warp import warp_regions
from .errors import TrainingError
from .windows import Windows

# Pictures whose windows are warped ahead of the network: enough that it never waits, little memory.
_PICTURES_AHEAD = 8
_RESERVE = 500_000_000
FLUSHED_EVERY = 4096  # crops: what an interruption costs at the most


class LowerBlocks(nn.Module):
    """The frozen part of a backbone: normalisation and the blocks of its trunk before the trained ones.

    With all blocks frozen their output is pooled too, to 1 x 1, which is all that the classifier sees of it.
    """

    def __init__(self, backbone: Backbone, blocks: int):
        super().__init__()
        self.backbone = backbone
        self.blocks = backbone.trunk[:blocks]
        self.pooled = blocks == len(backbone.trunk)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W] -> [N, c, h, w]."""
        features = self.blocks(self.backbone.normalise(pixels))
        return features.mean((2, 3), keepdim=True) if self.pooled else features


def training_crops(image: np.ndarray, boxes: np.ndarray, regions: RegionSettings, seeds: list[list[int]]) -> np.ndarray:
    """Windows of a picture as the network is trained on them: mirrored half of the time, colours distorted.

    Args:
        image: uint8 RGB [H, W, 3].
        boxes: float32 [N, 4].
        regions: how boxes are warped.
        seeds: one for each window; the same seed makes the same crop.

    Returns:
        uint8 RGB [N, 224, 224, 3].
    """
    generators = [np.random.default_rng(seed) for seed in seeds]
    mirrored = np.array([generator.random() < 0.5 for generator in generators])
    crops = np.empty((len(boxes), CROP_SIZE, CROP_SIZE, 3), np.uint8)
    mirror_image = np.ascontiguousarray(image[:, ::-1])
    for flag, picture in ((False, image), (True, mirror_image)):
        rows = np.flatnonzero(mirrored == flag)
        if len(rows):
            shown = flip_horizontal(boxes[rows], image.shape[1]) if flag else boxes[rows]
            crops[rows] = warp_regions(picture, shown, padding=regions.padding, mode=regions.warp_mode)
    for row, generator in enumerate(generators):
        crops[row] = distort_colours(crops[row], generator)
    return crops


def lower_features(
    backbone: Backbone,
    blocks: int,
    crops_from: Callable[[int], Iterator[tuple[int, np.ndarray]]],
    count: int,
    file: Path,
    *,
    size: int = CROP_SIZE,
    device: str = "auto",
    report: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """The output of the lowest `blocks` blocks for each of `count` crops: float16 [count, c, h, w], memory-mapped.

    A run that was stopped goes on where it was; a finished file is used as it is. Files made of different crops or
    weights are the caller's to keep apart.

    Args:
        crops_from: from the number of a crop to an iterator over the number of the first crop and the crops, uint8
            [n, size, size, 3], of one picture after the other; it is called with the first crop of a picture.
        file: kept there, with a small file on how far it is beside it.

    Raises:
        TrainingError: the disk has no room for the file.
    """
    progress_file = file.with_suffix(".progress.json")
    done = json.loads(progress_file.read_text())["done"] if progress_file.exists() and file.exists() else 0
    # as much in a batch as 16 crops of the usual size, which is where a CPU is fastest
    batch_size = None if size == CROP_SIZE else max(1, 16 * CROP_SIZE**2 // size**2)
    forward = CompiledForward(LowerBlocks(backbone, blocks), device=device, size=size, batch_size=batch_size)
    shape = forward(np.zeros((1, size, size, 3), np.uint8)).shape[1:]
    if not done:
        file.unlink(missing_ok=True)  # of a run that was stopped before anything in it counted; it takes its room
        check_room(file.parent, count * int(np.prod(shape)) * 2)
    features = np.lib.format.open_memmap(file, mode="r+" if done else "w+", dtype=np.float16, shape=(count, *shape))
    if features.shape != (count, *shape):
        raise TrainingError(f"{file}: has shape {features.shape}, expected {(count, *shape)}; delete it to start anew")
    if not done and hasattr(os, "posix_fallocate"):  # a disk that others fill meanwhile would end the process
        with file.open("r+b") as whole:
            os.posix_fallocate(whole.fileno(), 0, file.stat().st_size)
    if done < count:
        for start, crops in prefetch(crops_from(done), _PICTURES_AHEAD):
            for offset in range(0, len(crops), forward.batch_size):
                part = crops[offset : offset + forward.batch_size]
                features[start + offset : start + offset + len(part)] = forward(part)
            done = start + len(crops)
            report(done)
            if start // FLUSHED_EVERY != done // FLUSHED_EVERY or done == count:
                features.flush()
                partial = progress_file.with_suffix(".partial")
                partial.write_text(json.dumps({"done": done}))
                partial.replace(progress_file)
    return np.load(file, mmap_mode="r")


def check_room(folder: Path, size: int) -> None:
    """Refuse to begin what would fill the disk: `size` bytes in `folder`.

    Raises:
        TrainingError: there is less room, counting a reserve for checkpoints.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _RESERVE:
        raise TrainingError(
            f"{folder}: what frozen blocks give needs {size / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free: keep "
            "fewer windows (--pool, --views), freeze more (--freeze-below), or train on another disk (--out)"
        )


def window_crops(
    dataset: Dataset, windows: Windows, regions: RegionSettings, seed: int, first: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Index of the first window, and crops of all windows, of one picture after the other, from window `first` on.

    Each window is mirrored and its colours distorted once, at random.
    """
    start = first
    while start < len(windows):
        picture = windows.images[start]
        end = int(np.searchsorted(windows.images, picture, side="right"))
        image = read_image(dataset[int(picture)].path)
        yield (
            start,
            training_crops(image, windows.boxes[start:end], regions, [[seed, 3, row] for row in range(start, end)]),
        )
        start = end
