"""Compiled networks on disk: used again, told apart, and never trusted when damaged."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.detection.engines import compiled_cache, openvino_cpu
from inception_rcnn.detection.engines.compiled_cache import cache_folder, cache_key, load_compiled, store_compiled
from inception_rcnn.detection.engines.engine import CompiledForward

CROPS = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "inception_rcnn" / "networks"


@pytest.fixture
def conversions(monkeypatch) -> list[int]:
    """Batch sizes for which a network was converted and compiled, since it was not on the disk."""
    made: list[int] = []
    convert = openvino_cpu._convert

    def counted(network: nn.Module, shape: openvino_cpu.Shape) -> object:
        made.append(shape[0])
        return convert(network, shape)

    monkeypatch.setattr(openvino_cpu, "_convert", counted)
    return made


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 7, stride=7), nn.ReLU(), nn.Conv2d(4, 2, 1))


def compiled(net: nn.Module, batch_size: int = 1, precision: str = "float32", threads: int | None = None):
    return CompiledForward(net, kind="openvino", batch_size=batch_size, precision=precision, threads=threads)


def test_the_second_time_a_network_comes_from_the_disk_with_the_same_results(folder, conversions):
    first = compiled(network())(CROPS)
    assert conversions == [1]
    assert len(list(folder.iterdir())) == 1
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1]


def test_other_weights_batch_size_precision_or_threads_are_compiled_anew(conversions):
    compiled(network())
    for other in (
        compiled(network(seed=1)),
        compiled(network(), batch_size=2),
        compiled(network(), precision="bfloat16"),
        compiled(network(), threads=1),
    ):
        assert other(CROPS).shape == (2, 2, 32, 32)
    assert conversions == [1, 1, 2, 1, 1]
    assert not np.allclose(compiled(network(seed=1))(CROPS), compiled(network())(CROPS))


def test_another_openvino_compiles_anew(conversions, monkeypatch):
    import openvino

    compiled(network())
    monkeypatch.setattr(openvino, "__version__", "1999.9")
    compiled(network())
    assert conversions == [1, 1]


def test_a_key_sees_layers_weights_buffers_and_facts():
    layers = network()
    wider = copy.deepcopy(layers)
    assert isinstance(wider[0], nn.Conv2d)
    wider[0].padding = (1, 1)
    buffered = copy.deepcopy(layers)
    buffered.register_buffer("shift", torch.zeros(1), persistent=False)
    shifted = copy.deepcopy(buffered)
    shifted.shift.add_(1)
    nudged = copy.deepcopy(layers)
    with torch.no_grad():
        nudged[2].bias[0] += 1e-3
    keys = [cache_key(one, 16) for one in (layers, wider, buffered, shifted, nudged)] + [cache_key(layers, 8)]
    assert len(set(keys)) == len(keys)
    assert cache_key(copy.deepcopy(layers), 16) == keys[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-100],
        lambda content: content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :],
        lambda content: bytes(len(content)),
    ],
    ids=["emptied", "cut", "a hole in the middle", "zeroed"],
)
def test_a_damaged_file_is_made_anew(folder, conversions, damage):
    first = compiled(network())(CROPS)
    (file,) = folder.iterdir()
    good = file.read_bytes()
    file.write_bytes(damage(good))
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]


def test_a_file_that_openvino_refuses_is_made_anew(folder, conversions):
    first = compiled(network())(CROPS)
    (file,) = folder.iterdir()
    store_compiled(file.name, b"whole, but no network")
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, monkeypatch, conversions):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = compiled(network())(CROPS)
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]


def test_the_least_recently_used_files_go(folder, monkeypatch):
    monkeypatch.setattr(compiled_cache, "_MOST_FILES", 2)
    import os

    for age, key in enumerate(("a", "b")):
        store_compiled(key, key.encode())
        os.utime(folder / key, (1000 + age, 1000 + age))
    assert load_compiled("a") == b"a"  # used just now, so "b" is the oldest
    store_compiled("c", b"c")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c"]
    assert load_compiled("b") is None


def test_caches_lie_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "inception_rcnn" / "networks"
