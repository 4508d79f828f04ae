"""Fixtures for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"),
    *("--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom"),
)


@pytest.fixture(scope="session")
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[str, list[str]]]:
    """Opens a page in a headless browser: the document after its scripts have run, and the messages on the console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    profile = tmp_path_factory.mktemp("profile")

    def open_page(file: Path) -> tuple[str, list[str]]:
        command = [browser, *BROWSER_FLAGS, f"--user-data-dir={profile}", file.as_uri()]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        return run.stdout, [line for line in run.stderr.splitlines() if "CONSOLE" in line]

    return open_page


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives the tests a cache folder of their own, mainly for compiled networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data (photographs, weights, official results), which is not part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("INCEPTION_RCNN_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"requires real data: {folder} does not exist (set INCEPTION_RCNN_SHARED to another folder)")
    return folder


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a folder in fsspec's memory file system: pictures (empty, damaged, hidden, valid) and a text."""
    files = fsspec.filesystem("memory")
    for number, name in enumerate(["b.png", "a.JPG", "notes.txt", ".hidden.png", "deep/c.png"]):
        files.pipe(f"/bucket/{name}", bytes(number))
    with files.open("/bucket/red.png", "wb") as stream:
        Image.new("RGB", (3, 2), (255, 0, 0)).save(stream, "PNG")
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.fixture
def tiny_googlenet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divides the channels of `GoogLeNet` by 16: the same layers and names, 64 features, 1/100 of the computation.

    For tests of checkpoints, files, batches and reports, which do not depend on the size of the network.
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
    with pytest.MonkeyPatch.context() as patch:
        _choose_plain_torch(patch)
        yield


def _choose_plain_torch(patch: pytest.MonkeyPatch) -> None:
    from inception_rcnn.detection.engines import engine
    from inception_rcnn.detection.engines.choice import Choice, Kind, Precision, choose

    def choose_torch(kind: Kind = "auto", device: str = "auto", precision: Precision = "auto") -> Choice:
        return choose("torch" if kind == "auto" else kind, device, precision)

    patch.setattr(engine, "choose", choose_torch)
