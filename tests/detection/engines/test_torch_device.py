"""Networks that torch runs, compiled and plain, on a CPU and on a GPU."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn.detection.engines.engine import CompiledForward, Engine

SIZE = 32
SMALL_CROPS = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def small_network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 2, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def small_reference() -> np.ndarray:
    with torch.no_grad():
        return small_network()(torch.from_numpy(SMALL_CROPS).permute(0, 3, 1, 2).float()).numpy()


def compiled_small_network() -> CompiledForward:
    return CompiledForward(
        small_network(), kind="torch-compiled", device="cpu", precision="float32", batch_size=2, size=SIZE
    )


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_torch_in_half_precision_stays_within_the_stated_tolerance(model, crops, reference, precision):
    engine = Engine(model, kind="torch", device="cpu", precision=precision, batch_size=2)
    difference = np.abs(engine(crops[:2]) - reference[:2]).max()
    assert 0 < difference < 0.03


def test_compiled_torch_equals_the_plain_network(monkeypatch):
    # torch traces the network as for a GPU, without the minutes of C++ compilation for a CPU.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    forward = compiled_small_network()
    assert forward.description == "compiled torch on CPU, float32"
    np.testing.assert_allclose(forward(SMALL_CROPS), small_reference(), rtol=1e-5)


@pytest.mark.parametrize("message", ["no C compiler", ""])
def test_the_network_runs_uncompiled_if_torch_compile_fails(monkeypatch, caplog, message):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(message)

    monkeypatch.setattr(torch, "compile", fail)
    forward = compiled_small_network()
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("inception_rcnn", "WARNING")
    assert f"runs uncompiled on cpu, which is slower (OSError: {message})" in record.message
    assert forward.description == "torch on CPU, float32"
    np.testing.assert_allclose(forward(SMALL_CROPS), small_reference(), rtol=1e-5)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
def test_gpu_engine_stays_within_the_stated_tolerance(model, crops, reference):
    engine = Engine(model, device="cuda", batch_size=2)
    assert engine.description.startswith("compiled torch on ")
    assert np.abs(engine(crops) - reference).max() < 0.03


@needs_gpu
@pytest.mark.parametrize("kind", ["torch", "torch-compiled"])
def test_gpu_float32_equals_the_plain_network(model, crops, reference, kind):
    engine = Engine(model, kind=kind, device="cuda", precision="float32", batch_size=2)
    np.testing.assert_allclose(engine(crops), reference, atol=1e-4)


@needs_gpu
def test_gpu_rows_of_one_call_do_not_overwrite_those_of_another(model, crops):
    engine = Engine(model, device="cuda", batch_size=2)
    first = engine(torch.from_numpy(crops).cuda())
    copy = first.copy()
    engine(crops[::-1])
    np.testing.assert_array_equal(first, copy)
    np.testing.assert_allclose(engine(crops), copy, atol=1e-5)
