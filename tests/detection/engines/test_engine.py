"""Engines against plain torch, and what they promise besides."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.engines import engine as engine_module
from inception_rcnn.detection.engines.choice import EngineError, choose, resolve_device
from inception_rcnn.detection.engines.engine import CompiledForward, Engine
from inception_rcnn.detection.engines.quantisation import measure_input_ranges
from inception_rcnn.detection.networks.backbones import TorchvisionGoogLeNet, with_classes

CROPS = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), np.uint8)


@pytest.fixture(scope="module")
def model() -> GoogLeNet:
    torch.manual_seed(0)
    network = GoogLeNet(4, auxiliary=False).eval()
    with torch.no_grad():  # logits of a few units, so that a tolerance of probabilities says something
        features = network.features(torch.from_numpy(CROPS).permute(0, 3, 1, 2).float()).mean((2, 3))
        network.classifier.weight.mul_(3 / network.classifier(features).std())
    return network


@pytest.fixture(scope="module")
def engine(model) -> Engine:
    return Engine(model, device="cpu", batch_size=2)


def reference(model, crops) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(model(torch.from_numpy(crops).permute(0, 3, 1, 2).float()), 1).numpy()


class Tiny(nn.Module):
    """A network that compiles at once: float RGB [N, 3, H, W] -> [N, 2]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = nn.Conv2d(3, 2, 5, stride=4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layer(pixels / 255).relu().mean((2, 3))


def tiny_reference() -> np.ndarray:
    with torch.no_grad():
        return Tiny()(torch.from_numpy(CROPS).permute(0, 3, 1, 2).float()).numpy()


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_float32_engine_equals_the_plain_network(model, kind):
    engine = Engine(model, kind=kind, device="cpu", precision="float32", batch_size=2)
    np.testing.assert_allclose(engine(CROPS), reference(model, CROPS), atol=1e-4)


def test_default_engine_stays_within_the_stated_tolerance(model, engine):
    assert np.abs(engine(CROPS) - reference(model, CROPS)).max() < 0.03


def test_8_bit_engine_stays_within_the_stated_tolerance(model):
    engine = Engine(model, kind="openvino-int8", batch_size=2)
    assert "int8" in engine.description
    difference = np.abs(engine(CROPS) - reference(model, CROPS)).max()
    assert 1e-4 < difference < 0.1  # below, nothing would have been rounded


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_torch_in_half_precision_stays_within_the_stated_tolerance(model, precision):
    engine = Engine(model, kind="torch", device="cpu", precision=precision, batch_size=2)
    difference = np.abs(engine(CROPS[:2]) - reference(model, CROPS[:2])).max()
    assert 0 < difference < 0.03


def test_compiled_torch_equals_the_plain_network(monkeypatch):
    # Traced as for a GPU, but without the minutes of C++ that torch would compile for this CPU.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    forward = CompiledForward(Tiny(), kind="torch-compiled", device="cpu", precision="float32", batch_size=2)
    assert forward.description == "compiled torch on CPU, float32"
    np.testing.assert_allclose(forward(CROPS), tiny_reference(), atol=1e-5)


def test_where_torch_compile_fails_the_network_runs_all_the_same(monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no C compiler")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.warns(RuntimeWarning, match="no C compiler"):
        forward = CompiledForward(Tiny(), kind="torch-compiled", device="cpu", precision="float32", batch_size=2)
    assert forward.description == "torch on CPU, float32"
    np.testing.assert_allclose(forward(CROPS), tiny_reference(), atol=1e-5)


def test_torchvisions_network_runs_too():
    network = with_classes(TorchvisionGoogLeNet(), 3).eval()
    engine = Engine(network, device="cpu", precision="float32", batch_size=2)
    np.testing.assert_allclose(engine(CROPS[:2]), reference(network, CROPS[:2]), atol=1e-4)


def test_rows_are_probabilities(engine):
    probabilities = engine(CROPS)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (5, 4)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_tensors_give_what_arrays_give(kind):
    forward = CompiledForward(Tiny(), kind=kind, device="cpu", batch_size=2)
    np.testing.assert_array_equal(forward(torch.from_numpy(CROPS)), forward(CROPS))


@pytest.mark.parametrize("how", [{}, {"precision": "float32"}, {"kind": "openvino-int8"}])
def test_rows_do_not_depend_on_their_company_by_a_single_bit(model, how):
    engine = Engine(model, device="cpu", batch_size=2, **how)
    together = engine(CROPS)
    for row in range(len(CROPS)):
        np.testing.assert_array_equal(engine(CROPS[row : row + 1])[0], together[row])
    np.testing.assert_array_equal(engine(CROPS[::-1])[::-1], together)


@pytest.mark.parametrize("other", [{"threads": 1}, {"batch_size": 3}])
def test_neither_threads_nor_batch_size_change_a_bit(model, engine, other):
    again = Engine(model, **{"device": "cpu", "batch_size": 2, **other})
    np.testing.assert_array_equal(again(CROPS), engine(CROPS))


def test_classifying_more_or_fewer_rows_together_changes_not_a_bit():
    rng = np.random.default_rng(0)
    engine = Engine(GoogLeNet(47, auxiliary=False), kind="torch", device="cpu")
    features = rng.gamma(0.5, 1, (150, 1024)).astype(np.float32)
    together = engine.classify(features)
    for count in (*range(1, 40), 64, 65, 128, 149):
        start = rng.integers(0, len(features) - count + 1)
        np.testing.assert_array_equal(
            engine.classify(features[start : start + count]), together[start : start + count], str(count)
        )


def test_no_crops_give_no_rows(engine):
    assert engine(CROPS[:0]).shape == (0, 4)


def test_the_network_is_copied_and_left_as_it_was(model):
    model.train()
    engine = Engine(model, device="cpu", batch_size=1)
    before = engine(CROPS[:1])
    assert model.training
    saved = model.classifier.weight.detach().clone()
    with torch.no_grad():
        model.classifier.weight.zero_()
    np.testing.assert_array_equal(engine(CROPS[:1]), before)
    with torch.no_grad():
        model.classifier.weight.copy_(saved)
    model.eval()


@pytest.mark.parametrize(
    "crops", [CROPS.astype(np.float32), CROPS[0], CROPS[:, :200], CROPS.transpose(0, 3, 1, 2), CROPS[..., :1]]
)
def test_other_arrays_are_refused_with_what_was_expected(engine, crops):
    with pytest.raises(ValueError, match=r"expected uint8 \[N, 224, 224, 3\]"):
        engine(crops)


def test_a_batch_size_below_one_is_refused(model):
    with pytest.raises(ValueError, match="batch_size is 0"):
        Engine(model, batch_size=0)


# --- the choice -------------------------------------------------------------------------------------------------------


def test_auto_says_what_it_chose_and_why(engine):
    assert engine.description.startswith("OpenVINO on CPU, ")
    assert engine.reason.startswith("the fastest engine for CPUs; cpu was asked for; the device computes with")


@pytest.mark.parametrize(
    ("gpu", "cpu_bfloat16", "gpu_bfloat16", "asked", "kind", "device", "precision"),
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
def test_choice_on_other_machines(monkeypatch, gpu, cpu_bfloat16, gpu_bfloat16, asked, kind, device, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bfloat16)
    monkeypatch.setattr("inception_rcnn.detection.engines.choice.cpu_computes_bfloat16", lambda: cpu_bfloat16)
    choice = choose(**asked)
    assert (choice.kind, choice.device, choice.precision) == (kind, device, precision)


def test_an_unknown_engine_or_device_is_refused():
    with pytest.raises(EngineError, match=r"'tensorrt'.*auto, openvino, openvino-int8, torch-compiled, torch"):
        choose("tensorrt")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="'auto', 'cpu', 'cuda'"):
        resolve_device("tpu")


def test_openvino_on_a_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(EngineError, match="runs on CPUs, not on cuda:0; use --engine torch-compiled"):
        choose("openvino", "cuda:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without a GPU is meant")
def test_a_gpu_that_is_not_there_is_said_with_the_remedy(model):
    with pytest.raises(EngineError, match="--device cpu"):
        Engine(model, device="cuda")


# --- memory runs out --------------------------------------------------------------------------------------------------


class Cramped:
    """A forward pass that fails with more than `room` rows; it counts the rows of those that worked."""

    def __init__(self, room: int, error: Exception):
        self.room, self.error = room, error
        self.sizes: list[int] = []

    def build(self, _: Any, shape: Any, *__: Any) -> Any:
        def forward(rows: np.ndarray) -> np.ndarray:
            if shape[0] > self.room:
                raise self.error
            self.sizes.append(len(rows))
            return rows[:, 0, 0, :].astype(np.float32)

        return forward


# As torch 2.15 and OpenVINO 2026.4 say it.
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has ..."),
    RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:117:\nException from src/inference/src/dev/plugin.cpp:54:\n"
        "Check 'ptr' failed at src/plugins/intel_cpu/src/cpu_memory.cpp:257:\n"
        "Failed to allocate 38535168 bytes of memory\n"
    ),
    MemoryError("std::bad_alloc"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch, error):
    cramped = Cramped(2, error)
    monkeypatch.setattr(engine_module, "OpenVINOForward", cramped.build)
    forward = CompiledForward(Tiny(), kind="openvino", batch_size=8)
    with pytest.warns(RuntimeWarning) as warned:
        got = forward(CROPS)
    np.testing.assert_array_equal(got, CROPS[:, 0, 0])
    assert forward.batch_size == 2
    assert cramped.sizes == [2, 2, 1]
    assert [str(one.message).split(" (")[0] for one in warned] == [
        "cpu has too little memory for 8 regions at a time",
        "cpu has too little memory for 4 regions at a time",
    ]
    assert "llocate" in str(warned[0].message) or "bad_alloc" in str(warned[0].message)


def test_out_of_memory_while_compiling_halves_the_batch_too(monkeypatch):
    def build(_: Any, shape: Any, *__: Any) -> Any:
        if shape[0] > 3:
            raise MemoryError("std::bad_alloc")
        return lambda rows: rows[:, 0, 0, :].astype(np.float32)

    monkeypatch.setattr(engine_module, "OpenVINOForward", build)
    with pytest.warns(RuntimeWarning, match="going on with 3"):
        forward = CompiledForward(Tiny(), kind="openvino", batch_size=7)
    np.testing.assert_array_equal(forward(CROPS), CROPS[:, 0, 0])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_memory_for_a_single_region_is_an_engine_error(monkeypatch):
    monkeypatch.setattr(engine_module, "OpenVINOForward", Cramped(0, OUT_OF_MEMORY[1]).build)
    forward = CompiledForward(Tiny(), kind="openvino", batch_size=8)
    with pytest.raises(EngineError, match=r"single region \(Failed to allocate 38535168 bytes of memory\)"):
        forward(CROPS)


def test_other_errors_are_passed_on(monkeypatch):
    monkeypatch.setattr(engine_module, "OpenVINOForward", Cramped(0, RuntimeError("shape mismatch")).build)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        CompiledForward(Tiny(), kind="openvino", batch_size=8)(CROPS)


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own address space")
def test_openvinos_own_error_is_recognised_as_lack_of_memory():
    code = """if True:
        import resource, warnings
        import numpy as np
        from torch import nn
        from inception_rcnn.detection.engines.engine import CompiledForward
        warnings.simplefilter("ignore")
        CompiledForward(nn.Conv2d(3, 2, 1), kind="openvino")  # what libraries take for themselves
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
        forward = CompiledForward(nn.Conv2d(3, 512, 1), kind="openvino", precision="float32", batch_size=16, threads=1)
        assert forward(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 512, 224, 224)  # 103 MB
        print(forward.batch_size)
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 16  # for which the result alone takes 1.6 GB


# --- 8 bits -----------------------------------------------------------------------------------------------------------


def test_ranges_are_the_largest_inputs_of_convolutions_without_negative_ones(model):
    ranges = measure_input_ranges(model, CROPS[:2])
    assert "trunk.conv1.convolution" not in ranges  # pixels less their mean
    convolutions = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(ranges) == sorted(set(convolutions) - {"trunk.conv1.convolution"})
    with torch.no_grad():
        pixels = torch.from_numpy(CROPS[:2]).permute(0, 3, 1, 2).float()
        into_conv2 = model.trunk[:4](model.normalise(pixels))
    assert ranges["trunk.conv2.convolution"] == pytest.approx(float(into_conv2.max()))


def test_signed_inputs_of_the_separable_stem_stay_as_they_are():
    ranges = measure_input_ranges(GoogLeNet(3, stem="separable", auxiliary=False), CROPS[:1])
    assert not any("conv1." in name for name in ranges)
    assert "trunk.conv2_reduce.convolution" in ranges


# --- GPU --------------------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_gpu
def test_gpu_engine_stays_within_the_stated_tolerance(model):
    engine = Engine(model, device="cuda", batch_size=2)
    assert engine.description.startswith("compiled torch on ")
    assert np.abs(engine(CROPS) - reference(model, CROPS)).max() < 0.03


@needs_gpu
def test_gpu_float32_equals_the_plain_network(model):
    for kind in ("torch", "torch-compiled"):
        engine = Engine(model, kind=kind, device="cuda", precision="float32", batch_size=2)
        np.testing.assert_allclose(engine(CROPS), reference(model, CROPS), atol=1e-4)


@needs_gpu
def test_gpu_rows_of_one_call_do_not_overwrite_those_of_another(model):
    engine = Engine(model, device="cuda", batch_size=2)
    first = engine(torch.from_numpy(CROPS).cuda())
    kept = first.copy()
    engine(CROPS[::-1])
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(engine(CROPS), kept, atol=1e-5)


def test_moments_are_means_weighted_by_the_place_in_the_region(model):
    engine = Engine(model, device="cpu", precision="float32", moments=True)
    with torch.no_grad():
        maps = model.features(torch.from_numpy(CROPS).permute(0, 3, 1, 2).float()).numpy()  # [5, 1024, 7, 7]
    place = np.linspace(-1, 1, 7)
    x, y = np.meshgrid(place, place)
    expected = np.concatenate([(maps * weight).mean((2, 3)) for weight in (np.ones((7, 7)), x, y, x * x, y * y)], 1)
    features = engine.features(CROPS)
    assert features.shape == (5, engine.num_features)
    np.testing.assert_allclose(features, expected, atol=1e-3 * np.abs(expected).max())
    assert engine.features(CROPS[:0]).shape == (0, 5 * 1024)
    np.testing.assert_allclose(engine(CROPS), reference(model, CROPS), atol=1e-3)
