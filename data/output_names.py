"""Names of the files that are written for each picture: drawings and annotations."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..runtime.remote import is_url

# Longest name in bytes, without suffix. File systems allow 255, and a suffix and a number are added.
_LONGEST_NAME = 200


def distinct_names(paths: Sequence[Path | str], *, printable: bool = False) -> list[str]:
    """A distinct name for each picture: its file name without suffix, numbered if the name is taken.

    The query of a URL is no part of the name. A long name is cut.

    Args:
        paths: files or URLs.
        printable: whether letters that cannot be printed or are not UTF-8 become "_", as XML needs it.
    """
    taken: set[str] = set()
    last_number: defaultdict[str, int] = defaultdict(lambda: 1)
    names = []
    for path in paths:
        file_name = str(path).partition("?")[0].rpartition("/")[2] if is_url(path) else path
        stem = Path(file_name).stem
        if printable:
            stem = "".join(letter if letter.isprintable() else "_" for letter in stem).strip(" .")
        stem = stem or "picture"
        while len(os.fsencode(stem)) > _LONGEST_NAME:
            stem = stem[:-1]
        name = stem
        while _same_file(name) in taken:
            last_number[stem] += 1
            name = f"{stem}-{last_number[stem]}"
        taken.add(_same_file(name))
        names.append(name)
    return names


def _same_file(name: str) -> str:
    """Equal for two names that are one file on some file system."""
    return unicodedata.normalize("NFC", name).casefold()
