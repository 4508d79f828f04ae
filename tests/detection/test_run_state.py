"""The results of a run in SQLite: storing, resuming, refusing."""

import json
import os
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.run_state import Result, RunState, RunStateError

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
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        assert state.left() == [0, 1, 2]
        state.add(result(2))
        state.add(Result(0, 0, 0, None, "truncated"))
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert state.left() == [1]
        failed, found = state.results()
    assert (failed.picture, failed.detections, failed.failure) == (0, None, "truncated")
    assert (found.picture, found.width, found.height, found.failure) == (2, 40, 30, None)
    for name in ("boxes", "scores", "labels"):
        kept, given = getattr(found.detections, name), getattr(result(2).detections, name)
        assert kept.dtype == given.dtype
        np.testing.assert_array_equal(kept, given)


def test_subclasses_and_classes_come_back(tmp_path, pictures):
    classes = {"categories": (Category(58, "n58", "dog"),), "finest": (Subclass("n1", "Samoyed", 58),)}
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse", **classes) as state:
        for picture, row in ((0, 0), (1, -1)):
            found = result(picture).detections
            state.add(Result(picture, 40, 30, replace(found, subclasses=np.array([row])), None))
        state.add(result(2))
        names = [one.detections.finest_names for one in state.results()]
    assert names == [["dog: Samoyed"], ["dog"], ["dog"]]


def test_a_picture_without_detections_is_not_a_failure(tmp_path, pictures):
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        state.add(Result(1, 40, 30, nothing, None))
        (kept,) = state.results()
    assert kept.failure is None
    assert kept.detections.boxes.shape == (0, 4)


def test_a_picture_has_one_result(tmp_path, pictures):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
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
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse"):
        pass
    with pytest.raises(RunStateError, match=message):
        RunState(tmp_path / "run.sqlite", settings, pictures, existing="resume")


@pytest.mark.parametrize("change", ["fewer", "order", "content"])
def test_a_run_over_other_pictures_is_not_resumed(tmp_path, pictures, change):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse"):
        pass
    if change == "content":
        pictures[1].write_bytes(b"longer than before")
    others = {"fewer": pictures[:2], "order": pictures[::-1], "content": pictures}[change]
    with pytest.raises(RunStateError, match="the pictures or their order changed"):
        RunState(tmp_path / "run.sqlite", SETTINGS, others, existing="resume")


def test_only_overwrite_replaces_a_run(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        state.add(result(0))
        assert state.done == 1
    with pytest.raises(RunStateError, match=r"unfinished run with results for 1 of 3 pictures.*--resume.*--overwrite"):
        RunState(file, SETTINGS, pictures, existing="refuse")
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert state.done == 1
        state.finish()
    for changed in ((SETTINGS, pictures[:2]), ({"seed": 5}, pictures)):
        with pytest.raises(RunStateError, match=r"holds another run: .*--overwrite"):
            RunState(file, *changed, existing="refuse")
    with RunState(file, {"seed": 5}, pictures[:2], existing="overwrite") as state:
        assert (state.left(), state.done, state.finished) == ([0, 1], 0, False)


def test_a_finished_run_is_opened_again_to_see_that_it_is_finished(tmp_path, pictures):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        state.finish()
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        assert state.finished


def test_a_finished_run_knows_its_output_files(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        state.finish({"index.html": 0.5, "detections.csv": 0.5})
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        assert state.outputs == {"index.html": 0.5, "detections.csv": 0.5}
        state.finish({"index.html": 0.2})
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert state.outputs == {"index.html": 0.2, "detections.csv": 0.5}
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE about SET value = '[damaged' WHERE name = 'outputs'")
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert (state.finished, state.outputs) == (True, {})
    with RunState(file, SETTINGS, pictures, existing="overwrite") as state:
        assert (state.finished, state.outputs) == (False, {})


def write_files(state: RunState, *names: str) -> None:
    """Writes files that hold their names, and records them."""
    for name in names:
        file = state.file.parent / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.fsencode(name))
        state.wrote(file)


def test_a_run_deletes_the_files_of_the_run_that_it_replaces_and_no_others(tmp_path, pictures):
    out = tmp_path / "out"
    with RunState(out / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        write_files(state, "a.json", "pictures/a.jpg", "pictures/b.jpg", "voc/Annotations/a.xml")
        if sys.platform == "linux":  # other systems have no names that are not UTF-8
            write_files(state, "caf\udce9/\udcff.jpg")
        (out / "voc" / "a.jpg").symlink_to(pictures[0])
        state.wrote(out / "voc" / "a.jpg")
        assert state.delete_replaced() == []  # no run was replaced
    (out / "pictures" / "mine.jpg").write_text("mine")
    with RunState(out / "run.sqlite", {"seed": 1}, pictures, existing="overwrite") as state:
        write_files(state, "a.json", "pictures/b.jpg")  # the run is stopped before it deletes the files
    with RunState(out / "run.sqlite", {"seed": 2}, pictures, existing="overwrite") as state:
        write_files(state, "a.json")
    with RunState(out / "run.sqlite", {"seed": 2}, pictures, existing="resume") as state:
        write_files(state, "b.json")
        assert state.delete_replaced() == []
        left = {str(file.relative_to(out)) for file in out.rglob("*") if not file.name.startswith("run.sqlite")}
        assert left == {"a.json", "b.json", "pictures", "pictures/mine.jpg"}
        assert pictures[0].exists()


def test_files_that_the_new_run_will_write_stay_until_then(tmp_path, pictures):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        write_files(state, "a.json")
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="overwrite") as state:
        state.delete_replaced(but=[tmp_path / "a.json"])
        assert (tmp_path / "a.json").exists()
        state.delete_replaced()
        assert not (tmp_path / "a.json").exists()


def test_files_that_somebody_changed_stay(tmp_path, pictures):
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        write_files(state, "longer", "later", "folder", "rounded", "gone")
    (tmp_path / "longer").write_text("corrected")
    (tmp_path / "folder").unlink()
    (tmp_path / "folder").mkdir()
    (tmp_path / "gone").unlink()
    for name, seconds in (("later", 60), ("rounded", -1)):
        time = (tmp_path / name).stat().st_mtime + seconds
        os.utime(tmp_path / name, (time, time))
    with RunState(tmp_path / "run.sqlite", SETTINGS, pictures, existing="overwrite") as state:
        assert state.delete_replaced() == [tmp_path / name for name in ("folder", "later", "longer")]
        assert not (tmp_path / "rounded").exists()
        assert state.delete_replaced() == []  # they belong to the user now


def test_files_of_the_replaced_run_that_are_pictures_of_the_new_run_stay(tmp_path, pictures):
    out = tmp_path / "out"
    with RunState(out / "run.sqlite", SETTINGS, pictures, existing="refuse") as state:
        write_files(state, "pictures/a.jpg", "pictures/b.jpg", "pictures/c.jpg", "pictures/d.jpg")
    (tmp_path / "folder").symlink_to(out / "pictures")
    (tmp_path / "mine.jpg").symlink_to(out / "pictures" / "c.jpg")
    drawings = [out / "pictures" / "a.jpg", str(tmp_path / "folder" / "b.jpg"), tmp_path / "mine.jpg", "s3://a/d.jpg"]
    with RunState(out / "run.sqlite", SETTINGS, drawings, existing="overwrite") as state:
        assert state.delete_replaced() == []
    assert {file.name for file in (out / "pictures").iterdir()} == {"a.jpg", "b.jpg", "c.jpg"}


@pytest.mark.parametrize("name", ["'a.txt'", "7", "x'2e2e2f612e747874'", "CAST('{folder}/a.txt' AS BLOB)"])
def test_a_damaged_record_deletes_nothing(tmp_path, pictures, name):
    (tmp_path / "a.txt").write_text("mine")
    state_file = tmp_path / "out" / "run.sqlite"
    with RunState(state_file, SETTINGS, pictures, existing="refuse"):
        pass
    status = (tmp_path / "a.txt").stat()
    with closing(sqlite3.connect(state_file)) as database, database:
        values = f"{name.format(folder=tmp_path)}, {status.st_size}, {status.st_mtime_ns}, 0"
        database.execute(f"INSERT INTO files VALUES ({values})")
    with RunState(state_file, SETTINGS, pictures, existing="overwrite") as state:
        assert state.delete_replaced() == []
    assert (tmp_path / "a.txt").read_text() == "mine"


@pytest.mark.parametrize("empty", [False, True])
def test_resuming_starts_a_run_where_there_is_none(tmp_path, pictures, empty):
    file = tmp_path / "out" / "run.sqlite"
    if empty:
        file.parent.mkdir()
        file.touch()
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert (state.left(), state.finished) == ([0, 1, 2], False)
        state.add(result(0))
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert state.left() == [1, 2]


def test_a_finished_run_says_so_when_it_is_resumed(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        for picture in range(3):
            state.add(result(picture))
        assert not state.finished
        state.finish()
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert (state.left(), state.finished, len(list(state.results()))) == ([], True, 3)


@pytest.mark.parametrize("existing", ["resume", "refuse", "overwrite"])
def test_a_second_process_is_refused_while_a_run_is_going_on(tmp_path, pictures, existing):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        state.add(result(0))
        with pytest.raises(RunStateError, match=r"run\.sqlite: another process is working on this run"):
            RunState(file, SETTINGS, pictures, existing=existing)
        state.add(result(1))
        with closing(sqlite3.connect(file)) as reader:  # others may read
            assert reader.execute("SELECT count(*) FROM results").fetchone() == (2,)
    with RunState(file, SETTINGS, pictures, existing="resume") as state:
        assert state.left() == [2]


@pytest.mark.parametrize("existing", ["resume", "refuse", "overwrite"])
def test_a_file_that_is_no_state_is_kept_and_refused(tmp_path, pictures, existing):
    file = tmp_path / "run.sqlite"
    text = b"this is no database, though it has its name" * 100
    file.write_bytes(text)
    with pytest.raises(RunStateError, match=r"run\.sqlite is not the state of a run.*delete it"):
        RunState(file, SETTINGS, pictures, existing=existing)
    assert file.read_bytes() == text
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE photos (name TEXT)")
    with pytest.raises(RunStateError, match="lacks the table 'about'"):
        RunState(file, SETTINGS, pictures, existing=existing)


def test_a_run_where_no_file_can_be_is_refused(tmp_path, pictures):
    (tmp_path / "text").write_text("text")
    (tmp_path / "run.sqlite").mkdir()
    for file in (tmp_path / "text" / "run.sqlite", tmp_path / "run.sqlite"):
        with pytest.raises(RunStateError, match=r"run\.sqlite cannot be opened"):
            RunState(file, SETTINGS, pictures, existing="refuse")


NAN_BOX = np.full(4, np.nan, np.float32).tobytes().hex()


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE results",
        "ALTER TABLE results DROP COLUMN failure",
        "UPDATE results SET picture = 3",
        "UPDATE results SET picture = -1",
        "UPDATE results SET width = NULL",
        "UPDATE results SET height = 'high'",
        "UPDATE results SET width = 0",
        "UPDATE results SET boxes = x'00'",
        "UPDATE results SET boxes = 'text'",
        "UPDATE results SET scores = NULL",
        "UPDATE results SET scores = x'0000003f0000003f'",
        "UPDATE results SET scores = x'00000040'",
        "UPDATE results SET scores = x'0000c07f'",
        "UPDATE results SET labels = x'00000000'",
        "UPDATE results SET labels = x'0100000000000000'",
        "UPDATE results SET subclasses = x'00'",
        "UPDATE results SET subclasses = x'0000000000000000'",
        "UPDATE results SET subclasses = 'text'",
        f"UPDATE results SET boxes = x'{NAN_BOX}'",
        "UPDATE results SET failure = x'00'",
        "UPDATE results SET boxes = NULL, scores = NULL, labels = NULL",
        "UPDATE about SET value = 'x' WHERE name = 'settings'",
        "UPDATE about SET value = '5' WHERE name = 'settings'",
        "UPDATE about SET value = x'00' WHERE name = 'settings'",
        "DELETE FROM about WHERE name = 'settings'",
        "DELETE FROM about WHERE name = 'pictures'",
        "DELETE FROM about WHERE name = 'finished'",
        "UPDATE about SET value = 'maybe' WHERE name = 'finished'",
    ],
)
def test_a_damaged_run_is_refused_when_it_is_resumed(tmp_path, pictures, damage):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        state.add(result(0))
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(damage)
    with pytest.raises(RunStateError, match=r"run\.sqlite is not the state of a run .*; delete it"):
        RunState(file, SETTINGS, pictures, existing="resume", categories=(Category(58, "n7", "dog"),))


def test_a_cut_file_is_refused(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse") as state:
        state.add(result(0))
    whole = file.read_bytes()
    for length in range(1, len(whole), 1000):
        file.write_bytes(whole[:length])
        with pytest.raises(RunStateError, match=r"run\.sqlite"):
            RunState(file, SETTINGS, pictures, existing="resume")


def test_names_and_reasons_that_are_not_utf8_are_stored(tmp_path):
    names = [os.fsdecode(b"/photos/\xff.jpg"), "https://a/b.jpg?" + 5000 * "q", "null\0.jpg"]
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, names, existing="refuse") as state:
        state.add(Result(0, 0, 0, None, f"{names[0]}: no such file"))
    with RunState(file, SETTINGS, names, existing="resume") as state:
        (kept,) = state.results()
    assert kept.failure == "/photos/\\udcff.jpg: no such file"


def test_a_file_of_another_format_is_refused(tmp_path, pictures):
    file = tmp_path / "run.sqlite"
    with RunState(file, SETTINGS, pictures, existing="refuse"):
        pass
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE about SET value = 'inception-rcnn run 9' WHERE name = 'format'")
    database.close()
    with pytest.raises(RunStateError, match="run 9"):
        RunState(file, SETTINGS, pictures, existing="resume")


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
    with RunState(file, SETTINGS, ["https://a/1.jpg", "https://a/2.jpg"], existing="resume") as state:
        assert state.left() == [0]
        (kept,) = state.results()
    assert kept.detections.boxes.tolist() == [[1, 2, 3, 4]]
    assert kept.detections.labels.tolist() == [58]
