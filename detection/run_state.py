"""The results of a run over many pictures, kept in an SQLite file so that an interrupted run can be resumed.

The result of each picture is one row, which is committed when the picture is done. After a crash, a row is complete or
missing, never partial.

The file also lists the output files of the run, so that a run that replaces it can delete them and no others.
"""

import hashlib
import json
import os
import sqlite3
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from filelock import FileLock, Timeout

from ..data.categories import Category, Subclass
from .detections import Detections

FORMAT = "inception-rcnn run 1"

# What to do with a run that a file already holds.
Existing: TypeAlias = Literal["refuse", "resume", "overwrite"]

# SQLite takes a shorter file for an empty database, and overwrites it.
_SMALLEST_FILE = 512

_TABLES = {
    "about": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
    "results": (
        "picture INTEGER PRIMARY KEY, width INTEGER, height INTEGER, boxes BLOB, scores BLOB, labels BLOB, "
        "failure TEXT, subclasses BLOB"
    ),
}

# The files that runs wrote to the folder. The table outlives the run: files of a replaced run are not "current".
_FILES = "name BLOB PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, current INTEGER NOT NULL"

# Some file systems round the time of modification to 2 s when the file leaves the memory.
_ROUNDING = 2 * 10**9  # ns


class RunStateError(RuntimeError):
    """A run cannot be started or resumed; the message gives the reason and the remedy."""


class OtherRunError(RunStateError):
    """The file is damaged or holds another run, so that this run can only start after the file is deleted."""


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

        with RunState(out / "run.sqlite", settings, paths, existing="resume") as state:
            for picture in state.left():
                state.add(...)

    One process at a time may work on a run; others may read the file meanwhile. The lock, on the file
    `run.sqlite.lock`, ends with the process, however the process ends.

    Args:
        file: the SQLite file. A missing folder is created.
        settings: everything that the results depend on. Error messages show the keys as names.
        pictures: the files or URLs, in order. They must not change until the run is finished.
        existing: what to do if `file` holds a run. "resume" continues it, "overwrite" replaces it by a new run, and
            "refuse" raises an error if it is unfinished. A finished run with the same settings and pictures is opened
            by both "resume" and "refuse".
        categories: the classes that the labels of results refer to; empty if they are not known.
        finest: the classes that their subclasses refer to.

    Attributes:
        file: the SQLite file.
        finished: whether the run in `file` was already finished when it was opened.
        done: the number of pictures with a result.
        outputs: the output files of which `finish` was told, with the least score of the detections that they show.

    Raises:
        OtherRunError: `file` is damaged or is no state of a run; or, without "overwrite", it holds a run with other
            settings or pictures.
        RunStateError: `file` cannot be read or written, or another process works on it. With "refuse", `file` holds an
            unfinished run, which would be lost.
    """

    def __init__(
        self,
        file: Path,
        settings: Mapping[str, object],
        pictures: Sequence[Path | str],
        *,
        existing: Existing,
        categories: tuple[Category, ...] = (),
        finest: tuple[Subclass, ...] = (),
    ):
        self.file = file
        self.finished = False
        self.done = 0
        self.outputs: dict[str, float] = {}
        self._pictures = pictures
        self._count = len(pictures)
        self._categories = categories
        self._finest = finest
        about = {
            "format": FORMAT,
            "settings": json.dumps({name: str(value) for name, value in settings.items()}),
            "pictures": _digest(pictures),
            "finished": "no",
        }
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                # The thread that closes the state need not be the thread that opened it.
                opened.enter_context(FileLock(f"{file}.lock", timeout=0, thread_local=False))
                self._database = opened.enter_context(closing(sqlite3.connect(file)))
                self._database.text_factory = lambda text: text.decode("utf-8", "replace")  # damage is found later
                if file.is_file() and 0 < file.stat().st_size < _SMALLEST_FILE:
                    raise self._damaged("the file is too short")
                self._open(about, existing)
                self._opened = opened.pop_all()
        except Timeout as error:
            raise RunStateError(
                f"{file}: another process is working on this run; wait until it ends, or choose another --out"
            ) from error
        except (OSError, sqlite3.Error) as error:
            raise RunStateError(f"{file} cannot be opened: {error}") from error

    def _open(self, about: Mapping[str, str], existing: Existing) -> None:
        """Start a new run in the file, or check the run that it holds."""
        try:
            # With WAL and NORMAL, a crash of the program loses no commit. A power cut can lose the last commits, but it
            # does not damage the file.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            known = self._read_about()
            if known is None or existing == "overwrite":
                self._start(about)
                return
            self._check_about(known)
            self._database.execute(f"CREATE TABLE IF NOT EXISTS files ({_FILES}) WITHOUT ROWID")
            self._add_column_of_subclasses()
            _check_same(self.file, known, about)
            # Damage is found here, and not when hours of work are done.
            self.done = sum(1 for _ in self.results())
            self._database.execute("SELECT * FROM files").fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        except UnicodeDecodeError as error:  # SQLite's message quotes a damaged schema
            raise self._damaged(f"its schema is damaged: {error}") from error
        self.finished = known["finished"] == "yes"
        self.outputs = _outputs(known.get("outputs"))
        if existing == "refuse" and not self.finished:
            raise RunStateError(
                f"{self.file} holds an unfinished run with results for {self.done} of {self._count} pictures: continue "
                "it with --resume, start again with --overwrite, or choose another --out"
            )

    def _read_about(self) -> dict[str, str] | None:
        """The content of the table `about`; None if the file holds nothing."""
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "about" not in tables:
            raise self._damaged("it lacks the table 'about'")
        return dict(self._database.execute("SELECT name, value FROM about"))

    def _check_about(self, about: Mapping[str, str]) -> None:
        if about.get("format") != FORMAT:
            raise OtherRunError(
                f"{self.file}: the format is {str(about.get('format'))[:40]!r}, this version reads {FORMAT!r}; choose "
                "another --out, or replace it with --overwrite"
            )
        for name in ("settings", "pictures", "finished"):
            if not isinstance(about.get(name), str):
                raise self._damaged(f"the table 'about' has no text {name!r}")
        if about["finished"] not in ("yes", "no"):
            raise self._damaged(f"'finished' is {about['finished'][:40]!r}, expected 'yes' or 'no'")

    def _start(self, about: Mapping[str, str]) -> None:
        with self._database:  # one transaction: after a crash, the file holds the old run or the new run
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(f"CREATE TABLE IF NOT EXISTS files ({_FILES}) WITHOUT ROWID")
            self._database.execute("UPDATE files SET current = 0")
            for table, columns in _TABLES.items():
                self._database.execute(f"DROP TABLE IF EXISTS {table}")
                self._database.execute(f"CREATE TABLE {table} ({columns})")
            self._database.executemany("INSERT INTO about VALUES (?, ?)", about.items())

    def _add_column_of_subclasses(self) -> None:
        """Runs that were stored before networks had subclasses lack the column."""
        columns = {name for _, name, *_ in self._database.execute("PRAGMA table_info(results)")}
        if columns and "subclasses" not in columns:
            with self._database:
                self._database.execute("ALTER TABLE results ADD COLUMN subclasses BLOB")

    def _damaged(self, reason: str) -> OtherRunError:
        return OtherRunError(f"{self.file} is not the state of a run ({reason}); delete it to start a new run")

    def _unusable(self, error: sqlite3.Error) -> RunStateError:
        message = str(error)  # Python 3.10 does not hand out SQLite's error codes
        if any(reason in message for reason in ("locked", "unable to open", "is full", "disk I/O error", "readonly")):
            return RunStateError(f"{self.file} cannot be written: {message}")
        return self._damaged(message)

    def __enter__(self) -> "RunState":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

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
        arrays = [None] * 4 if found is None else [found.boxes, found.scores, found.labels, found.subclasses]
        blobs = [None if array is None else array.tobytes() for array in arrays]
        # The reason may quote a name that is not UTF-8, which SQLite does not store.
        failure = None if result.failure is None else result.failure.encode(errors="backslashreplace").decode()
        with self._database:
            self._database.execute(
                "INSERT INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (result.picture, result.width, result.height, *blobs[:3], failure, blobs[3]),
            )
        self.done += 1

    def results(self) -> Iterator[Result]:
        """Yields the results so far, in the order of the pictures.

        Raises:
            RunStateError: a row cannot be read, or does not fit the run.
        """
        try:
            for row in self._database.execute(
                "SELECT picture, width, height, boxes, scores, labels, subclasses, failure FROM results "
                "ORDER BY picture"
            ):
                yield self._result(*row)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def _result(
        self, picture: Any, width: Any, height: Any, boxes: Any, scores: Any, labels: Any, subclasses: Any, failure: Any
    ) -> Result:
        """The result in a row of the table, whose values can have any type if the file is damaged."""
        where = f"the row of picture {str(picture)[:40]}"
        if not isinstance(picture, int) or not 0 <= picture < self._count:
            raise self._damaged(f"{where} does not belong to a run over {self._count} pictures")
        if isinstance(failure, str):
            return Result(picture, 0, 0, None, failure)
        if failure is not None or not all(isinstance(blob, bytes) for blob in (boxes, scores, labels)):
            raise self._damaged(f"{where} holds neither detections nor a failure")
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise self._damaged(f"{where} has no size of the picture")
        count, rest = divmod(len(scores), 4)
        if rest or len(boxes) != 16 * count or len(labels) != 8 * count:
            raise self._damaged(f"{where} has boxes, scores and labels of different lengths")
        if subclasses is not None and (not isinstance(subclasses, bytes) or len(subclasses) != 8 * count):
            raise self._damaged(f"{where} does not have a subclass for each detection")
        found = Detections(
            np.frombuffer(boxes, np.float32).reshape(-1, 4),
            np.frombuffer(scores, np.float32),
            np.frombuffer(labels, np.int64),
            subclasses=None if subclasses is None else np.frombuffer(subclasses, np.int64),
            categories=self._categories,
            finest=self._finest,
        )
        if not np.isfinite(found.boxes).all() or not ((found.scores >= 0) & (found.scores <= 1)).all():
            raise self._damaged(f"{where} has boxes that are not finite, or scores outside 0..1")
        if self._categories and not np.isin(found.labels, [category.id for category in self._categories]).all():
            raise self._damaged(f"{where} has class ids that the model lacks")
        if (
            found.subclasses is not None
            and not ((found.subclasses >= -1) & (found.subclasses < len(self._finest))).all()
        ):
            raise self._damaged(f"{where} has subclasses that the model lacks")
        return Result(picture, width, height, found, None)

    def wrote(self, file: Path) -> None:
        """Record that the run wrote a file or a link below the folder of the state.

        Raises:
            OSError: the file does not exist.
            sqlite3.Error: the record could not be written.
        """
        status = file.lstat()
        name = os.fsencode(file.relative_to(self.file.parent))
        with self._database:
            self._database.execute(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, 1)", (name, status.st_size, status.st_mtime_ns)
            )

    def delete_replaced(self, but: Collection[Path] = ()) -> list[Path]:
        """Delete the files of the runs that this run replaced with "overwrite", and folders that are empty then.

        Files that this run wrote itself stay, and so do its pictures: the drawings of one run can be the pictures of
        the next. A file that somebody changed since its run wrote it stays too, like a file that cannot be deleted;
        both are forgotten.

        Args:
            but: files that this run will write, so that the old files are there until the new files are complete.

        Returns:
            The changed files, and the files that cannot be deleted.

        Raises:
            sqlite3.Error: the records cannot be read or written.
        """
        folder = self.file.parent
        stay = []
        rows = self._database.execute(
            "SELECT name, size, modified FROM files WHERE current = 0 ORDER BY name"
        ).fetchall()
        kept = {_place(file) for file in but}
        if rows:
            for picture in self._pictures:
                kept |= {_place(picture), os.path.realpath(picture)}
        for name, size, modified in rows:
            if not (isinstance(name, bytes) and isinstance(size, int) and isinstance(modified, int)):
                continue  # damaged
            file = folder / os.fsdecode(name)
            if not file.is_relative_to(folder) or ".." in file.parts[len(folder.parts) :] or _place(file) in kept:
                continue
            if not _delete_unchanged(file, size, modified):
                stay.append(file)
            with suppress(OSError):  # a folder that is not empty
                for parent in file.relative_to(folder).parents[:-1]:
                    (folder / parent).rmdir()
            with self._database:
                self._database.execute("DELETE FROM files WHERE name = ?", (name,))
        return stay

    def finish(self, outputs: Mapping[str, float] | None = None) -> None:
        """Mark the run as finished. Call this after its output files are written.

        Args:
            outputs: the names of these files, with the least score of the detections that they show. They are added to
                the attribute `outputs`, also of a later `RunState`.
        """
        self.outputs |= outputs or {}
        with self._database:
            self._database.execute("UPDATE about SET value = 'yes' WHERE name = 'finished'")
            self._database.execute("INSERT OR REPLACE INTO about VALUES ('outputs', ?)", (json.dumps(self.outputs),))


def _place(file: Path | str) -> str:
    """Where a file or a link is, with no links in the names of folders."""
    folder, name = os.path.split(file)
    return os.path.join(os.path.realpath(folder), name)


def _delete_unchanged(file: Path, size: int, modified: int) -> bool:
    """Delete a file that has this size and this time of modification in ns; return whether it is gone."""
    try:
        status = file.lstat()
        unchanged = status.st_size == size and abs(status.st_mtime_ns - modified) <= _ROUNDING
        if unchanged and not stat.S_ISDIR(status.st_mode):
            file.unlink()
            return True
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _digest(pictures: Sequence[Path | str]) -> str:
    """SHA-256 of the names, sizes and modification times of the pictures, in order."""
    digest = hashlib.sha256()
    for path in pictures:
        digest.update(str(path).encode(errors="surrogatepass"))  # a name on Linux need not be UTF-8
        try:
            status = Path(path).stat()
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
        except (OSError, ValueError):  # a URL, or a file that is not there: the error is reported when it is read
            digest.update(b"\0\0\0")
    return digest.hexdigest()


def _outputs(text: object) -> dict[str, float]:
    """`RunState.outputs` in the table `about`; empty if an older version wrote the table, or if it is damaged."""
    try:
        outputs = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        outputs = None
    return outputs if isinstance(outputs, dict) else {}


def _check_same(file: Path, known: Mapping[str, str], about: Mapping[str, str]) -> None:
    try:
        before = json.loads(known["settings"])
    except ValueError:
        before = None
    if not isinstance(before, dict):
        raise OtherRunError(
            f"{file} is not the state of a run (its settings are damaged); delete it to start a new run"
        )
    now = json.loads(about["settings"])
    changes = [
        f"{name} was {str(before.get(name, 'not set'))[:80]}, is now {now.get(name, 'not set')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if known["pictures"] != about["pictures"]:
        changes.append("the pictures or their order changed")
    if changes:
        raise OtherRunError(
            f"{file} holds another run: {'; '.join(changes)}. Use the settings and pictures of that run, replace it "
            "with --overwrite, or choose another --out"
        )
