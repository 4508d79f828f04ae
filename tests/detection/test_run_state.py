"""The results of a run in SQLite: storing, resuming, refusing."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.detection.run_state import Result, RunState, RunStateError
from inception_rcnn.detection.suppression import Detections

SETTINGS = {"seed": 0, "model": "abc"}


@pytest.fixture
def pictures(tmp_path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def result(picture: int) -> Result:
    boxes = np.array([[0.125, 1, 2, 3 + picture]], np.float32)
    return Result(picture, 40, 30, Detections(boxes, np.array([0.3], np.float32), np.array([58])), None)


def test_added_results_come_back_bit_for_bit(tmp_path, pictures):
    file = tmp_path / "out" / "run.sqlite"
    with RunState(file, SETTINGS, pictures, resume=False) as state:
        assert state.left() == [0, 1, 2]
        state.add(result(2))
        state.add(Result(0, 0, 0, None, "truncated"))
    with RunState(file, SETTINGS, pictures, resume=True) as state:
        assert state.left() == [1]
        failed, found = state.results()
    assert (failed.picture, failed.detections, failed.failure) == (0, None, "truncated")
    assert (found.picture, found.width, found.height, found.failure) == (2, 40, 30, None)
    for name in ("boxes", "scores", "labels"):
        kept, given = getattr(found.detections, name), getattr(result(2).detections, name)
        assert kept.dtype == given.dtype
        np.testing.assert_array_equal(kept, given)


def test_a_picture_without_detections_is_not_a_failure(tmp_path, pictures):
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, resume=False) as state:
        state.add(Result(1, 40, 30, nothing, None))
        (kept,) = state.results()
    assert kept.failure is None
    assert kept.detections.boxes.shape == (0, 4)


def test_a_picture_has_one_result(tmp_path, pictures):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, resume=False) as state:
        state.add(result(1))
        with pytest.raises(sqlite3.IntegrityError):
            state.add(result(1))
        assert [result.picture for result in state.results()] == [1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1, "model": "abc"}, "seed was 0, is now 1"),
        ({"seed": 0, "model": "xyz"}, "model was abc, is now xyz"),
        ({"seed": 0, "model": "abc", "members": 3}, "members was not set, is now 3"),
        ({"model": "abc"}, "seed was 0, is now not set"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed_and_the_error_says_why(tmp_path, pictures, settings, message):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, resume=False):
        pass
    with pytest.raises(RunStateError, match=message):
        RunState(tmp_path / "run.sqlite", settings, pictures, resume=True)


@pytest.mark.parametrize("change", ["fewer", "order", "content"])
def test_a_run_over_other_pictures_is_not_resumed(tmp_path, pictures, change):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, resume=False):
        pass
    if change == "content":
        pictures[1].write_bytes(b"longer than before")
    others = {"fewer": pictures[:2], "order": pictures[::-1], "content": pictures}[change]
    with pytest.raises(RunStateError, match="the pictures or their order changed"):
        RunState(tmp_path / "run.sqlite", SETTINGS, others, resume=True)


def test_an_unfinished_run_is_not_overwritten_and_a_finished_run_is(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, resume=False) as state:
        state.add(result(0))
    with pytest.raises(RunStateError, match=r"unfinished run with results for 1 pictures.*--resume"):
        RunState(file, SETTINGS, pictures, resume=False)
    with RunState(file, SETTINGS, pictures, resume=True) as state:
        state.finish()
    with RunState(file, {"seed": 5}, pictures, resume=False) as state:
        assert state.left() == [0, 1, 2]


def test_resuming_needs_the_state_of_a_run(tmp_path, pictures):
    with pytest.raises(RunStateError, match="no run to resume"):
        RunState(tmp_path / "run.sqlite", SETTINGS, pictures, resume=True)
    (tmp_path / "run.sqlite").write_bytes(b"this is no database, though it has its name" * 100)
    with pytest.raises(RunStateError, match="delete it"):
        RunState(tmp_path / "run.sqlite", SETTINGS, pictures, resume=True)


def test_a_file_of_another_format_is_refused(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, resume=False):
        pass
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE about SET value = 'inception-rcnn run 9' WHERE name = 'format'")
    database.close()
    with pytest.raises(RunStateError, match="run 9"):
        RunState(file, SETTINGS, pictures, resume=True)


def test_a_run_stored_by_version_0_1_is_resumed(tmp_path):
    """The tables and texts below are those that version 0.1.0 wrote; runs of that version must stay usable."""
    file = tmp_path / "run.sqlite"
    about = {
        "format": "inception-rcnn run 1",
        "settings": json.dumps({"seed": "0", "model": "abc"}),
        "pictures": "bc1538a7b06faae2295f82980914d65e51158c923289eae604feaa12ddc2f2dd",
        "finished": "no",
    }
    database = sqlite3.connect(file)
    with database:
        database.execute("CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
        database.execute(
            "CREATE TABLE results (picture INTEGER PRIMARY KEY, width INTEGER, height INTEGER, "
            "boxes BLOB, scores BLOB, labels BLOB, failure TEXT)"
        )
        database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        boxes, scores, labels = np.float32([1, 2, 3, 4]), np.float32([0.5]), np.int64([58])
        database.execute(
            "INSERT INTO results VALUES (1, 40, 30, ?, ?, ?, NULL)",
            (boxes.tobytes(), scores.tobytes(), labels.tobytes()),
        )
    database.close()
    with RunState(file, SETTINGS, ["https://a/1.jpg", "https://a/2.jpg"], resume=True) as state:
        assert state.left() == [0]
        (kept,) = state.results()
    assert kept.detections.boxes.tolist() == [[1, 2, 3, 4]]
    assert kept.detections.labels.tolist() == [58]
