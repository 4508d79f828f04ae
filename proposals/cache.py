"""A cache of proposals on disk, keyed by everything that they depend on."""

import hashlib
import sqlite3
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from .proposals import Proposals


@lru_cache(maxsize=1)
def _source_digest() -> str:
    """Returns the SHA-256 of this package's source files. Boxes of an older algorithm therefore have another key."""
    digest = hashlib.sha256(cv2.__version__.encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class ProposalCache:
    """Proposes the regions of image files and stores them in an SQLite file.

    The key of a file's proposals consists of the file's content (not its name or date), of `key`, of the source of this
    package, and of OpenCV's version. Proposals of another content, setting or source are never returned.

    Args:
        file: the SQLite file; it is created if it does not exist.
        propose: proposes the regions of an image file.
        key: everything else that the proposals depend on: settings, and digests of weights.
    """

    def __init__(self, file: str | Path, propose: Callable[[Path], Proposals], key: str):
        self._propose = propose
        self._settings = key
        self._lock = threading.Lock()
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._database.execute(
            "create table if not exists regions (key text primary key, boxes blob not null, scores blob not null, "
            "source blob not null, quality blob)"
        )

    def __call__(self, path: Path) -> Proposals:
        """Returns the proposals of an image file. They are computed and stored if the cache does not hold them.

        Raises:
            ImageError: the file is not a readable image.
        """
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        key = hashlib.sha256(f"{content} {self._settings} {_source_digest()}".encode()).hexdigest()
        with self._lock:
            row = self._database.execute(
                "select boxes, scores, source, quality from regions where key = ?", (key,)
            ).fetchone()
        if row:
            boxes, scores, source, quality = row
            return Proposals(
                np.frombuffer(boxes, np.float32).reshape(-1, 4).copy(),
                np.frombuffer(scores, np.float32).copy(),
                np.frombuffer(source, np.uint8).copy(),
                None if quality is None else np.frombuffer(quality, np.float32).copy(),
            )
        found = self._propose(path)
        arrays = (found.boxes, found.scores, found.source, found.quality)
        with self._lock:
            self._database.execute(
                "insert or replace into regions values (?, ?, ?, ?, ?)",
                (key, *(None if array is None else array.tobytes() for array in arrays)),
            )
        return found

    def close(self) -> None:
        """Closes the SQLite file. The cache cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> "ProposalCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
