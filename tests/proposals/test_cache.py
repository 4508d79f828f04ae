"""The cache of proposals: computed once per image content and settings."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.images import ImageError, read_image
from inception_rcnn.proposals import cache
from inception_rcnn.proposals.cache import ProposalCache, RegionCache
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
    with RegionCache(tmp_path / "new" / "cache.sqlite", propose, "settings") as proposals_of:
        first = proposals_of(image)
    with RegionCache(tmp_path / "new" / "cache.sqlite", propose, "settings") as proposals_of:
        again = proposals_of(copy)
    assert propose.calls == 1
    assert first.boxes.tolist() == again.boxes.tolist() == [[1, 2, 3, 255]]
    assert again.scores.tolist() == [0.5]
    assert again.source.tolist() == [Source.MULTIBOX]
    assert (None if again.quality is None else again.quality.tolist()) == (None if quality is None else [quality])
    again.boxes[0, 0] = 9  # the arrays can be written to


@pytest.mark.parametrize("changed", ["image", "settings", "source", "opencv", "pillow"])
def test_another_image_setting_source_or_library_is_proposed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    image = write_image(tmp_path / "a.png", (1, 2, 3))
    propose = Propose()
    cache._source_digest.cache_clear()
    with RegionCache(tmp_path / "cache.sqlite", propose, "a") as proposals_of:
        proposals_of(image)
    if changed == "image":
        write_image(image, (4, 5, 6))
    if changed == "source":
        monkeypatch.setattr(cache, "_source_digest", lambda: "other")
    if changed in ("opencv", "pillow"):
        monkeypatch.setattr(cache.cv2 if changed == "opencv" else cache.PIL, "__version__", "0.0")
        cache._source_digest.cache_clear()
    with RegionCache(tmp_path / "cache.sqlite", propose, "b" if changed == "settings" else "a") as proposals_of:
        assert proposals_of(image).boxes[0, 0] == (4 if changed == "image" else 1)
    assert propose.calls == 2
    monkeypatch.undo()
    cache._source_digest.cache_clear()


def test_an_unreadable_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with RegionCache(tmp_path / "cache.sqlite", Propose(), "a") as proposals_of, pytest.raises(ImageError):
        proposals_of(tmp_path / "a.png")


def test_a_missing_image_is_an_error(tmp_path: Path) -> None:
    with (
        RegionCache(tmp_path / "cache.sqlite", Propose(), "a") as proposals_of,
        pytest.raises(ImageError, match="none"),
    ):
        proposals_of(tmp_path / "none.png")


def edited(sql: str) -> Callable[[Path], None]:
    """Runs an SQL statement on the cache file."""

    def edit(file: Path) -> None:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute(sql)

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        edited("update proposals set boxes = x'00'"),
        edited("update proposals set boxes = x''"),
        edited("update proposals set boxes = 'text'"),
        edited("update proposals set boxes = 5"),
        edited("update proposals set boxes = zeroblob(length(boxes))"),
        edited("update proposals set boxes = scores, scores = boxes"),
        edited("update proposals set source = x'07'"),
        edited("update proposals set quality = scores"),
        edited("update proposals set hash = 'text'"),
        edited("alter table proposals drop column scores"),
        edited("drop table proposals"),
        edited("create table other (a)"),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"x" * 5000),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
        lambda file: file.write_bytes(file.read_bytes()[:100] + b"x" * 4000 + file.read_bytes()[4100:]),
        lambda file: file.with_name(file.name + "-wal").write_bytes(b"x" * 5000),
    ],
)
def test_a_damaged_cache_gives_the_right_proposals_and_is_repaired(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    image, file, propose = write_image(tmp_path / "a.png", (1, 2, 3)), tmp_path / "cache.sqlite", Propose()
    with RegionCache(file, propose, "a") as proposals_of:
        proposals_of(image)
    damage(file)
    for _ in range(2):
        with RegionCache(file, propose, "a") as proposals_of:
            found = proposals_of(image)
            assert (found.boxes.tolist(), found.scores.tolist(), found.source.tolist()) == (
                [[1, 2, 3, 255]],
                [0.5],
                [1],
            )
            assert found.quality is None
    assert propose.calls <= 2  # The cache works again after the damage.


def test_a_damaged_cache_is_named_in_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "cache.sqlite"
    file.write_bytes(b"x" * 5000)
    with RegionCache(file, Propose(), "a"):
        assert f"{file}: the cache of proposals is damaged and is made anew" in caplog.text


def test_proposals_of_one_image_are_never_used_for_another(tmp_path: Path) -> None:
    first, second = write_image(tmp_path / "a.png", (1, 2, 3)), write_image(tmp_path / "b.png", (4, 5, 6))
    file = tmp_path / "cache.sqlite"
    with RegionCache(file, Propose(), "a") as proposals_of:
        proposals_of(first), proposals_of(second)
    with closing(sqlite3.connect(file)) as database, database:
        (a, *one), (b, *two) = database.execute("select * from proposals").fetchall()
        database.execute("delete from proposals")
        database.executemany("insert into proposals values (?, ?, ?, ?, ?, ?)", [(a, *two), (b, *one)])
    with RegionCache(file, Propose(), "a") as proposals_of:
        assert [proposals_of(image).boxes[0, 0] for image in (first, second)] == [1, 4]


def test_proposals_are_computed_where_the_cache_cannot_be_written(tmp_path: Path, caplog) -> None:
    image, file = write_image(tmp_path / "a.png", (1, 2, 3)), tmp_path / "cache.sqlite"
    with RegionCache(file, Propose(), "a") as proposals_of:
        proposals_of._database.execute("pragma query_only = on")
        assert proposals_of(image).boxes[0, 0] == 1
    assert f"{file}: cannot write to the cache of proposals" in caplog.text


def test_a_folder_in_place_of_the_cache_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot open the cache"):
        RegionCache(tmp_path, Propose(), "a")


def test_selective_search_is_stored_under_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_image(tmp_path / "a.png", (1, 2, 3))
    searches: list[dict[str, object]] = []

    def search(pixels: np.ndarray, **settings: object) -> Proposals:
        searches.append(settings)
        return Proposals(np.array([[*pixels[0, 0], 255]], np.float32), np.array([0.5], np.float32))

    monkeypatch.setattr(cache, "selective_search", search)
    for min_side in (7, 7, 8):
        with ProposalCache(tmp_path / "cache.sqlite", min_side=min_side) as proposals_of:
            assert proposals_of(str(image)).boxes.tolist() == [[1, 2, 3, 255]]
    assert searches == [
        {"superpixel_scale": 2.0, "min_side": min_side, "connectivity": 4, "seed": 0} for min_side in (7, 8)
    ]
