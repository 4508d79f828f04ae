"""The stored features of frozen blocks: interruptions and damaged files."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from inception_rcnn.detection.training import lower_features
from inception_rcnn.detection.training.lower_features import stored_features

pytestmark = pytest.mark.usefixtures("uncompiled_networks")

COUNT = 9


class Interrupted(Exception):
    """Stands for the end of the program."""


class Mean(nn.Module):
    """The mean of each channel, as a network."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean((2, 3)) * self.scale


def crops_from(first: int) -> Iterator[tuple[int, np.ndarray]]:
    """Crop n has pixels of n + 1. Each picture has one crop."""
    for number in range(first, COUNT):
        yield number, np.full((1, 32, 32, 3), number + 1, np.uint8)


def features(file: Path, stop_at: int = COUNT + 1) -> tuple[list[float], list[int]]:
    """The first channel of the stored features, and the numbers of the crops that were computed."""
    computed: list[int] = []

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        computed.append(done)
        if done == stop_at:
            raise Interrupted

    stored = stored_features(Mean(), crops_from, COUNT, file, size=32, device="cpu", report=report)
    assert stored.dtype == np.float16
    return stored[:, 0].tolist(), computed


RIGHT = [float(number + 1) for number in range(COUNT)]


@pytest.fixture(autouse=True)
def _flushed_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_features, "FLUSHED_EVERY", 3)


def test_finished_features_are_not_computed_again_and_numpy_reads_the_file(tmp_path: Path) -> None:
    file = tmp_path / "features.npy"
    assert features(file) == (RIGHT, list(range(1, COUNT + 1)))
    assert features(file) == (RIGHT, [])
    assert np.load(file)[:, 0].tolist() == RIGHT
    assert [path.name for path in tmp_path.iterdir()] == ["features.npy"]


@pytest.mark.parametrize("stop_at", range(1, COUNT + 1))
def test_features_after_any_interruption_are_those_of_an_uninterrupted_run(tmp_path: Path, stop_at: int) -> None:
    file = tmp_path / "features.npy"
    with pytest.raises(Interrupted):
        features(file, stop_at)
    found, computed = features(file)
    assert found == RIGHT
    assert len(computed) == COUNT - (stop_at - 1) // 3 * 3


def test_a_deleted_file_takes_its_progress_with_it(tmp_path: Path) -> None:
    file = tmp_path / "features.npy"
    with pytest.raises(Interrupted):
        features(file, stop_at=8)
    file.unlink()
    with pytest.raises(Interrupted):
        features(file, stop_at=2)
    assert features(file) == (RIGHT, list(range(1, COUNT + 1)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:100],
        lambda content: content[:-1],
        lambda content: content[:-16],
        lambda content: content + b"x",
        lambda content: b"x" + content[1:],
        lambda content: content.replace(b"(9, 3)", b"(3, 9)"),
        lambda content: content.replace(b"<f2", b">f2"),
        lambda content: content[:-8] + (COUNT + 1).to_bytes(8, "little"),
        lambda content: content[:-16] + bytes(16),
    ],
    ids=["empty", "cut", "cut by a byte", "old", "longer", "magic", "shape", "type", "too many crops", "no mark"],
)
def test_a_damaged_file_is_replaced_with_a_warning_that_names_it(tmp_path: Path, damage, caplog) -> None:
    file = tmp_path / "features.npy"
    features(file)
    file.write_bytes(damage(file.read_bytes()))
    with caplog.at_level(logging.WARNING, "inception_rcnn"):
        assert features(file) == (RIGHT, list(range(1, COUNT + 1)))
    assert f"{file}: damaged" in caplog.text
