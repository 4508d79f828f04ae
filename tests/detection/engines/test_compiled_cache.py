"""The cache of compiled networks: a network is compiled once, and damaged or foreign files do no harm."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.detection.engines import compiled_cache, openvino_cpu
from inception_rcnn.detection.engines.compiled_cache import cache_key, forget_compiled, load_compiled, store_compiled
from inception_rcnn.detection.engines.engine import CompiledForward
from inception_rcnn.runtime import announcement

CROPS = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "inception_rcnn" / "networks"


@pytest.fixture
def conversions(monkeypatch) -> list[int]:
    """The batch sizes of all networks that were converted and compiled, because they were not in the cache.

    Conversion is slow, so it is replaced: every network becomes the mean of each colour.
    """
    batch_sizes: list[int] = []

    def convert(network: nn.Module, batch: torch.Tensor, shape: list[int]) -> object:
        import openvino
        from openvino import opset13

        batch_sizes.append(len(batch))
        pixels = opset13.parameter(shape, np.uint8)
        means = opset13.reduce_mean(opset13.convert(pixels, "f32"), np.array([1, 2]), False)
        return openvino.Model([means], [pixels], "means")

    monkeypatch.setattr(openvino_cpu, "converted", convert)
    return batch_sizes


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 7, stride=7), nn.ReLU(), nn.Conv2d(4, 2, 1))


def compiled(net: nn.Module, batch_size: int = 1, precision: str = "float32", threads: int | None = None):
    return CompiledForward(net, kind="openvino", batch_size=batch_size, precision=precision, threads=threads, size=28)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_is_compiled_once_and_loaded_with_the_same_results(folder, monkeypatch):
    first = compiled(network())(CROPS)
    with torch.no_grad():
        expected = network()(torch.from_numpy(CROPS).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(first, expected, rtol=1e-4, atol=1e-3)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(openvino_cpu, "converted", None)
    np.testing.assert_array_equal(compiled(network())(CROPS), first)


def test_the_first_compilation_is_announced_once_and_loading_is_not(folder, caplog, monkeypatch):
    monkeypatch.setattr(announcement, "_said", set())
    compiled(network())
    compiled(network(seed=1))
    assert [record.getMessage() for record in caplog.records if "compiling networks" in record.getMessage()] == [
        "compiling networks for this machine, which takes about 5 seconds each, on the first run only"
    ]
    caplog.clear()
    monkeypatch.setattr(announcement, "_said", set())
    compiled(network())
    assert not caplog.records


def test_other_weights_batch_size_precision_or_threads_are_compiled_anew(conversions):
    for _ in range(2):
        compiled(network())
        compiled(network(seed=1))
        compiled(network(), batch_size=2)
        compiled(network(), precision="bfloat16")
        compiled(network(), threads=1)
    assert conversions == [1, 1, 2, 1, 1]


def test_another_version_of_openvino_compiles_anew(conversions, monkeypatch):
    import openvino

    compiled(network())
    monkeypatch.setattr(openvino, "__version__", "1999.9")
    compiled(network())
    assert conversions == [1, 1]


@pytest.mark.parametrize("content", ["damaged", "refused by OpenVINO"])
def test_a_network_whose_file_cannot_be_used_is_compiled_anew(folder, conversions, content):
    first = compiled(network())(CROPS)
    (file,) = folder.iterdir()
    if content == "damaged":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        store_compiled(file.name, b"undamaged, but not a network")
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]


def test_without_a_writable_folder_networks_are_compiled_each_time(tmp_path, monkeypatch, conversions):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    first = compiled(network())(CROPS)
    np.testing.assert_array_equal(compiled(network())(CROPS), first)
    assert conversions == [1, 1]


def test_the_key_depends_on_layers_weights_buffers_and_facts():
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
    keys = [cache_key(net, 16) for net in (layers, wider, buffered, shifted, nudged)] + [cache_key(layers, 8)]
    assert len(set(keys)) == len(keys)
    assert cache_key(copy.deepcopy(layers), 16) == keys[0]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_stored_network_is_loaded_until_it_is_forgotten():
    assert load_compiled("key") is None
    store_compiled("key", b"network")
    assert load_compiled("key") == b"network"
    forget_compiled("key")
    assert load_compiled("key") is None
    forget_compiled("key")  # deletes nothing, without an error


def test_a_file_begins_with_the_sha256_hash_of_the_rest(folder):
    store_compiled("key", b"abc")
    # The hash of "abc" is an example of the standard, FIPS 180-2.
    expected = bytes.fromhex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad") + b"abc"
    assert (folder / "key").read_bytes() == expected


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
def test_a_damaged_file_is_deleted(folder, damage):
    store_compiled("key", b"network" * 1000)
    (folder / "key").write_bytes(damage((folder / "key").read_bytes()))
    assert load_compiled("key") is None
    assert list(folder.iterdir()) == []


def test_the_least_recently_used_files_are_deleted(folder, monkeypatch):
    monkeypatch.setattr(compiled_cache, "_MAX_FILES", 2)
    for age, key in enumerate(("a", "b")):
        store_compiled(key, key.encode())
        os.utime(folder / key, (1000 + age, 1000 + age))
    assert load_compiled("a") == b"a"  # now "b" is the least recently used
    store_compiled("c", b"c")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c"]


KILLED = """
import os
from inception_rcnn.detection.engines.compiled_cache import store_compiled
from inception_rcnn.runtime import announcement

os.fsync = lambda _: os._exit(9)
store_compiled("killed", b"network")
"""


def test_the_partial_file_of_a_killed_process_does_not_count_and_is_deleted(folder, monkeypatch):
    monkeypatch.setattr(compiled_cache, "_MAX_FILES", 2)
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == 9
    (partial,) = folder.iterdir()
    assert load_compiled("killed") is None
    store_compiled("a", b"a")
    store_compiled("b", b"b")
    assert sorted(path.name for path in folder.iterdir()) == sorted(["a", "b", partial.name])  # may still be written
    os.utime(partial, (time.time() - 7200, time.time() - 7200))
    store_compiled("a", b"a")
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]
