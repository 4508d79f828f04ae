"""Proposals on disk, to hand on: one .npz file for any number of pictures, made by any method.

    with ProposalWriter("boxes.npz", {"method": "mine"}) as writer:
        writer.add("holiday/a.jpg", width, height, Proposals(boxes, scores))
    with read_proposals("boxes.npz") as file:
        file.find("/home/me/holiday/a.jpg")    # Proposals, or None where the file has none of this picture

The file is a ZIP archive, as `numpy.load` reads it:

    0.npy, 1.npy ..   for each picture float32 [N, 5]: x1, y1, x2, y2 in pixels of the upright full-size picture
                      (0-based, half-open), score; best first. "No boxes" is [0, 5]. Where boxes are not all of
                      selective search [N, 6], the number of their `Source` last.
    index.json        {"format": "inception-rcnn proposals", "version": 1, "settings": {..},
                       "images": [{"file_name", "width", "height"}, ..], "failures": [{"file_name", "reason"}, ..]}

Why so: an array per picture is written when it is ready and read when it is asked for, so that memory does not grow
with the folder; 10 bytes a box (selective search; JSON lines take 68, gzipped 19); nothing in it is executed.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePath, PurePosixPath
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..data.images import IMAGE_SUFFIXES
from .proposals import Proposals, Source

FORMAT: Final = "inception-rcnn proposals"
VERSION: Final = 1
INDEX: Final = "index.json"
# What a member may unpack to: a small archive must not fill the memory.
MAX_BOXES: Final = 1_000_000
MAX_INDEX: Final = 1 << 28
_ROW: Final = 6 * 4  # bytes of a box
_HEADER: Final = 10_000  # bytes; numpy refuses longer ones
_EXPECTED: Final = "expected a file of detect-propose or ProposalWriter (docs/recall.md describes it)"


class ProposalFileError(ValueError):
    """A file of proposals that cannot be written or used; the message says what was expected where."""


class ProposalWriter:
    """Writes a file of proposals picture by picture; see the module's example.

    The file appears under its name when the `with` block ends; until then it is `<name>.partial`. After an exception
    in the block there is no new file, and one of that name is as it was: half the pictures would pass for all of them.

    Args:
        file: the file to write; its folder is made if need be.
        settings: how the boxes were made, for the reader of figures: plain numbers, texts and lists.
    """

    def __init__(self, file: str | Path, settings: Mapping[str, Any]):
        self._file = Path(file)
        self._partial = self._file.with_name(self._file.name + ".partial")
        self._index: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "settings": dict(settings),
            "images": [],
            "failures": [],
        }
        self._names: set[str] = set()

    def __enter__(self) -> ProposalWriter:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._archive = zipfile.ZipFile(self._partial, "w")
        return self

    def add(self, file_name: str, width: int, height: int, proposals: Proposals) -> None:
        """The proposals of one picture.

        Args:
            file_name: by which it will be found: the end of its path, with forward slashes (`ProposalFile.find`).
            width, height: of the upright full-size picture.
            proposals: best first.

        Raises:
            ProposalFileError: a name that is there already, or boxes or scores that no reader would accept.
        """
        where = f"{self._file}: {file_name}"
        if file_name in self._names:
            raise ProposalFileError(f"{where}: is there already; expected each picture once")
        columns: list[np.ndarray] = [proposals.boxes, proposals.scores]
        if proposals.source.any():
            columns.append(proposals.source.astype(np.float32))
        rows = np.column_stack(columns).astype("<f4")
        _check(rows, where)
        with self._archive.open(_member(f"{len(self._index['images'])}.npy"), "w") as stream:
            npy.write_array(stream, rows, version=(1, 0), allow_pickle=False)
        self._names.add(file_name)
        self._index["images"].append({"file_name": file_name, "width": width, "height": height})

    def fail(self, file_name: str, reason: str) -> None:
        """A picture that could not be read, and why."""
        self._index["failures"].append({"file_name": file_name, "reason": reason})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._archive.writestr(_member(INDEX), json.dumps(self._index, ensure_ascii=False))
            self._archive.close()
            if error is None:
                self._partial.replace(self._file)
        finally:
            self._partial.unlink(missing_ok=True)


def names_below_common_folder(paths: Sequence[Path]) -> list[str]:
    """File names for `ProposalWriter.add`: the paths below the deepest folder that holds all the pictures.

    They say nothing of the machine, and find the pictures again when their folder has moved.
    """
    whole = [Path(os.path.abspath(path)) for path in paths]
    if len({path.anchor for path in whole}) > 1:  # drives of Windows have no folder in common
        return [path.as_posix() for path in whole]
    common = os.path.commonpath([path.parent for path in whole]) if whole else ""
    return [path.relative_to(common).as_posix() for path in whole]


def read_proposals(file: str | Path) -> ProposalFile:
    """Opens a file of proposals. Boxes are read when they are asked for; the file stays open until `close`.

    Raises:
        ProposalFileError: no such file, or not one of proposals.
    """
    return ProposalFile(file)


class ProposalFile:
    """An open file of proposals: looks up the boxes of a picture.

    Attributes:
        file: its path.
        settings: how the boxes were made, as the writer put it.
        names: the pictures, in the order of the file.
        failures: reason by name of the pictures that could not be read.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        try:
            self._archive = zipfile.ZipFile(self.file)
        except OSError as error:
            raise ProposalFileError(f"{file}: cannot read the proposals: {error.strerror}") from error
        except zipfile.BadZipFile as error:
            raise ProposalFileError(f"{file}: {_EXPECTED}; this is no .npz file, or a part of one ({error})") from error
        try:
            index = self._read_index()
            self.settings: dict[str, Any] = index["settings"]
            self.names: list[str] = [str(image["file_name"]) for image in index["images"]]
            self._sizes = [(int(image["width"]), int(image["height"])) for image in index["images"]]
            self.failures: dict[str, str] = {str(one["file_name"]): str(one["reason"]) for one in index["failures"]}
        except (KeyError, TypeError, ValueError) as error:
            self._archive.close()
            if isinstance(error, ProposalFileError):
                raise
            raise ProposalFileError(f"{file}, {INDEX}: malformed ({error!r}); {_EXPECTED}") from error
        self._position = {_parts(name): position for position, name in enumerate(self.names)}
        if len(self._position) < len(self.names):
            self._archive.close()
            raise ProposalFileError(f"{file}, {INDEX}: names a picture twice; expected each picture once")

    def __len__(self) -> int:
        """The number of pictures."""
        return len(self.names)

    def find(self, path: str | Path, size: tuple[int, int] | None = None) -> Proposals | None:
        """The proposals of a picture, or None where the file has none of it.

        A picture is the one whose name is an end of the path, whole folders compared: "holiday/a.jpg" and "a.jpg" are
        ends of "/home/me/holiday/a.jpg". Of several the longest counts. A name without a suffix of pictures
        ("ILSVRC2012_val_00000001") fits any of them.

        Args:
            path: the picture's file; it is not opened.
            size: (width, height) of the upright picture, where it is known: a guard against boxes of another picture.

        Raises:
            ProposalFileError: the picture there has another size, or its boxes are malformed.
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
                f"{where}: the proposals are of a picture of {width} x {height} pixels, this one has {size[0]} x "
                f"{size[1]}; make them anew with detect-propose"
            )
        member = f"{position}.npy"
        rows = _array(self._bytes(member, MAX_BOXES * _ROW + _HEADER), where)
        _check(rows, where)
        source = rows[:, 5] if rows.shape[1] == 6 else np.zeros(len(rows))
        return Proposals(np.ascontiguousarray(rows[:, :4]), np.ascontiguousarray(rows[:, 4]), source.astype(np.uint8))

    def _read_index(self) -> dict[str, Any]:
        content = json.loads(self._bytes(INDEX, MAX_INDEX))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ProposalFileError(f"{self.file}: {_EXPECTED}; its {INDEX} does not say 'format': '{FORMAT}'")
        if content.get("version") != VERSION:
            raise ProposalFileError(
                f"{self.file}: has version {content.get('version')!r} of the format, expected {VERSION}; "
                "read it with the program that wrote it, or make it anew with detect-propose"
            )
        return content

    def _bytes(self, member: str, limit: int) -> bytes:
        try:
            length = self._archive.getinfo(member).file_size
            if length > limit:
                raise ProposalFileError(f"{self.file}: {member} has {length:,} bytes, expected {limit:,} at the most")
            return self._archive.read(member)
        except KeyError as error:
            raise ProposalFileError(f"{self.file}: {_EXPECTED}; {member} is not in it") from error
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
            raise ProposalFileError(f"{self.file}: {member} is damaged: {error}") from error

    def close(self) -> None:
        """Close the file; it cannot be asked afterwards."""
        self._archive.close()

    def __enter__(self) -> ProposalFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _member(name: str) -> zipfile.ZipInfo:
    """An entry without a date: the same boxes are the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _array(content: bytes, where: str) -> NDArray[np.float32]:
    """The array of an .npy file that must be float32 [N, 5] or [N, 6]; not allocated before its size is checked."""
    stream = BytesIO(content)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0 of .npy")
        shape, by_columns, dtype = npy.read_array_header_1_0(stream, max_header_size=_HEADER)
    except ValueError as error:
        raise ProposalFileError(f"{where}: expected an array of .npy format ({error})") from error
    rows = content[stream.tell() :]
    if dtype != np.dtype("<f4") or len(shape) != 2 or shape[1] not in (5, 6) or len(rows) != math.prod(shape) * 4:
        raise ProposalFileError(
            f"{where}: expected float32 [N, 5]: x1, y1, x2, y2, score, or with the source [N, 6]; "
            f"got {dtype} {list(shape)}"
        )
    return np.frombuffer(rows, "<f4").reshape(shape, order="F" if by_columns else "C").astype(np.float32)


def _check(rows: NDArray[np.float32], where: str) -> None:
    if len(rows) > MAX_BOXES:
        raise ProposalFileError(f"{where}: {len(rows):,} boxes, expected {MAX_BOXES:,} at the most")
    wrong = ~np.isfinite(rows).all(axis=1) | (rows[:, 2] < rows[:, 0]) | (rows[:, 3] < rows[:, 1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ProposalFileError(
            f"{where}: box {row} is {rows[row].tolist()}: expected finite x1 <= x2, y1 <= y2 and score"
        )
    if rows.shape[1] == 6 and not np.isin(rows[:, 5], list(Source)).all():
        row = int(np.argmin(np.isin(rows[:, 5], list(Source))))
        raise ProposalFileError(
            f"{where}: the source of box {row} is {rows[row, 5]:g}: expected "
            + " or ".join(f"{source.value} ({source.name.lower().replace('_', ' ')})" for source in Source)
        )
    if (np.diff(rows[:, 4]) > 0).any():
        row = int(np.argmax(np.diff(rows[:, 4]) > 0)) + 1
        raise ProposalFileError(f"{where}: the score of box {row} is above that before it: expected the best box first")


def _parts(name: str) -> tuple[str, ...]:
    return PurePosixPath(name).parts


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name
