"""Many annotation files as arrays, and a cache of them that is keyed by their content.

Parsing 20,000 XML files takes seconds, reading them a fraction of one: so every file is read, and what they held is
found again by the hash of their bytes. A file that was edited is another key; nothing stale is ever used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from . import annotation
from .annotation import AnnotatedObject, Annotation, AnnotationError, read_annotation


@dataclass(frozen=True, eq=False)
class ParsedAnnotations:
    """The G objects of a sequence of annotation files, file after file, in the order of each.

    Attributes:
        paths: the files.
        files: int64 [G], the position of each object's file in ``paths``.
        names: str [K], the class names that occur.
        name_numbers: int64 [G], the position of each object's class in ``names``.
        inclusive: float64 [G, 4], ``(xmin, ymin, xmax, ymax)`` as in the files: 1-based and inclusive.
        difficult: bool [G].
    """

    paths: tuple[Path, ...]
    files: npt.NDArray[np.int64]
    names: npt.NDArray[np.str_]
    name_numbers: npt.NDArray[np.int64]
    inclusive: npt.NDArray[np.float64]
    difficult: npt.NDArray[np.bool_]

    def labels(self, ids: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """The class ids of the objects, int64 [G].

        Args:
            ids: class id by WNID and by name, from ``categories.category_ids``.

        Raises:
            AnnotationError: a class that is not among them.
        """
        for number, name in enumerate(self.names.tolist()):
            if name not in ids:
                path = self.paths[self.files[np.argmax(self.name_numbers == number)]]
                Annotation(path.stem, 1, 1, (AnnotatedObject(name, (1, 1, 1, 1)),), path=path).labels(ids)
        by_name = np.array([ids[name] for name in self.names.tolist()], dtype=np.int64)
        return by_name[self.name_numbers]


def default_cache() -> Path:
    """The folder for caches of annotations of this user: ``~/.cache/inception_rcnn/annotations``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inception_rcnn" / "annotations"


def read_annotations(paths: Sequence[Path], cache: Path | None = None) -> ParsedAnnotations:
    """Reads annotation files, from the cache if files with this very content were read before.

    Args:
        cache: the folder of the cache, made if need be; None reads without one. A folder that cannot be written to
            is as good as none.

    Raises:
        AnnotationError: a file that is missing or malformed.
    """
    if cache is None:
        return _parse(paths)
    file = cache / f"{_digest(paths)}.npz"
    parsed = _load(file, paths)
    if parsed is None:
        parsed = _parse(paths)
        _store(file, parsed)
    return parsed


@lru_cache(maxsize=1)
def _code() -> bytes:
    """Changes with the source of the reader, so that what an older one made of the files is not found."""
    return b"".join(Path(str(source)).read_bytes() for source in (annotation.__file__, __file__))


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256(_code())
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as stream:
                content = stream.read()
        except OSError as error:
            raise AnnotationError(f"{path}: cannot read the annotation: {error.strerror}") from error
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()


def _parse(paths: Sequence[Path]) -> ParsedAnnotations:
    files: list[int] = []
    objects: list[AnnotatedObject] = []
    for number, path in enumerate(paths):
        found = read_annotation(path).objects
        objects.extend(found)
        files.extend([number] * len(found))
    names, numbers = np.unique(np.array([one.name for one in objects], dtype=np.str_), return_inverse=True)
    return ParsedAnnotations(
        paths=tuple(paths),
        files=np.array(files, dtype=np.int64),
        names=names,
        name_numbers=numbers.astype(np.int64),
        inclusive=np.array([one.box for one in objects], dtype=np.float64).reshape(-1, 4),
        difficult=np.array([one.difficult for one in objects], dtype=np.bool_),
    )


_ARRAYS = ("files", "names", "name_numbers", "inclusive", "difficult")


def _load(file: Path, paths: Sequence[Path]) -> ParsedAnnotations | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return ParsedAnnotations(tuple(paths), **{name: arrays[name] for name in _ARRAYS})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # not there, or cut off by a full disk
        return None


def _store(file: Path, parsed: ParsedAnnotations) -> None:
    partial = file.with_name(f"{file.stem}.{os.getpid()}.partial.npz")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, **{name: getattr(parsed, name) for name in _ARRAYS})
        partial.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
