"""The cache folders of the user."""

import sys
from pathlib import Path

import pytest

from inception_rcnn.runtime.user_cache import user_cache


@pytest.mark.skipif(sys.platform != "linux", reason="macOS and Windows use other folders")
def test_caches_are_in_xdg_cache_home_or_in_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache("networks") == tmp_path / "inception_rcnn" / "networks"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert user_cache("networks") == tmp_path / "home" / ".cache" / "inception_rcnn" / "networks"
