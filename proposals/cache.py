"""Proposals on disk: computed once for each picture and setting, never used for another."""

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
def _code() -> str:
    """Changes with the source of this package, so that boxes of an older algorithm are not taken for new ones."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


class ProposalCache:
    """Selective search with a memory: an SQLite file of boxes, keyed by everything that they depend on.

    The key is the picture's content (not its name or date), the settings, and the proposal code itself. Any change of
    these makes another key; what was computed before is then simply not found.

    Args:
        file: made if it is not there.
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
        """Proposals of a picture file, from the cache if it is there.

        Raises:
            ImageError: the file is not a readable picture.
        """
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        key = hashlib.sha256(f"{content} {self._settings} {_code()}".encode()).hexdigest()
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
        """Close the file; the cache cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> "ProposalCache":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
