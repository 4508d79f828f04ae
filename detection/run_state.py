"""The results of a run over many pictures, kept in an SQLite file so that an interrupted run can be resumed.

The result of a picture is one row, committed when the picture is done. After a crash the row is complete or missing.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .suppression import Detections

FORMAT = "inception-rcnn run 1"

_TABLES = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE results (
    picture INTEGER PRIMARY KEY, width INTEGER, height INTEGER, boxes BLOB, scores BLOB, labels BLOB, failure TEXT
);
"""


class RunStateError(RuntimeError):
    """A run cannot be started or resumed; the message gives the reason and the remedy."""


@dataclass(frozen=True, eq=False)
class Result:
    """The detections in one picture, or the reason why the picture could not be read.

    Attributes:
        picture: index in the run's list of pictures.
        width, height: size of the upright picture in pixels; 0 if the picture could not be read.
        detections: the objects found; None if the picture could not be read.
        failure: why the picture could not be read; None if it was read.
    """

    picture: int
    width: int
    height: int
    detections: Detections | None
    failure: str | None


class RunState:
    """The results of one run so far.

        with RunState(out / "run.sqlite", settings, paths, resume=True) as state:
            for picture in state.left():
                state.add(...)

    Args:
        file: the SQLite file; its folder is made if it is missing.
        settings: everything that the results depend on, by a name that error messages can show.
        pictures: the files or URLs, in order. They must not change until the run is finished.
        resume: True continues the run in `file`. False starts a new run, which replaces a finished run in `file`.

    Raises:
        RunStateError: with `resume`, `file` holds no run, or a run with other settings or pictures; without `resume`,
            `file` holds an unfinished run, which would be lost.
    """

    def __init__(self, file: Path, settings: Mapping[str, object], pictures: Sequence[Path | str], *, resume: bool):
        self.file = file
        self._count = len(pictures)
        about = {
            "format": FORMAT,
            "settings": json.dumps({name: str(value) for name, value in settings.items()}),
            "pictures": _digest(pictures),
            "finished": "no",
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        known = _read_about(file)
        if resume:
            _check_same(file, known, about)
        elif known and known.get("finished") == "no":
            done = _count_results(file)
            raise RunStateError(
                f"{file} holds an unfinished run with results for {done} pictures: continue it with --resume, choose "
                "another --out, or delete the file to start again"
            )
        else:
            for stale in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")):
                stale.unlink(missing_ok=True)
        # With WAL and NORMAL, a crash of the program loses no commit. A power cut can lose the last commits, but it
        # does not damage the file.
        self._database = sqlite3.connect(file)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        if not resume:
            with self._database:
                self._database.executescript(_TABLES)
                self._database.executemany("INSERT INTO about VALUES (?, ?)", about.items())

    def __enter__(self) -> "RunState":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def left(self) -> list[int]:
        """The indices of the pictures without a result, in order."""
        done = {picture for (picture,) in self._database.execute("SELECT picture FROM results")}
        return [picture for picture in range(self._count) if picture not in done]

    def add(self, result: Result) -> None:
        """Store the result of a picture. The result survives a crash of the program after this call.

        Raises:
            sqlite3.Error: the result could not be written, for example because the disk is full. Earlier results
                are not affected.
        """
        found = result.detections
        blobs = [None] * 3 if found is None else [found.boxes.tobytes(), found.scores.tobytes(), found.labels.tobytes()]
        with self._database:
            self._database.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
                (result.picture, result.width, result.height, *blobs, result.failure),
            )

    def results(self) -> Iterator[Result]:
        """Yields the results so far, in the order of the pictures."""
        for picture, width, height, boxes, scores, labels, failure in self._database.execute(
            "SELECT * FROM results ORDER BY picture"
        ):
            found = None
            if boxes is not None:
                found = Detections(
                    np.frombuffer(boxes, np.float32).reshape(-1, 4),
                    np.frombuffer(scores, np.float32),
                    np.frombuffer(labels, np.int64),
                )
            yield Result(picture, width, height, found, failure)

    def finish(self) -> None:
        """Mark the run as finished: its output files are written."""
        with self._database:
            self._database.execute("UPDATE about SET value = 'yes' WHERE name = 'finished'")


def _digest(pictures: Sequence[Path | str]) -> str:
    """SHA-256 of the names, sizes and modification times of the pictures, in order."""
    digest = hashlib.sha256()
    for path in pictures:
        try:
            status = Path(path).stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        except OSError:  # a missing file or a URL; reading it reports the error
            digest.update(f"{path}\0\0\0".encode())
    return digest.hexdigest()


def _read_about(file: Path) -> dict[str, str]:
    """The content of the table `about`; empty if the file or the table does not exist."""
    if not file.exists():
        return {}
    try:
        with closing(sqlite3.connect(file)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
                return {}
            return dict(database.execute("SELECT name, value FROM about"))
    except sqlite3.DatabaseError as error:
        raise RunStateError(f"{file} is not the state of a run ({error}); delete it to start a new run") from error


def _count_results(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


def _check_same(file: Path, known: Mapping[str, str], about: Mapping[str, str]) -> None:
    if not known:
        raise RunStateError(f"{file}: there is no run to resume; start a run without --resume")
    if known.get("format") != FORMAT:
        raise RunStateError(f"{file}: the format is {known.get('format')!r}, this version reads {FORMAT!r}")
    before, now = json.loads(known["settings"]), json.loads(about["settings"])
    changes = [
        f"{name} was {before.get(name, 'not set')}, is now {now.get(name, 'not set')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if known["pictures"] != about["pictures"]:
        changes.append("the pictures or their order changed")
    if changes:
        raise RunStateError(
            f"{file} holds a run with other settings: {'; '.join(changes)}. Resume with the settings of that run, or "
            "choose another --out"
        )
