"""Compiled kernels are cached on disk, and damaged files of the cache are replaced."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

SOURCE = """
from inception_rcnn.runtime.compilation import kernel

@kernel
def double(number):
    return number + number
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "doubling.py"
    file.write_text(SOURCE)
    return file


def double(file: Path) -> Any:
    """The kernel, loaded as a new process would load it."""
    specification = importlib.util.spec_from_file_location("doubling", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.double


def cache_files(file: Path, suffix: str) -> list[Path]:
    return sorted(file.parent.rglob(f"*{suffix}"))


def test_a_kernel_is_compiled_once(file):
    first = double(file)
    assert first(21) == 42
    second = double(file)
    assert second(21) == 42
    assert (sum(first.stats.cache_hits.values()), sum(second.stats.cache_hits.values())) == (0, 1)


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "a bit", "gone"])
def test_a_damaged_file_is_replaced(file, suffix, damage):
    assert double(file)(21) == 42
    (damaged,) = cache_files(file, suffix)
    whole = damaged.read_bytes()
    middle = len(whole) // 2
    contents = {
        "empty": b"",
        "half": whole[:middle],
        "zeros": bytes(len(whole)),
        "a bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }
    if damage == "gone":
        damaged.unlink()
    else:
        damaged.write_bytes(contents[damage])
    assert double(file)(21) == 42
    again = double(file)
    assert again(21) == 42
    assert sum(again.stats.cache_hits.values()) == 1


def test_code_of_another_source_beside_a_new_index_is_not_used(file):
    assert double(file)(21) == 42
    (code,) = cache_files(file, ".nbc")
    old = code.read_bytes()
    file.write_text(SOURCE.replace("number + number", "number + 1 + number"))
    os.utime(file, (1, 1))
    assert double(file)(21) == 43
    code.write_bytes(old)  # as if the process had been killed before it replaced the code
    assert double(file)(21) == 43


def test_a_kernel_runs_if_nothing_can_be_cached(file, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert double(file)(21) == 42
    assert not cache_files(file, ".nbi")
