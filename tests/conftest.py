"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data (photographs, weights, official answers), which is no part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("INCEPTION_RCNN_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"needs real data: {folder} is not there (INCEPTION_RCNN_SHARED names another folder)")
    return folder
