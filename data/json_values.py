"""Reads the values of JSON files strictly: each function returns the value that the file means, or raises a ValueError.

Python's own conversions would accept values that mean something else: `float("1")`, `float(True)`, `bool("no")`, or a
whole number that a float rounds. The errors say what was expected; `shown` shortens a value for an error message.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .boxes import LARGEST_COORDINATE

LARGEST_ID = 2**63 - 1  # the largest int64
LONGEST_NAME = 256  # characters in the name of a class
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")
_LARGEST_WHOLE_FLOAT = 2**53  # above, floats skip whole numbers

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = 60


def load_json(file: str | Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        ValueError: the file is not JSON, an object has a key twice, or the file is nested too deeply.
        OSError: the file cannot be read.
    """
    try:
        return json.loads(Path(file).read_bytes(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object. Of a key that occurs twice, Python would keep the last value without a word."""
    content = dict(pairs)
    if len(content) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in an object that has {shown(sorted(content))}")
    return content


def shown(value: object) -> str:
    """Returns a short text of at most 80 characters for any value."""
    text = _short.repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def whole_number(value: object) -> int:
    """Returns a whole number of 64 bits. The file may write it as a float (1.0) if the float is exact."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE_FLOAT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {shown(value)}")
    if not -LARGEST_ID - 1 <= value <= LARGEST_ID:
        raise ValueError(f"expected a whole number of 64 bits, got {shown(value)}")
    return value


def whole_number_as_text(value: object) -> int:
    """Returns the whole number that a text of digits means, for files that write all ids as text."""
    if not isinstance(value, str) or len(value) > 20 or not (value.isascii() and value.isdigit()):
        raise ValueError(f"expected a whole number as text, as in the first entry, got {shown(value)}")
    return whole_number(int(value))


def number(value: object) -> float:
    """Returns a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {shown(value)}")
    if not abs(value) <= 1e300 or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {shown(value)}")
    return float(value)


def coordinate(value: object) -> float:
    """Returns a number of pixels that float32 holds exactly enough: at most `LARGEST_COORDINATE`."""
    if abs(pixels := number(value)) > LARGEST_COORDINATE:
        raise ValueError(f"expected at most {LARGEST_COORDINATE:,} pixels, got {shown(value)}")
    return pixels


def xywh(value: object) -> tuple[float, float, float, float]:
    """Returns a COCO box, four coordinates (x, y, width, height). A side may be 0, but not negative."""
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"expected a list of four numbers [x, y, width, height], got {shown(value)}")
    x, y, width, height = map(coordinate, value)
    if width < 0 or height < 0:
        raise ValueError(f"expected a width and a height of at least 0, got {shown(value)}")
    return x, y, width, height


def area(value: object) -> float:
    """Returns an area in square pixels, at least 0."""
    if (pixels := number(value)) < 0:
        raise ValueError(f"expected at least 0, got {shown(value)}")
    return pixels


def flag(value: object) -> bool:
    """Returns a flag: 0, 1, false or true."""
    if not isinstance(value, int | float) or value not in (0, 1):
        raise ValueError(f"expected 0 or 1, got {shown(value)}")
    return bool(value)


def side(value: object) -> int:
    """Returns the width or the height of a picture, a whole number from 1 to `LARGEST_COORDINATE`."""
    if not 1 <= (pixels := whole_number(value)) <= LARGEST_COORDINATE:
        raise ValueError(f"expected from 1 to {LARGEST_COORDINATE:,} pixels, got {shown(value)}")
    return pixels


def class_name(value: object) -> str:
    """Returns the name of a class, without blanks around it: a text of 1 to `LONGEST_NAME` printable characters.

    XML files and lists cannot hold control characters, and files in UTF-8 no surrogates.
    """
    name = value.strip() if isinstance(value, str) else ""
    if not name or len(name) > LONGEST_NAME:
        raise ValueError(f"expected a text of 1 to {LONGEST_NAME} characters, got {shown(value)}")
    if unprintable := _UNPRINTABLE.search(name):
        raise ValueError(f"expected a text without the character {unprintable[0]!r}, got {shown(value)}")
    return name


def file_name(value: object) -> str:
    """Returns the name of a file, which may have folders before it."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f"expected the name of a file, got {shown(value)}")
    if value.replace("\\", "/").rpartition("/")[2] in ("", ".", ".."):
        raise ValueError(f"expected the name of a file, got {shown(value)}")
    return value


def ids_are_text(ids: Iterable[object]) -> bool:
    """Whether a file writes its ids as text, judged by the first."""
    return isinstance(next(iter(ids), None), str)
