"""Reads many annotation files into arrays, and caches the arrays by the content of the files.

Parsing 20,000 XML files takes seconds; reading their bytes takes a fraction of a second. The cache key is therefore a
hash of all bytes. An edited file changes the key, so the cache never returns stale data. An entry contains a hash of
its arrays. A damaged entry is written again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.atomic_write import atomic_write
from ..runtime.user_cache import user_cache
from . import annotation
from .annotation import AnnotatedObject, Annotation, AnnotationError, read_annotation

_logger = logging.getLogger(__name__.split(".")[0])


@dataclass(frozen=True, eq=False)
class ParsedAnnotations:
    """The G objects of a sequence of annotation files, in the order of the files and of the objects in each file.

    Attributes:
        paths: the files.
        files: int64 [G], position in `paths` of the file that holds each object.
        names: str [K], the class names that occur.
        name_numbers: int64 [G], position in `names` of the class of each object.
        inclusive: float64 [G, 4], `(xmin, ymin, xmax, ymax)` as in the files: 1-based and inclusive.
        difficult: bool [G].
    """

    paths: tuple[Path, ...]
    files: npt.NDArray[np.int64]
    names: npt.NDArray[np.str_]
    name_numbers: npt.NDArray[np.int64]
    inclusive: npt.NDArray[np.float64]
    difficult: npt.NDArray[np.bool_]

    def labels(self, ids: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """Returns the class ids of the objects, int64 [G].

        Args:
            ids: class id by WNID and by name, from `categories.category_ids`.

        Raises:
            AnnotationError: a class is not in `ids`.
        """
        for number, name in enumerate(self.names.tolist()):
            if name not in ids:  # Annotation.labels raises the error that names the file and similar classes.
                path = self.paths[self.files[np.argmax(self.name_numbers == number)]]
                Annotation(path.stem, 1, 1, (AnnotatedObject(name, (1, 1, 1, 1)),), path=path).labels(ids)
        by_name = np.array([ids[name] for name in self.names.tolist()], dtype=np.int64)
        return by_name[self.name_numbers]


def default_cache() -> Path:
    """The folder in which the commands cache annotations."""
    return user_cache("annotations")


def read_annotations(paths: Sequence[Path], cache: Path | None = None) -> ParsedAnnotations:
    """Reads annotation files; takes the result from the cache if files of the same content were read before.

    Args:
        cache: the folder of the cache, created if missing; None disables caching. If the folder is not writable,
            the files are parsed and nothing is cached.

    Raises:
        AnnotationError: a file is missing or malformed.
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
def _source_code() -> bytes:
    """The source of the reader. It is part of the cache key: another version of the reader uses other entries."""
    return b"".join(Path(str(source)).read_bytes() for source in (annotation.__file__, __file__))


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256(_source_code())
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as stream:
                content = stream.read()
        except OSError as error:
            raise AnnotationError(f"{path}: cannot read the annotation: {error.strerror}") from error
        except ValueError as error:  # a NUL character
            raise AnnotationError(f"{path}: cannot read the annotation: {error}") from error
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
    names, numbers = np.unique(np.array([annotated.name for annotated in objects], dtype=np.str_), return_inverse=True)
    return ParsedAnnotations(
        paths=tuple(paths),
        files=np.array(files, dtype=np.int64),
        names=names,
        name_numbers=numbers.astype(np.int64),
        inclusive=np.array([annotated.box for annotated in objects], dtype=np.float64).reshape(-1, 4),
        difficult=np.array([annotated.difficult for annotated in objects], dtype=np.bool_),
    )


_ARRAYS = ("files", "names", "name_numbers", "inclusive", "difficult")


def _load(file: Path, paths: Sequence[Path]) -> ParsedAnnotations | None:
    """Returns a cached entry; None if it is missing, unreadable or damaged."""
    try:
        stream = file.open("rb")
    except OSError:
        return None
    try:
        with stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in _ARRAYS}
            if stored["checksum"].tobytes() == _checksum(arrays):
                return ParsedAnnotations(tuple(paths), **arrays)
    except Exception:  # zipfile and numpy raise many types of errors for damaged files
        pass
    _logger.warning("%s: the cached annotations are damaged; the annotation files are read again", file)
    return None


def _store(file: Path, parsed: ParsedAnnotations) -> None:
    arrays = {name: getattr(parsed, name) for name in _ARRAYS}
    with suppress(OSError), atomic_write(file, shared=True) as partial, partial.open("wb") as stream:
        np.savez(stream, checksum=np.frombuffer(_checksum(arrays), np.uint8), **arrays)


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.digest()
