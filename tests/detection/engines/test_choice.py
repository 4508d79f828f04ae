"""Which engine is chosen on which machine, and which requests are refused."""

from __future__ import annotations

import pytest
import torch

from inception_rcnn.detection.engines.choice import EngineError, choose, resolve_device


@pytest.mark.parametrize(
    ("gpu", "cpu_bfloat16", "gpu_bfloat16", "requested", "kind", "device", "precision"),
    [
        (False, True, None, {}, "openvino", "cpu", "bfloat16"),
        (False, False, None, {}, "openvino", "cpu", "float32"),
        (False, True, None, {"kind": "torch"}, "torch", "cpu", "float32"),
        (False, False, None, {"kind": "openvino-int8"}, "openvino-int8", "cpu", "float32"),
        (True, None, True, {}, "torch-compiled", "cuda", "bfloat16"),
        (True, None, False, {"device": "cuda:1"}, "torch-compiled", "cuda:1", "float16"),
        (True, None, True, {"kind": "torch"}, "torch", "cuda", "float32"),
        (True, True, None, {"device": "cpu"}, "openvino", "cpu", "bfloat16"),
        (True, True, None, {"kind": "openvino"}, "openvino", "cpu", "bfloat16"),
        (True, None, True, {"precision": "float32"}, "torch-compiled", "cuda", "float32"),
    ],
)
def test_each_machine_gets_its_fastest_engine(
    monkeypatch, gpu, cpu_bfloat16, gpu_bfloat16, requested, kind, device, precision
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bfloat16)
    monkeypatch.setattr("inception_rcnn.detection.engines.choice.cpu_computes_bfloat16", lambda: cpu_bfloat16)
    choice = choose(**requested)
    assert (choice.kind, choice.device, choice.precision) == (kind, device, precision)


@pytest.mark.parametrize(
    ("gpu", "requested", "reason"),
    [
        (False, {}, "the default engine for CPUs; torch finds no GPU; the device has no bfloat16 in hardware"),
        (True, {}, "the default engine for GPUs; torch finds a GPU; the device has bfloat16 in hardware"),
        (True, {"device": "cpu"}, "the default engine for CPUs; the CPU was requested; the device has no bfloat16"),
        (True, {"kind": "torch"}, "requested"),
    ],
)
def test_the_reason_names_the_device_and_its_precision(monkeypatch, gpu, requested, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("inception_rcnn.detection.engines.choice.cpu_computes_bfloat16", lambda: False)
    assert choose(**requested).reason.startswith(reason)


def test_an_unknown_engine_or_device_is_refused():
    with pytest.raises(EngineError, match=r"'tensorrt'.*auto, openvino, openvino-int8, torch-compiled, torch"):
        choose("tensorrt")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="'auto', 'cpu', 'cuda'"):
        resolve_device("tpu")


def test_openvino_on_a_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EngineError, match="runs on CPUs, not on cuda:0; use --engine torch-compiled"):
        choose("openvino", "cuda:0")


def test_a_missing_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="'cuda' was requested, but torch finds no GPU; use --device cpu"):
        choose(device="cuda")
