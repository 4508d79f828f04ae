"""A cache of proposals on disk, keyed by everything that they depend on."""

import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import PIL

from ..data.images import ImageError, read_image
from ..runtime.announcement import announce_once
from .proposals import Proposals
from .selective_search import selective_search

_COLUMNS = ("key", "boxes", "scores", "source", "quality", "hash")
_SECONDS_TO_WAIT = 60  # for another process that writes the file

_logger = logging.getLogger(__name__.split(".")[0])


@lru_cache(maxsize=1)
def _source_digest() -> str:
    """Returns a SHA-256 of everything in the program that proposals depend on: sources and versions of libraries.

    Boxes of an older algorithm therefore have another key. The sources are those of this package and of the package
    that decodes pictures.
    """
    digest = hashlib.sha256(f"{cv2.__version__} {PIL.__version__}".encode())
    here = Path(__file__).parent
    for file in [*sorted(here.glob("*.py")), *sorted((here.parent / "data").glob("*.py"))]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


class RegionCache:
    """Proposes the regions of image files and stores them in an SQLite file, without `Proposals.classes`.

    The key of a file's proposals consists of the file's content (not its name or date), of `key`, of the source of this
    package, and of the versions of OpenCV and Pillow. Proposals of another content, setting or source are never
    returned. Each row has a hash of its content. Rows that are damaged are computed again, and a file that is damaged
    is made anew, each with a warning. If the file cannot be written, proposals are computed and not stored.

    Args:
        file: the SQLite file; it is created if it does not exist.
        propose: proposes the regions of an image file.
        key: everything else that the proposals depend on: settings, and digests of weights.

    Raises:
        OSError: the file cannot be opened or created.
    """

    def __init__(self, file: str | Path, propose: Callable[[Path], Proposals], key: str):
        self._file = Path(file)
        self._propose = propose
        self._settings = key
        self._lock = threading.Lock()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _open(self._file)
        except sqlite3.OperationalError as error:
            raise OSError(f"{file}: cannot open the cache of proposals: {error}") from error
        except sqlite3.DatabaseError as error:
            self._database = self._opened_anew(error)

    def __call__(self, path: str | Path) -> Proposals:
        """Returns the proposals of an image file. They are computed and stored if the cache does not hold them.

        Raises:
            ImageError: the file is not a readable image.
        """
        path = Path(path)
        try:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ImageError(path, f"cannot read the file: {error.strerror}") from error
        key = hashlib.sha256(f"{content} {self._settings} {_source_digest()}".encode()).hexdigest()
        stored = self._stored(key)
        if stored is not None:
            return stored
        found = self._propose(path)
        self._store(key, found)
        return found

    def _stored(self, key: str) -> Proposals | None:
        """The proposals that are stored under a key; None if there are none or they are damaged."""
        with self._lock:
            try:
                row = self._database.execute(
                    "select boxes, scores, source, quality, hash from proposals where key = ?", (key,)
                ).fetchone()
            except sqlite3.OperationalError as error:
                announce_once(f"{self._file}: cannot read the cache of proposals: {error}")
                return None
            except sqlite3.DatabaseError as error:
                self._database = self._opened_anew(error)
                return None
        if row is None:
            return None
        *blobs, stored_hash = row
        if not all(isinstance(blob, bytes) for blob in blobs if blob is not None) or stored_hash != _hash(key, blobs):
            _logger.warning("%s: the proposals of a picture are damaged and are computed again", self._file)
            return None
        boxes, scores, source, quality = blobs
        return Proposals(
            np.frombuffer(boxes, np.float32).reshape(-1, 4).copy(),
            np.frombuffer(scores, np.float32).copy(),
            np.frombuffer(source, np.uint8).copy(),
            None if quality is None else np.frombuffer(quality, np.float32).copy(),
        )

    def _store(self, key: str, found: Proposals) -> None:
        arrays = (found.boxes, found.scores, found.source, found.quality)
        blobs = [None if array is None else array.tobytes() for array in arrays]
        with self._lock:
            try:
                self._database.execute(
                    "insert or replace into proposals values (?, ?, ?, ?, ?, ?)", (key, *blobs, _hash(key, blobs))
                )
            except sqlite3.OperationalError as error:  # for example, the disk is full
                announce_once(f"{self._file}: cannot write to the cache of proposals: {error}")
            except sqlite3.DatabaseError as error:
                self._database = self._opened_anew(error)

    def _opened_anew(self, error: Exception) -> sqlite3.Connection:
        """Replaces the damaged file by an empty cache."""
        _logger.warning("%s: the cache of proposals is damaged and is made anew (%s)", self._file, error)
        if hasattr(self, "_database"):
            self._database.close()
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
        return _open(self._file)

    def close(self) -> None:
        """Closes the SQLite file. The cache cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> "RegionCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(file: Path) -> sqlite3.Connection:
    """Opens the file, with its table.

    Raises:
        sqlite3.OperationalError: the file cannot be opened.
        sqlite3.DatabaseError: the file is damaged, or its table is that of another version.
    """
    database = sqlite3.connect(file, timeout=_SECONDS_TO_WAIT, check_same_thread=False, isolation_level=None)
    database.text_factory = lambda text: text.decode("utf-8", "replace")  # a damaged text is found by its hash
    try:
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        database.execute(
            "create table if not exists proposals (key text primary key, boxes blob not null, scores blob not null, "
            "source blob not null, quality blob, hash text not null)"
        )
        columns = tuple(row[1] for row in database.execute("pragma table_info(proposals)"))
        if columns != _COLUMNS:
            raise sqlite3.DatabaseError(f"its columns are {', '.join(columns)[:200]}, expected {', '.join(_COLUMNS)}")
    except sqlite3.Error:
        database.close()
        raise
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged schema
        database.close()
        raise sqlite3.DatabaseError(f"its schema is damaged: {error}") from error
    return database


def _hash(key: str, blobs: list[bytes | None]) -> str:
    """SHA-256 of a row. The key is part of it, so that the proposals of one picture are never used for another."""
    digest = hashlib.sha256(key.encode())
    for blob in blobs:
        digest.update(b"none" if blob is None else len(blob).to_bytes(8, "little") + blob)
    return digest.hexdigest()


class ProposalCache(RegionCache):
    """The proposals of selective search, computed once for each image file.

    Args:
        file: see `RegionCache`.
        superpixel_scale, min_side, connectivity, seed: as in `selective_search`.
    """

    def __init__(
        self,
        file: str | Path,
        *,
        superpixel_scale: float = 2.0,
        min_side: float = 20,
        connectivity: int = 4,
        seed: int = 0,
    ):
        search = partial(
            selective_search,
            superpixel_scale=superpixel_scale,
            min_side=min_side,
            connectivity=connectivity,
            seed=seed,
        )
        super().__init__(file, lambda path: search(read_image(path)), json.dumps(search.keywords, sort_keys=True))
