"""Fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of the tests, networks compiled for them above all, are kept apart from those of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data (photographs, weights, official answers), which is no part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("INCEPTION_RCNN_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"needs real data: {folder} is not there (INCEPTION_RCNN_SHARED names another folder)")
    return folder


@pytest.fixture
def tiny_googlenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `GoogLeNet` sixteen times as narrow: the same blocks, names and files, 64 features, 1/100 of the work.

    For tests of what happens around a network: checkpoints, files, batches, reports.
    """
    _narrow_googlenet(monkeypatch)


@pytest.fixture(scope="module")
def tiny_googlenet_in_module() -> Iterator[None]:
    """`tiny_googlenet` for a whole module, whose tests share trained networks."""
    with pytest.MonkeyPatch.context() as patch:
        _narrow_googlenet(patch)
        yield


def _narrow_googlenet(patch: pytest.MonkeyPatch) -> None:
    from inception_rcnn.detection.networks import googlenet

    def narrow(widths: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(width // 16 or 1 for width in widths)

    narrow_modules = {name: narrow(widths) for name, widths in googlenet._INCEPTION_WIDTHS.items()}
    patch.setattr(googlenet, "_STEM_WIDTHS", narrow(googlenet._STEM_WIDTHS))
    patch.setattr(googlenet, "_INCEPTION_WIDTHS", narrow_modules)
    patch.setattr(googlenet.GoogLeNet, "out_channels", 64)


@pytest.fixture(scope="module")
def uncompiled_networks() -> Iterator[None]:
    """Runs networks with plain torch unless a test names an engine: OpenVINO takes seconds to compile each network."""
    from inception_rcnn.detection.engines import engine
    from inception_rcnn.detection.engines.choice import Choice, Kind, Precision, choose

    def choose_torch(kind: Kind = "auto", device: str = "auto", precision: Precision = "auto") -> Choice:
        return choose("torch" if kind == "auto" else kind, device, precision)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "choose", choose_torch)
        yield
