"""The cache of proposals: computed once per image content and settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.images import ImageError, read_image
from inception_rcnn.proposals import cache
from inception_rcnn.proposals.cache import ProposalCache
from inception_rcnn.proposals.proposals import Proposals, Source


class Propose:
    """A stand-in for a proposal method: one box that holds the colour of the first pixel."""

    def __init__(self, quality: float | None = None):
        self.calls = 0
        self.quality = None if quality is None else np.array([quality], np.float32)

    def __call__(self, path: Path) -> Proposals:
        self.calls += 1
        box = np.array([[*read_image(path)[0, 0], 255]], np.float32)
        return Proposals(box, np.array([0.5], np.float32), np.array([Source.MULTIBOX], np.uint8), self.quality)


def write_image(file: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (4, 4), colour).save(file)
    return file


@pytest.mark.parametrize("quality", [None, 0.25])
def test_the_same_content_and_settings_are_proposed_once(tmp_path: Path, quality: float | None) -> None:
    image, copy = (write_image(tmp_path / name, (1, 2, 3)) for name in ("a.png", "b.png"))
    propose = Propose(quality)
    with ProposalCache(tmp_path / "new" / "cache.sqlite", propose, "settings") as proposals_of:
        first = proposals_of(image)
    with ProposalCache(tmp_path / "new" / "cache.sqlite", propose, "settings") as proposals_of:
        again = proposals_of(copy)
    assert propose.calls == 1
    assert first.boxes.tolist() == again.boxes.tolist() == [[1, 2, 3, 255]]
    assert again.scores.tolist() == [0.5]
    assert again.source.tolist() == [Source.MULTIBOX]
    assert (None if again.quality is None else again.quality.tolist()) == (None if quality is None else [quality])
    again.boxes[0, 0] = 9  # the arrays can be written to


@pytest.mark.parametrize("changed", ["image", "settings", "source", "opencv"])
def test_another_image_setting_source_or_library_is_proposed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    image = write_image(tmp_path / "a.png", (1, 2, 3))
    propose = Propose()
    cache._source_digest.cache_clear()
    with ProposalCache(tmp_path / "cache.sqlite", propose, "a") as proposals_of:
        proposals_of(image)
    if changed == "image":
        write_image(image, (4, 5, 6))
    if changed == "source":
        monkeypatch.setattr(cache, "_source_digest", lambda: "other")
    if changed == "opencv":
        monkeypatch.setattr(cache.cv2, "__version__", "0.0")
        cache._source_digest.cache_clear()
    with ProposalCache(tmp_path / "cache.sqlite", propose, "b" if changed == "settings" else "a") as proposals_of:
        assert proposals_of(image).boxes[0, 0] == (4 if changed == "image" else 1)
    assert propose.calls == 2
    monkeypatch.undo()
    cache._source_digest.cache_clear()


def test_an_unreadable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with ProposalCache(tmp_path / "cache.sqlite", Propose(), "a") as proposals_of, pytest.raises(ImageError):
        proposals_of(tmp_path / "a.png")
