"""A cache of selective search's proposals on disk, keyed by everything that they depend on."""

import hashlib
import json
import sqlite3
import threading
from functools import lru_cache, partial
from pathlib import Path
from types import TracebackType

import numpy as np

from ..data.images import read_image
from .proposals import Proposals
from .selective_search import selective_search


@lru_cache(maxsize=1)
def _source_digest() -> str:
    """Returns the SHA-256 of this package's source files. It gives boxes of an older algorithm another key."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class ProposalCache:
    """Runs selective search on image files and stores the proposals in an SQLite file.

    The key consists of the image file's content (not its name or date), the settings, and the source of this package.
    Proposals that were stored for another content, setting or source are never returned.

    Args:
        file: the SQLite file; it is created if it does not exist.
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
        self._search = partial(
            selective_search,
            superpixel_scale=superpixel_scale,
            min_side=min_side,
            connectivity=connectivity,
            seed=seed,
        )
        self._settings = json.dumps(self._search.keywords, sort_keys=True)
        self._lock = threading.Lock()
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = normal")
        self._database.execute(
            "create table if not exists proposals (key text primary key, boxes blob not null, scores blob not null)"
        )

    def __call__(self, path: str | Path) -> Proposals:
        """Returns the proposals of an image file. They are computed and stored if the cache does not hold them.

        Raises:
            ImageError: the file is not a readable image.
        """
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        key = hashlib.sha256(f"{content} {self._settings} {_source_digest()}".encode()).hexdigest()
        with self._lock:
            row = self._database.execute("select boxes, scores from proposals where key = ?", (key,)).fetchone()
        if row:
            return Proposals(
                np.frombuffer(row[0], np.float32).reshape(-1, 4).copy(), np.frombuffer(row[1], np.float32).copy()
            )
        proposals = self._search(read_image(path))
        with self._lock:
            self._database.execute(
                "insert or replace into proposals values (?, ?, ?)",
                (key, proposals.boxes.tobytes(), proposals.scores.tobytes()),
            )
        return proposals

    def close(self) -> None:
        """Closes the SQLite file. The cache cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> "ProposalCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
