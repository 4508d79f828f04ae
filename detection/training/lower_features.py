"""Features of the frozen lower blocks, computed once for all training crops and stored in a file."""

import logging
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from io import BytesIO
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
from ..networks.backbones import Backbone, FirstBlocks
from ..warping.warp import warp_regions
from .errors import TrainingError
from .progress import Report, no_report
from .windows import Windows

# Groups of crops that are read and warped ahead: enough that the network never waits, at little memory.
_GROUPS_AHEAD = 8
# Least number of crops that `window_crops` yields together: four batches, of which the last may not be full.
_CROPS_TOGETHER = 64
# Bytes of the disk that stay free for checkpoints.
_RESERVE = 500_000_000
# Crops after which progress is saved: an interruption loses at most this much work.
FLUSHED_EVERY = 4096
# The end of a file of features: a mark, and the number of crops whose features are on the disk.
_PROGRESS = struct.Struct("<8sQ")
_MARK = b"finished"

_logger = logging.getLogger(__name__.split(".")[0])


class LowerBlocks(FirstBlocks):
    """The frozen part of a backbone: normalisation and the lowest blocks of its trunk.

    If all blocks are frozen, their output is also pooled to 1 x 1, because the classifier uses only the pooled output.
    """

    def __init__(self, backbone: Backbone, blocks: int):
        super().__init__(backbone, blocks)
        self.pooled = blocks == len(backbone.trunk)

    def forward(self, pixels: Tensor) -> Tensor:
        """Float RGB in 0..255 [N, 3, H, W] -> [N, c, h, w]."""
        features = super().forward(pixels)
        return features.mean((2, 3), keepdim=True) if self.pooled else features


def training_crops(image: np.ndarray, boxes: np.ndarray, regions: RegionSettings, seeds: list[list[int]]) -> np.ndarray:
    """Warp windows of a picture into training crops: half of them mirrored, all with distorted colours.

    Args:
        image: uint8 RGB [H, W, 3].
        boxes: float32 [N, 4].
        regions: how boxes are warped.
        seeds: a seed for each window; the same seed gives the same crop.

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


def stored_features(
    network: nn.Module,
    crops_from: Callable[[int], Iterator[tuple[int, np.ndarray]]],
    count: int,
    file: Path,
    *,
    size: int = CROP_SIZE,
    device: str = "auto",
    stage: str = "frozen blocks",
    report: Report = no_report,
) -> np.ndarray:
    """The output of a frozen network for `count` crops.

    If `file` is complete, it is used as it is; if it is partly written, the missing features are computed. A damaged
    file is replaced with a warning. The caller gives different names to files of different crops or weights.

    Args:
        network: float RGB in 0..255 [N, 3, size, size] -> [N, ...], such as `LowerBlocks`.
        crops_from: yields, from the crop with the given number on, the crops of one or several pictures after the
            other: the number of the first crop, and the crops, uint8 [n, size, size, 3]. The given number is the first
            crop of a picture.
        count: number of crops.
        file: the .npy file. The number of finished crops follows the array, so that the array and the number are
            copied, deleted or lost together.
        size: side of the crops in pixels.
        device: "auto", "cpu", "cuda" or "cuda:N".
        stage: name of the stage in reports.
        report: called with the stage and the number of finished crops.

    Returns:
        float16 [count, ...], memory-mapped.

    Raises:
        TrainingError: the disk has no room for the file.
    """
    # A batch has as many pixels as 16 crops of the usual size, with which a CPU is fastest.
    batch_size = None if size == CROP_SIZE else max(1, 16 * CROP_SIZE**2 // size**2)
    forward = CompiledForward(network, device=device, size=size, batch_size=batch_size)
    shape = (count, *forward(np.zeros((1, size, size, 3), np.uint8)).shape[1:])
    done = _finished_crops(file, shape)
    if done is None:
        file.unlink(missing_ok=True)  # An unusable file would count against the room on the disk.
        check_room(file.parent, 2 * math.prod(shape))
        _create(file, shape)
        done = 0
    features = np.lib.format.open_memmap(file, mode="r+")
    with file.open("r+b") as progress:
        for start, crops in prefetch(crops_from(done), _GROUPS_AHEAD) if done < count else ():
            for offset in range(0, len(crops), forward.batch_size):
                part = crops[offset : offset + forward.batch_size]
                features[start + offset : start + offset + len(part)] = forward(part)
            done = start + len(crops)
            report(stage, done, count, {})
            if start // FLUSHED_EVERY != done // FLUSHED_EVERY or done == count:
                features.flush()
                os.fsync(progress.fileno())  # The features are on the disk before the number that vouches for them.
                progress.seek(-_PROGRESS.size, os.SEEK_END)
                progress.write(_PROGRESS.pack(_MARK, done))
                progress.flush()
                os.fsync(progress.fileno())
    features.flags.writeable = False
    return features


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of an .npy file of float16 features."""
    stream = BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _create(file: Path, shape: tuple[int, ...]) -> None:
    """Make a file of features of which none is finished, with all of its room on the disk."""
    with file.open("wb") as stream:
        stream.write(_header(shape))
        end = stream.tell() + 2 * math.prod(shape)
        if hasattr(os, "posix_fallocate"):  # Writing to a memory map on a full disk would kill the process.
            stream.flush()
            os.posix_fallocate(stream.fileno(), 0, end + _PROGRESS.size)
        stream.seek(end)
        stream.write(_PROGRESS.pack(_MARK, 0))


def _finished_crops(file: Path, shape: tuple[int, ...]) -> int | None:
    """The number of crops whose features are in `file`; None if there is no file, or if it cannot be used."""
    if not file.exists():
        return None
    header = _header(shape)
    end = len(header) + 2 * math.prod(shape)
    with file.open("rb") as stream:
        fits = stream.read(len(header)) == header
        stream.seek(end)
        progress = stream.read(_PROGRESS.size + 1)
    if fits and len(progress) == _PROGRESS.size:
        mark, done = _PROGRESS.unpack(progress)
        if mark == _MARK and done <= shape[0]:
            return done
    _logger.warning("%s: damaged, or not a file of these features; the features are computed again", file)
    return None


def check_room(folder: Path, size: int) -> None:
    """Check that the disk of `folder` has room for `size` bytes and for the checkpoints.

    Raises:
        TrainingError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < size + _RESERVE:
        raise TrainingError(
            f"{folder}: the features of frozen blocks need {size / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free: "
            "keep fewer windows (--pool, --views), freeze more (--freeze-below), or train on another disk (--out)"
        )


def window_crops(
    dataset: Dataset, windows: Windows, regions: RegionSettings, seed: int, first: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the training crops of the windows from number `first` on, in groups of whole pictures.

    Each window is mirrored and distorted by random numbers of its own. A group fills batches: windows of a large data
    set are few in each picture, and a batch that is not full takes as long as a full batch.

    Yields:
        The number of the group's first window, and the crops, uint8 [n, 224, 224, 3].
    """
    start = first
    while start < len(windows):
        end, crops = start, []
        while end < len(windows) and end - start < _CROPS_TOGETHER:
            picture = windows.images[end]
            rows = range(end, int(np.searchsorted(windows.images, picture, side="right")))
            image = read_image(dataset[int(picture)].path)
            seeds = [[seed, 3, row] for row in rows]
            crops.append(training_crops(image, windows.boxes[rows.start : rows.stop], regions, seeds))
            end = rows.stop
        yield start, np.concatenate(crops)
        start = end
