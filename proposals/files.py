"""Files of proposals: one .npz file holds the boxes of any number of images, made by any method.

    with ProposalWriter("boxes.npz", {"method": "mine"}) as writer:
        writer.add("holiday/a.jpg", width, height, Proposals(boxes, scores))
    with read_proposals("boxes.npz") as file:
        file.find("/home/me/holiday/a.jpg")    # Proposals, or None if the file does not contain this image

The file is a ZIP archive that `numpy.load` can read:

    0.npy, 1.npy ..   one array per image, float32 [N, 5]: x1, y1, x2, y2 in pixels of the upright full-size image
                      (0-based, half-open), and the score; best first. An image without boxes has [0, 5]. If any box
                      is not from selective search, the array is [N, 6] and the last column holds the `Source`.
    index.json        {"format": "inception-rcnn proposals", "version": 1, "settings": {..},
                       "images": [{"file_name", "width", "height"}, ..], "failures": [{"file_name", "reason"}, ..]}

Each array is written when it is computed and read when it is requested, so memory does not grow with the number of
images. A box of selective search takes 10 bytes (68 as JSON lines, 19 as gzipped JSON lines). Reading a
file never executes code.
"""

from __future__ import annotations

import json
import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType
from typing import Any, Final, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..data import json_values
from ..data.boxes import LARGEST_COORDINATE
from ..data.images import IMAGE_SUFFIXES
from ..data.json_values import shown
from ..runtime.atomic_write import atomic_write
from .proposals import Proposals, Source

FORMAT: Final = "inception-rcnn proposals"
VERSION: Final = 1
INDEX: Final = "index.json"
# Limits of the unpacked arrays and index: a small archive must not be able to fill the memory.
MAX_BOXES: Final = 1_000_000
MAX_INDEX: Final = 1 << 28
_ROW: Final = 6 * 4  # bytes per box
_HEADER: Final = 10_000  # bytes; numpy rejects longer headers
# What zipfile raises for damaged archives, with zlib's and lzma's errors for damaged content.
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, OverflowError,
)  # fmt: skip
# What numpy raises for damaged headers, which it reads with Python's parser.
_BAD_HEADER: Final = (
    ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError, OverflowError, AttributeError,
    tokenize.TokenError,
)  # fmt: skip
_EXPECTED: Final = "expected a file written by detect-propose or ProposalWriter (docs/recall.md describes the format)"

T = TypeVar("T")


class ProposalFileError(ValueError):
    """A file of proposals is malformed or belongs to other pictures.

    The message names the file, the value and the expectation.
    """


class ProposalWriter:
    """Writes a file of proposals image by image. The module docstring has an example.

    The file appears under its name when the `with` block ends. If the block raises, no new file appears and an
    existing file of this name stays unchanged, because a file with half of the images would look complete.

    Args:
        file: the file to write; its folder is created if it does not exist.
        settings: describes how the boxes were made. Only values that JSON can express are allowed.
    """

    def __init__(self, file: str | Path, settings: Mapping[str, Any]):
        self._file = Path(file)
        self._index: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "settings": dict(settings),
            "images": [],
            "failures": [],
        }
        self._names: set[str] = set()

    def __enter__(self) -> ProposalWriter:
        with ExitStack() as stack:
            partial = stack.enter_context(atomic_write(self._file))
            self._archive = stack.enter_context(zipfile.ZipFile(partial, "w"))
            self._open_files = stack.pop_all()
        return self

    def add(self, file_name: str, width: int, height: int, proposals: Proposals) -> None:
        """Writes the proposals of one image.

        Args:
            file_name: the end of the image's path, with forward slashes. `ProposalFile.find` finds the image by it.
            width, height: size of the upright full-size image in pixels.
            proposals: the boxes, best first.

        Raises:
            ProposalFileError: `file_name` was already added, or `ProposalFile` would reject the boxes or scores.
        """
        where = f"{self._file}: {file_name}"
        if file_name in self._names:
            raise ProposalFileError(f"{where}: was added twice; expected each picture once")
        columns: list[np.ndarray] = [proposals.boxes, proposals.scores]
        if proposals.source.any():
            columns.append(proposals.source.astype(np.float32))
        rows = np.column_stack(columns).astype("<f4")
        _check(rows, where, (width, height))
        with self._archive.open(_archive_entry(f"{len(self._index['images'])}.npy"), "w") as stream:
            npy.write_array(stream, rows, version=(1, 0), allow_pickle=False)
        self._names.add(file_name)
        self._index["images"].append({"file_name": file_name, "width": width, "height": height})

    def fail(self, file_name: str, reason: str) -> None:
        """Records that an image could not be read, and the reason."""
        self._index["failures"].append({"file_name": file_name, "reason": reason})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._open_files.__exit__(kind, error, trace)
            return
        with self._open_files:
            self._archive.writestr(_archive_entry(INDEX), json.dumps(self._index, ensure_ascii=False))


def names_below_common_folder(paths: Sequence[Path]) -> list[str]:
    """Returns file names for `ProposalWriter.add`: the paths relative to the deepest folder that contains all images.

    These names do not depend on the machine, and they still match after the folder has moved.
    """
    absolute = [Path(os.path.abspath(path)) for path in paths]
    if len({path.anchor for path in absolute}) > 1:  # files on several Windows drives have no common folder
        return [path.as_posix() for path in absolute]
    common = os.path.commonpath([path.parent for path in absolute]) if absolute else ""
    return [path.relative_to(common).as_posix() for path in absolute]


def read_proposals(file: str | Path) -> ProposalFile:
    """Opens a file of proposals. Boxes are read when they are requested; the file stays open until `close`.

    Raises:
        ProposalFileError: the file does not exist, or is not a file of proposals.
    """
    return ProposalFile(file)


class ProposalFile:
    """An open file of proposals, in which the boxes of an image can be looked up.

    Attributes:
        file: the path of the file.
        settings: describes how the boxes were made, as given to `ProposalWriter`.
        names: the file names of the images, in the order of the file.
        failures: the images that could not be read: file name -> reason.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        try:
            self._archive = zipfile.ZipFile(self.file)
        except (OSError, *_DAMAGE) as error:
            if isinstance(error, OSError) and error.strerror and not os.path.isfile(self.file):
                raise ProposalFileError(f"{file}: cannot read the proposals: {error.strerror}") from error
            raise ProposalFileError(
                f"{file}: {_EXPECTED}; this is not an .npz file, or only a part of one ({str(error)[:200]})"
            ) from error
        try:
            index = self._read_index()
            self.settings: dict[str, Any] = _field(index, "settings", _object)
            images = [_object(image) for image in _field(index, "images", _list)]
            self.names: list[str] = [_field(image, "file_name", json_values.file_name) for image in images]
            self._sizes = [
                (_field(image, "width", json_values.side), _field(image, "height", json_values.side))
                for image in images
            ]
            failures = [_object(failure) for failure in _field(index, "failures", _list)]
            self.failures: dict[str, str] = {
                _field(failure, "file_name", json_values.file_name): str(_field(failure, "reason", str))
                for failure in failures
            }
        except ValueError as error:
            self._archive.close()
            if isinstance(error, ProposalFileError):
                raise
            raise ProposalFileError(f"{file}, {INDEX}: malformed ({error}); {_EXPECTED}") from error
        self._position = {_parts(name): position for position, name in enumerate(self.names)}
        if len(self._position) < len(self.names):
            self._archive.close()
            raise ProposalFileError(f"{file}, {INDEX}: contains a picture twice; expected each picture once")

    def find(self, path: str | Path, size: tuple[int, int] | None = None) -> Proposals | None:
        """Returns the proposals of an image, or None if the file does not contain the image.

        An image matches if its name in the file is an end of `path`, compared folder by folder: both "holiday/a.jpg"
        and "a.jpg" match "/home/me/holiday/a.jpg". If several names match, the longest name wins. A name without an
        image suffix ("ILSVRC2012_val_00000001") matches a path with any image suffix.

        Args:
            path: the path of the image, which is not opened.
            size: (width, height) of the upright image in pixels. If given, it must equal the size in the file.

        Raises:
            ProposalFileError: the image in the file has another size, or its boxes are malformed, have no area or lie
                outside the image.
        """
        parts = PurePath(path).parts
        for start in range(len(parts)):
            end = parts[start:]
            for key in (end, (*end[:-1], _without_suffix(end[-1]))):
                if key in self._position:
                    return self._read(self._position[key], size)
        return None

    def _read(self, position: int, size: tuple[int, int] | None) -> Proposals:
        where = f"{self.file}: {self.names[position]}"
        if size is not None and size != self._sizes[position]:
            width, height = self._sizes[position]
            raise ProposalFileError(
                f"{where}: the proposals belong to a picture of {width} x {height} pixels, but this picture has "
                f"{size[0]} x {size[1]}; make new proposals with detect-propose"
            )
        member = f"{position}.npy"
        rows = _array(self._bytes(member, MAX_BOXES * _ROW + _HEADER), where)
        _check(rows, where, self._sizes[position])
        source = rows[:, 5] if rows.shape[1] == 6 else np.zeros(len(rows))
        return Proposals(np.ascontiguousarray(rows[:, :4]), np.ascontiguousarray(rows[:, 4]), source.astype(np.uint8))

    def _read_index(self) -> dict[str, Any]:
        try:
            content = json.loads(self._bytes(INDEX, MAX_INDEX))
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ProposalFileError(f"{self.file}: {_EXPECTED}; {INDEX} lacks 'format': '{FORMAT}'")
        if content.get("version") != VERSION:
            raise ProposalFileError(
                f"{self.file}: has version {shown(content.get('version'))} of the format, expected {VERSION}; "
                "read it with the program that wrote it, or make a new file with detect-propose"
            )
        return content

    def _bytes(self, member: str, limit: int) -> bytes:
        try:
            entry = self._archive.getinfo(member)
            if entry.file_size > limit:
                raise ProposalFileError(
                    f"{self.file}: {member} has {entry.file_size:,} bytes, expected at most {limit:,}"
                )
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ProposalFileError(
                    f"{self.file}: {member} is compressed by method {entry.compress_type}, expected 0 (stored) or 8 "
                    "(deflated)"
                )
            with self._archive.open(entry) as stream:
                # `read()` without a size would unpack everything that the content holds, whatever the directory says.
                content = stream.read(entry.file_size + 1)
        except KeyError as error:
            raise ProposalFileError(f"{self.file}: {_EXPECTED}; {member} is missing") from error
        except ProposalFileError:
            raise
        except (OSError, *_DAMAGE) as error:
            raise ProposalFileError(f"{self.file}: {member} is damaged: {str(error)[:200]}") from error
        if len(content) != entry.file_size:
            raise ProposalFileError(
                f"{self.file}: {member} is damaged: it has {len(content):,} bytes, but the directory of the archive "
                f"says {entry.file_size:,}"
            )
        return content

    def close(self) -> None:
        """Closes the file. Proposals cannot be looked up afterwards."""
        self._archive.close()

    def __enter__(self) -> ProposalFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _archive_entry(name: str) -> zipfile.ZipInfo:
    """Returns an archive entry without the current date, so that the same boxes give the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _array(content: bytes, where: str) -> NDArray[np.float32]:
    """Parses an .npy file with float32 [N, 5] or [N, 6]. The size is checked before the array is allocated."""
    stream = BytesIO(content)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0 of the .npy format")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of odd texts.
            shape, by_columns, dtype = npy.read_array_header_1_0(stream, max_header_size=_HEADER)
    except _BAD_HEADER as error:
        raise ProposalFileError(f"{where}: expected an array in .npy format ({str(error)[:200]})") from error
    rows = content[stream.tell() :]
    if dtype != np.dtype("<f4") or len(shape) != 2 or shape[1] not in (5, 6) or len(rows) != math.prod(shape) * 4:
        raise ProposalFileError(
            f"{where}: expected float32 [N, 5] (x1, y1, x2, y2, score) or [N, 6] (the source as well); "
            f"got {dtype!s:.80} {shown(list(shape))}"
        )
    return np.frombuffer(rows, "<f4").reshape(shape, order="F" if by_columns else "C").astype(np.float32)


def _check(rows: NDArray[np.float32], where: str, size: tuple[int, int]) -> None:
    """Raises a ProposalFileError unless the boxes can be used as regions of a picture of `size` (width, height)."""
    if len(rows) > MAX_BOXES:
        raise ProposalFileError(f"{where}: {len(rows):,} boxes, expected at most {MAX_BOXES:,}")
    x1, y1, x2, y2 = rows[:, :4].T
    faults = (
        (~np.isfinite(rows).all(axis=1), "expected finite numbers with x1 < x2 and y1 < y2"),
        ((x2 <= x1) | (y2 <= y1), "it has no area: expected x1 < x2 and y1 < y2"),
        (
            (np.abs(rows[:, :4]) > LARGEST_COORDINATE).any(axis=1),
            f"expected coordinates of at most {LARGEST_COORDINATE:,} pixels",
        ),
        (
            (x1 >= size[0]) | (y1 >= size[1]) | (x2 <= 0) | (y2 <= 0),
            f"it lies outside the picture of {size[0]} x {size[1]} pixels",
        ),
    )
    for wrong, problem in faults:
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ProposalFileError(f"{where}: box {row} is {rows[row].tolist()}: {problem}")
    if rows.shape[1] == 6 and not np.isin(rows[:, 5], list(Source)).all():
        row = int(np.argmin(np.isin(rows[:, 5], list(Source))))
        raise ProposalFileError(
            f"{where}: the source of box {row} is {rows[row, 5]:g}: expected "
            + " or ".join(f"{source.value} ({source.name.lower().replace('_', ' ')})" for source in Source)
        )
    if (np.diff(rows[:, 4]) > 0).any():
        row = int(np.argmax(np.diff(rows[:, 4]) > 0)) + 1
        raise ProposalFileError(
            f"{where}: box {row} has a higher score than the box before it: expected the best box first"
        )


def _field(content: dict[str, Any], name: str, read: Callable[[Any], T]) -> T:
    """The value of a field, converted by `read`, which raises a ValueError for a wrong value."""
    if name not in content:
        raise ValueError(f"{name} is missing")
    try:
        return read(content[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {shown(value)}")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list, got {shown(value)}")
    return value


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
