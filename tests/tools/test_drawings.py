"""The drawings of a run, from results that are made by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.run_state import Result
from inception_rcnn.tools import drawings as drawings_module
from inception_rcnn.tools.drawings import Drawings

IMAGE = np.full((60, 90, 3), 110, np.uint8)
FOUND = Detections(
    np.array([[5, 5, 40, 50], [50, 10, 80, 40]], np.float32),
    np.array([0.9, 0.4], np.float32),
    np.array([58, 58]),
    subclasses=np.array([0, -1]),
    categories=(Category(58, "n02084071", "dog"),),
    finest=(Subclass("n02111889", "Samoyed", 58),),
)


@pytest.fixture
def paths(tmp_path) -> list[Path]:
    """Two pictures of the same name, and a file that is no picture."""
    files = [tmp_path / name for name in ("a.png", "sub/a.png", "text.png")]
    files[1].parent.mkdir()
    for file in files[:2]:
        Image.fromarray(IMAGE).save(file)
    files[2].write_text("no picture")
    return files


def results() -> list[Result]:
    return [Result(0, 90, 60, FOUND, None), Result(1, 90, 60, FOUND, None), Result(2, 0, 0, None, "no picture")]


def make(tmp_path, paths, **options) -> tuple[Drawings, list[str]]:
    """Drawings, and the warnings that they print."""
    warnings: list[str] = []
    settings = {"least_score": 0.5, "finest_names": False, "on_written": lambda file: None, **options}
    return Drawings(tmp_path / "out" / "pictures", paths, **settings, warn=warnings.append), warnings


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)).astype(int)


def test_a_drawing_shows_the_detections_above_the_threshold(tmp_path, paths):
    drawings, warnings = make(tmp_path, paths)
    drawings.draw(1, IMAGE, FOUND)
    assert [file.name for file in drawings.folder.iterdir()] == ["a-2.jpg"]
    changed = np.abs(pixels(drawings.folder / "a-2.jpg") - IMAGE)
    assert changed[:, :45].max() > 60
    assert changed[30:, 48:].max() < 20  # the second detection is below the threshold
    assert warnings == []


def test_missing_drawings_are_completed_from_the_results(tmp_path, paths):
    drawings, warnings = make(tmp_path, paths)
    assert drawings.missing(results()) == [0, 1]
    drawings.draw(0, IMAGE, FOUND)
    assert drawings.missing(results()) == [1]
    later, _ = make(tmp_path, paths)  # in another process
    assert later.missing(results()) == [1]
    later.complete(results())
    assert later.missing(results()) == make(tmp_path, paths)[0].missing(results()) == []
    assert (drawings.folder / "a.jpg").read_bytes() == (drawings.folder / "a-2.jpg").read_bytes()
    assert warnings == []


def test_drawings_of_another_run_are_replaced(tmp_path, paths):
    before, _ = make(tmp_path, paths)
    before.complete(results())
    moved = replace(FOUND, boxes=FOUND.boxes + 5)
    other = [Result(0, 90, 60, moved, None), Result(1, 90, 60, FOUND, None)]
    drawings, _ = make(tmp_path, paths)
    assert drawings.missing(other) == [0]
    drawings.complete(other)
    assert (drawings.folder / "a.jpg").read_bytes() != (drawings.folder / "a-2.jpg").read_bytes()


def test_a_picture_that_was_read_can_be_read_again_whatever_its_size(tmp_path, paths, monkeypatch):
    limits = []
    monkeypatch.setattr(drawings_module, "read_image", lambda path, max_pixels: limits.append(max_pixels) or IMAGE)
    drawings, _ = make(tmp_path, paths)
    drawings.complete(results())
    assert limits == [90 * 60] * 2


@pytest.mark.parametrize("options", [{"least_score": 0.3}, {"finest_names": True}])
def test_other_settings_give_new_drawings(tmp_path, paths, options):
    before, _ = make(tmp_path, paths)
    before.complete(results())
    old = (before.folder / "a.jpg").read_bytes()
    drawings, _ = make(tmp_path, paths, **options)
    assert drawings.missing(results()) == [0, 1]
    drawings.complete(results())
    assert drawings.missing(results()) == []
    assert (before.folder / "a.jpg").read_bytes() != old


def test_a_damaged_drawing_is_written_again(tmp_path, paths):
    drawings, _ = make(tmp_path, paths)
    drawings.complete(results())
    (drawings.folder / "a.jpg").write_bytes(b"")
    assert make(tmp_path, paths)[0].missing(results()) == [0]


def test_a_picture_that_is_gone_is_a_warning(tmp_path, paths):
    paths[0].unlink()
    drawings, warnings = make(tmp_path, paths)
    drawings.complete(results())
    assert [file.name for file in drawings.folder.iterdir()] == ["a-2.jpg"]
    assert len(warnings) == 1
    assert "a.png: its drawing cannot be written: No such file" in warnings[0]


@pytest.mark.parametrize(
    ("error", "count"),
    [
        (OSError("encoder error -2 when writing image file"), 2),
        (OSError(36, "File name too long"), 2),
        (ValueError("Maximum supported image dimension is 65500 pixels"), 2),
        (OSError(28, "No space left on device"), 1),  # a full disk: no more drawings
    ],
)
def test_a_drawing_that_cannot_be_written_is_a_warning(tmp_path, paths, monkeypatch, error, count):
    def refuse(file):
        raise error

    monkeypatch.setattr(drawings_module, "atomic_write", refuse)
    drawings, warnings = make(tmp_path, paths)
    drawings.draw(0, IMAGE, FOUND)
    drawings.draw(1, IMAGE, FOUND)
    assert len(warnings) == count
    assert all("its drawing cannot be written" in warning for warning in warnings)
    assert ("no more drawings" in warnings[0]) == (count == 1)
