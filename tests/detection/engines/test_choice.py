"""Which engine is chosen on which machine, and which requests are refused."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch

from inception_rcnn.detection.engines.choice import EngineError, choose, resolve_device

RANGES = [{"trunk.conv2.convolution": 800.0}]


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
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bfloat16)
    monkeypatch.setattr("inception_rcnn.detection.engines.choice.cpu_computes_bfloat16", lambda: cpu_bfloat16)
    choice = choose(**requested)
    assert (choice.kind, choice.device, choice.precision) == (kind, device, precision)


@pytest.mark.parametrize(
    ("gpu", "cpu", "requested", "kind"),
    [
        (False, "AVX512", {"ranges": RANGES}, "openvino-int8"),
        (False, "AVX2", {"ranges": RANGES}, "openvino-int8"),
        (False, "AVX2", {}, "openvino"),
        (False, "AVX2", {"ranges": [*RANGES, {}]}, "openvino"),  # a network without ranges
        (False, "DEFAULT", {"ranges": RANGES}, "openvino"),  # not measured, such as ARM
        (False, "AVX2", {"ranges": RANGES, "kind": "openvino"}, "openvino"),
        (True, "AVX2", {"ranges": RANGES}, "torch-compiled"),
        (True, "AVX2", {"ranges": RANGES, "device": "cpu"}, "openvino-int8"),
    ],
)
def test_8_bits_are_the_default_only_where_they_are_allowed_and_faster(monkeypatch, gpu, cpu, requested, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    assert choose(**requested).kind == kind


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
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr("inception_rcnn.detection.engines.choice.cpu_computes_bfloat16", lambda: False)
    assert choose(**requested).reason.startswith(reason)


def test_an_unknown_engine_is_refused():
    with pytest.raises(EngineError, match=r"'tensorrt'.*auto, openvino, openvino-int8, torch-compiled, torch"):
        choose("tensorrt")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["tpu", "", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:0:1", "cuda:01", "cuda:٣"])
def test_an_unknown_device_is_refused(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EngineError, match="expected 'auto', 'cpu', 'cuda' or 'cuda:N'"):
        resolve_device(device)


def test_messages_do_not_quote_long_arguments():
    for refused in (lambda: resolve_device("x" * 300_000), lambda: choose("x" * 300_000)):  # type: ignore[arg-type]
        with pytest.raises(EngineError) as caught:
            refused()
        assert len(str(caught.value)) < 300


def test_openvino_on_a_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EngineError, match="runs on CPUs, not on cuda; use --engine torch-compiled"):
        choose("openvino", "cuda")


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == "cuda:1"
    with pytest.raises(EngineError, match=r"'cuda:2' was requested, but torch finds 2 GPU\(s\), cuda:0 to cuda:1"):
        resolve_device("cuda:2")


def test_the_precision_is_that_of_the_chosen_gpu(monkeypatch):
    current = [0]

    class Current(AbstractContextManager):
        def __init__(self, device):
            self.number = int(device.split(":")[1])

        def __enter__(self):
            current.append(self.number)

        def __exit__(self, *_):
            current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", Current)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[-1] == 1)
    assert [choose(device=f"cuda:{number}").precision for number in (0, 1)] == ["float16", "bfloat16"]


def test_a_missing_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="'cuda' was requested, but torch finds no GPU; use --device cpu"):
        choose(device="cuda")
