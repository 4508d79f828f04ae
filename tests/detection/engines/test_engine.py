"""Engines stay within their tolerance of plain torch, and survive a lack of memory."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.engines import engine as engine_module
from inception_rcnn.detection.engines.choice import EngineError
from inception_rcnn.detection.engines.engine import CompiledForward, Engine, SpatialMoments
from inception_rcnn.detection.networks.backbones import TorchvisionGoogLeNet, with_classes


def probabilities(model: nn.Module, crops: np.ndarray) -> np.ndarray:
    """Those of plain torch."""
    with torch.no_grad():
        return torch.softmax(model(torch.from_numpy(crops).permute(0, 3, 1, 2).float()), 1).numpy()


# --- results ----------------------------------------------------------------------------------------------------------


def test_float32_engine_equals_the_plain_network(crops, reference, float32_engine):
    np.testing.assert_allclose(float32_engine(crops), reference, atol=1e-4)


def test_plain_torch_engine_equals_the_plain_network(model, crops, reference):
    np.testing.assert_allclose(Engine(model, kind="torch", device="cpu", batch_size=2)(crops), reference, atol=1e-4)


def test_default_engine_stays_within_the_stated_tolerance(crops, reference, engine):
    assert engine.description.startswith("OpenVINO on CPU, ")
    assert np.abs(engine(crops) - reference).max() < 0.03


@pytest.mark.slow
def test_torchvisions_network_runs_too(crops):
    network = with_classes(TorchvisionGoogLeNet(), 3).eval()
    engine = Engine(network, device="cpu", precision="float32", batch_size=2)
    np.testing.assert_allclose(engine(crops[:2]), probabilities(network, crops[:2]), atol=1e-4)


def test_probabilities_are_float32_and_sum_to_one(crops, engine):
    rows = engine(crops)
    assert rows.dtype == np.float32
    assert rows.shape == (5, 4)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    assert engine(crops[:0]).shape == (0, 4)


@pytest.mark.parametrize("name", ["engine", "float32_engine", pytest.param("int8_engine", marks=pytest.mark.slow)])
def test_a_crop_gets_the_same_bits_in_any_batch(request, crops, name):
    engine = request.getfixturevalue(name)
    together = engine(crops)
    for row in range(len(crops)):
        np.testing.assert_array_equal(engine(crops[row : row + 1])[0], together[row])
    np.testing.assert_array_equal(engine(crops[::-1])[::-1], together)


@pytest.mark.slow
def test_neither_threads_nor_batch_size_change_a_bit(model, crops, engine):
    other = Engine(model, device="cpu", batch_size=3, threads=1)
    np.testing.assert_array_equal(other(crops), engine(crops))


def test_the_number_of_rows_does_not_change_a_bit_of_their_classification():
    rng = np.random.default_rng(0)
    engine = Engine(GoogLeNet(47, auxiliary=False), kind="torch", device="cpu")
    features = rng.gamma(0.5, 1, (150, 1024)).astype(np.float32)
    together = engine.classify(features)
    for count in (*range(1, 40), 64, 65, 128, 149):
        start = rng.integers(0, len(features) - count + 1)
        np.testing.assert_array_equal(
            engine.classify(features[start : start + count]), together[start : start + count], str(count)
        )


@pytest.mark.usefixtures("tiny_googlenet")
def test_the_network_is_copied_and_keeps_its_mode(crops):
    network = GoogLeNet(4, auxiliary=False)
    engine = Engine(network, kind="torch", device="cpu", batch_size=1)
    before = engine(crops[:1])
    assert network.training
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(engine(crops[:1]), before)


@pytest.mark.usefixtures("tiny_googlenet")
def test_moments_are_means_weighted_by_the_position_in_the_region(crops):
    torch.manual_seed(0)
    network = GoogLeNet(4, auxiliary=False).eval()
    engine = Engine(network, device="cpu", precision="float32", batch_size=2, moments=True)
    with torch.no_grad():
        maps = network.features(torch.from_numpy(crops).permute(0, 3, 1, 2).float()).numpy()  # [5, 64, 7, 7]
    positions = np.linspace(-1, 1, 7)
    x, y = np.meshgrid(positions, positions)
    expected = np.concatenate([(maps * weight).mean((2, 3)) for weight in (np.ones((7, 7)), x, y, x * x, y * y)], 1)
    features = engine.features(crops)
    assert features.shape == (5, engine.num_features) == (5, 5 * 64)
    np.testing.assert_allclose(features, expected, atol=1e-3 * np.abs(expected).max())
    assert engine.features(crops[:0]).shape == (0, 5 * 64)
    np.testing.assert_allclose(engine(crops), probabilities(network, crops), atol=1e-3)


def test_moments_of_one_active_cell_are_its_position():
    maps = torch.zeros(1, 1, 3, 3)
    maps[0, 0, 2, 0] = 9.0  # lower left: x = -1, y = 1; the mean over nine cells is 1
    assert SpatialMoments(3)(maps).tolist() == [[1.0, -1.0, 1.0, 1.0, 1.0]]


# --- arguments --------------------------------------------------------------------------------------------------------


def small_network() -> nn.Module:
    """Compiles at once: float RGB [N, 3, 32, 32] -> [N, 2]."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 2, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


SMALL_CROPS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def small_forward(batch_size: int, kind: Any = "openvino") -> CompiledForward:
    return CompiledForward(small_network(), kind=kind, device="cpu", batch_size=batch_size, size=32)


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or os.cpu_count() == 1, reason="needs several cores, and Linux to ask for them"
)
def test_openvino_does_not_bind_threads_to_a_core():
    forward = CompiledForward(small_network(), kind="openvino", device="cpu", batch_size=64, size=32, threads=1)
    crops = np.repeat(SMALL_CROPS[:1], 64, axis=0)
    everywhere, seen = os.sched_getaffinity(0), set()
    with ThreadPoolExecutor(1) as pool:
        thread = pool.submit(threading.get_native_id).result()
        running = pool.submit(lambda: [forward(crops) for _ in range(50)])
        while not running.done():
            seen.add(frozenset(os.sched_getaffinity(thread)))
    assert seen == {frozenset(everywhere)}


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_tensors_give_what_arrays_give(kind):
    forward = small_forward(2, kind)
    np.testing.assert_array_equal(forward(torch.from_numpy(SMALL_CROPS)), forward(SMALL_CROPS))


@pytest.mark.parametrize(
    "crops",
    [
        SMALL_CROPS.astype(np.float32),
        SMALL_CROPS[0],
        SMALL_CROPS[:, :20],
        SMALL_CROPS.transpose(0, 3, 1, 2),
        SMALL_CROPS[..., :1],
    ],
    ids=["float32", "one crop", "not square", "channels first", "grey"],
)
def test_other_arrays_are_refused_with_the_expected_shape(crops):
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 32, 32, 3\]"):
        small_forward(2)(crops)


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size is 0"):
        small_forward(0)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_threads_with_unequal_batches_get_what_one_thread_gets(kind):
    forward = small_forward(4, kind)
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (count, 32, 32, 3), np.uint8) for count in (1, 2, 3, 4, 5, 7, 9, 11)]
    expected = [forward(batch) for batch in batches]

    def repeat(number: int) -> list[np.ndarray]:
        return [forward(batches[number]) for _ in range(50)]

    with ThreadPoolExecutor(len(batches)) as pool:
        for outputs, right in zip(pool.map(repeat, range(len(batches))), expected, strict=True):
            for output in outputs:
                np.testing.assert_array_equal(output, right)


def test_threads_on_plain_torch_leave_cudnns_flags_as_they_were():
    allowed = torch.backends.cudnn.allow_tf32
    forwards = [small_forward(2, "torch") for _ in range(4)]
    seen = []

    def look(*_: Any) -> None:
        time.sleep(0.001 * (1 + len(seen) % 4))  # other threads end meanwhile
        seen.append(torch.backends.cudnn.allow_tf32)

    for forward in forwards:
        forward._forward._network.register_forward_pre_hook(look)  # type: ignore[union-attr]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda forward: [forward(SMALL_CROPS) for _ in range(5)], forwards))
    assert set(seen) == {False}
    assert torch.backends.cudnn.allow_tf32 == allowed


# --- lack of memory ---------------------------------------------------------------------------------------------------


class LimitedForward:
    """Stands for `OpenVINOForward`; fails if the batch size is above `limit`. Records the rows of each call."""

    def __init__(self, limit: int, error: Exception):
        self.limit, self.error = limit, error
        self.calls: list[int] = []

    def build(self, _: Any, batch: torch.Tensor, *__: Any) -> Any:
        def forward(rows: np.ndarray) -> np.ndarray:
            if len(batch) > self.limit:
                raise self.error
            self.calls.append(len(rows))
            return rows[:, 0, 0, :].astype(np.float32)

        return forward


# Messages of torch 2.15 and OpenVINO 2026.4.
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
    RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\n"
        "Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\n"
        "Failed to allocate 38535168 bytes of memory\n"
    ),
    MemoryError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["torch", "OpenVINO", "Python"])
def test_lack_of_memory_halves_the_batch_size_until_it_fits(monkeypatch, caplog, error):
    limited = LimitedForward(2, error)
    monkeypatch.setattr(engine_module, "OpenVINOForward", limited.build)
    forward = small_forward(8)
    rows = forward(SMALL_CROPS)
    np.testing.assert_array_equal(rows, SMALL_CROPS[:, 0, 0])
    assert forward.batch_size == 2
    assert limited.calls == [2, 2, 1]
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "cpu has too little memory for batches of 8 regions",
        "cpu has too little memory for batches of 4 regions",
    ]
    assert "llocate" in caplog.messages[0] or "bad_alloc" in caplog.messages[0]
    assert {(record.name, record.levelname) for record in caplog.records} == {("inception_rcnn", "WARNING")}


def test_lack_of_memory_while_compiling_halves_the_batch_size_too(monkeypatch, caplog):
    def build(_: Any, batch: torch.Tensor, *__: Any) -> Any:
        if len(batch) > 3:
            raise MemoryError("std::bad_alloc")
        return lambda rows: rows[:, 0, 0, :].astype(np.float32)

    monkeypatch.setattr(engine_module, "OpenVINOForward", build)
    forward = small_forward(7)
    assert "continuing with batches of 3" in caplog.text
    np.testing.assert_array_equal(forward(SMALL_CROPS), SMALL_CROPS[:, 0, 0])


def test_no_memory_for_a_single_region_is_an_engine_error(monkeypatch):
    monkeypatch.setattr(engine_module, "OpenVINOForward", LimitedForward(0, OUT_OF_MEMORY[1]).build)
    with pytest.raises(EngineError, match=r"single region \(Failed to allocate 38535168 bytes of memory\)"):
        small_forward(8)(SMALL_CROPS)


def test_other_errors_are_raised_unchanged(monkeypatch):
    monkeypatch.setattr(engine_module, "OpenVINOForward", LimitedForward(0, RuntimeError("shape mismatch")).build)
    with pytest.raises(RuntimeError, match=r"^shape mismatch$"):
        small_forward(8)(SMALL_CROPS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_openvinos_own_error_is_recognised_as_lack_of_memory():
    code = """if True:
        import resource
        import numpy as np
        from torch import nn
        from inception_rcnn.detection.engines.engine import CompiledForward
        CompiledForward(nn.Conv2d(3, 2, 1), kind="openvino")  # loads the libraries, which need address space
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
        forward = CompiledForward(nn.Conv2d(3, 512, 1), kind="openvino", precision="float32", batch_size=16, threads=1)
        assert forward(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 512, 224, 224)  # 103 MB
        print(forward.batch_size)
    """
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 16  # the result for 16 rows alone takes 1.6 GB


@pytest.mark.usefixtures("tiny_googlenet")
def test_outputs_of_a_class_are_added():
    torch.manual_seed(0)
    network = GoogLeNet(5, auxiliary=False).eval()
    crops = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    plain = Engine(network, kind="torch", device="cpu")
    summed = Engine(network, kind="torch", device="cpu", columns=np.array([0, 2, 0, 1, 2]))
    outputs = plain(crops)
    expected = np.stack([outputs[:, 0] + outputs[:, 2], outputs[:, 3], outputs[:, 1] + outputs[:, 4]], axis=1)
    np.testing.assert_allclose(summed(crops), expected, rtol=1e-6)
    assert summed.num_classes == 3
    np.testing.assert_array_equal(summed.outputs(summed.features(crops)), outputs)
