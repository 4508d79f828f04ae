"""The cache of proposals: computed once per image content and settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.images import ImageError
from inception_rcnn.proposals import cache
from inception_rcnn.proposals.cache import ProposalCache
from inception_rcnn.proposals.proposals import Proposals


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Replaces selective search by a stand-in that returns the colour of the first pixel; records the settings."""
    calls: list[dict[str, object]] = []

    def search(image: np.ndarray, **settings: object) -> Proposals:
        calls.append(settings)
        return Proposals(np.array([[*image[0, 0], 255]], np.float32), np.array([0.5], np.float32))

    monkeypatch.setattr(cache, "selective_search", search)
    return calls


def write_image(file: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (4, 4), colour).save(file)
    return file


def test_the_same_content_and_settings_are_searched_once(tmp_path: Path, searches: list[dict[str, object]]) -> None:
    image, copy = (write_image(tmp_path / name, (1, 2, 3)) for name in ("a.png", "b.png"))
    with ProposalCache(tmp_path / "new" / "cache.sqlite", min_side=7) as proposals_of:
        first = proposals_of(image)
    with ProposalCache(tmp_path / "new" / "cache.sqlite", min_side=7) as proposals_of:
        again = proposals_of(copy)
    assert searches == [{"superpixel_scale": 2.0, "min_side": 7, "connectivity": 4, "seed": 0}]
    assert first.boxes.tolist() == again.boxes.tolist() == [[1, 2, 3, 255]]
    assert again.scores.tolist() == [0.5]
    again.boxes[0, 0] = 9  # the arrays can be written to


@pytest.mark.parametrize("changed", ["image", "settings", "source"])
def test_another_image_setting_or_source_is_searched_anew(
    tmp_path: Path, searches: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    image = write_image(tmp_path / "a.png", (1, 2, 3))
    with ProposalCache(tmp_path / "cache.sqlite") as proposals_of:
        proposals_of(image)
    if changed == "image":
        write_image(image, (4, 5, 6))
    if changed == "source":
        monkeypatch.setattr(cache, "_source_digest", lambda: "other")
    with ProposalCache(tmp_path / "cache.sqlite", seed=1 if changed == "settings" else 0) as proposals_of:
        assert proposals_of(image).boxes[0, 0] == (4 if changed == "image" else 1)
    assert len(searches) == 2


def test_an_unreadable_image_is_an_error(tmp_path: Path, searches: list[dict[str, object]]) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with ProposalCache(tmp_path / "cache.sqlite") as proposals_of, pytest.raises(ImageError):
        proposals_of(tmp_path / "a.png")
