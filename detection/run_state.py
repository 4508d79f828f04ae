"""What a run over many pictures has found so far, kept in one SQLite file so that a run killed at any moment can go on.

A picture's result is one row, committed when the picture is done: it is there whole or not at all.
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
    """A run cannot be started or resumed; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Result:
    """What became of one picture.

    Attributes:
        picture: its index in the list of pictures.
        width, height: of the upright picture in pixels, 0 if it could not be read.
        detections: what was found; None if it could not be read.
        failure: why it could not be read, or None.
    """

    picture: int
    width: int
    height: int
    detections: Detections | None
    failure: str | None


class RunState:
    """The state of one run.

        with RunState(out / "run.sqlite", settings, paths, resume=True) as state:
            for picture in state.left():
                state.add(...)

    Args:
        file: the SQLite file; its folder is made if need be.
        settings: all that the results depend on, by name, in words that a message can show.
        pictures: the files (or URLs), in order; they may not change while the run is on.
        resume: go on with the run in `file`. Otherwise a finished run is replaced, an unfinished one is an error.

    Raises:
        RunStateError: there is nothing to resume, the run was another one, or it would be lost.
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
                f"{file} holds an interrupted run with {done} of its pictures done: go on with --resume, choose "
                "another --out, or delete that file to start anew"
            )
        else:
            for stale in (file, file.with_name(file.name + "-wal"), file.with_name(file.name + "-shm")):
                stale.unlink(missing_ok=True)
        # A commit is whole after a crash of the program or the machine; after a power cut the last ones may be missing.
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
        """The pictures that have no result yet, in order."""
        done = {picture for (picture,) in self._database.execute("SELECT picture FROM results")}
        return [picture for picture in range(self._count) if picture not in done]

    def add(self, result: Result) -> None:
        """Keep a picture's result; when this returns, it survives the end of the program.

        Raises:
            sqlite3.Error: it could not be written (a full disk, say); what was there before is kept.
        """
        found = result.detections
        blobs = [None] * 3 if found is None else [found.boxes.tobytes(), found.scores.tobytes(), found.labels.tobytes()]
        with self._database:
            self._database.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?)",
                (result.picture, result.width, result.height, *blobs, result.failure),
            )

    def results(self) -> Iterator[Result]:
        """All results so far, in the order of the pictures."""
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
        """Note that the run's files are written."""
        with self._database:
            self._database.execute("UPDATE about SET value = 'yes' WHERE name = 'finished'")


def _digest(pictures: Sequence[Path | str]) -> str:
    """Of the names, sizes and times of files, in order."""
    digest = hashlib.sha256()
    for path in pictures:
        try:
            status = Path(path).stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        except OSError:  # the detector will say what is wrong with it
            digest.update(f"{path}\0\0\0".encode())
    return digest.hexdigest()


def _read_about(file: Path) -> dict[str, str]:
    """The table `about`; empty if there is no such file or its run had not begun."""
    if not file.exists():
        return {}
    try:
        with closing(sqlite3.connect(file)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'about'").fetchone():
                return {}
            return dict(database.execute("SELECT name, value FROM about"))
    except sqlite3.DatabaseError as error:
        raise RunStateError(f"{file}: no state of a run ({error}); delete it to start anew") from error


def _count_results(file: Path) -> int:
    with closing(sqlite3.connect(file)) as database:
        return int(database.execute("SELECT count(*) FROM results").fetchone()[0])


def _check_same(file: Path, known: Mapping[str, str], about: Mapping[str, str]) -> None:
    if not known:
        raise RunStateError(f"{file}: there is no run to resume; leave --resume out to start one")
    if known.get("format") != FORMAT:
        raise RunStateError(f"{file}: written by another version ({known.get('format')!r}, this one reads {FORMAT!r})")
    before, now = json.loads(known["settings"]), json.loads(about["settings"])
    changes = [
        f"{name} was {before.get(name, 'not there')}, is {now.get(name, 'not there')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if known["pictures"] != about["pictures"]:
        changes.append("the pictures, or their order, have changed")
    if changes:
        raise RunStateError(
            f"{file}: that run was another one: {'; '.join(changes)}. Resume with what it was started with, or choose "
            "another --out"
        )
