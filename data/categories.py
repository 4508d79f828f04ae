"""Class lists: the 200 of ILSVRC DET, or a user's own.

Ids are 1-based: 0 is the background in the network.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_DET_TABLE = Path(__file__).with_name("det_categories.tsv")


@dataclass(frozen=True)
class Category:
    """One class: ``id`` (from 1; the DET id for the 200), ``wnid`` (WordNet id, "n02084071"), ``name`` ("dog")."""

    id: int
    wnid: str
    name: str


class CategoryError(ValueError):
    """A class list that cannot be used; the message names file and line."""


@lru_cache(maxsize=1)
def det_categories() -> tuple[Category, ...]:
    """The 200 classes of the ILSVRC detection task, in the order of their ids 1..200."""
    return read_categories(_DET_TABLE)


def read_categories(path: str | Path) -> tuple[Category, ...]:
    """Reads a class list in either of two forms, UTF-8, empty lines ignored.

    - A table with tabs, ``id  wnid  name``, as ``det_categories.tsv`` (the line of headings may be left out).
    - One name per line: the ids are 1..K in the order of the lines, and the WNID is the name.

    Raises:
        CategoryError: no such file, no classes in it, a line of another form, an id below 1, or an id, WNID or
            name that occurs twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CategoryError(f"{path}: cannot read the class list: {error}") from error
    lines = [(number, line.strip("\r ")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        raise CategoryError(f"{path}: no classes in it; expected one name per line, or a table id, WNID, name")
    is_table = "\t" in lines[0][1]
    if is_table and lines[0][1].lower().split("\t") == ["id", "wnid", "name"]:
        del lines[0]

    categories: list[Category] = []
    seen: dict[tuple[str, int | str], int] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        category = _from_row(line, where) if is_table else Category(len(categories) + 1, line, line)
        for field in ("id", "wnid", "name"):
            key = (field, getattr(category, field))
            if key in seen:
                raise CategoryError(f"{where}: the {field} {key[1]!r} is that of line {seen[key]} too")
            seen[key] = number
        categories.append(category)
    if not categories:
        raise CategoryError(f"{path}: no classes in it, only the line of headings")
    return tuple(categories)


def category_ids(categories: Iterable[Category]) -> dict[str, int]:
    """The id of each class by its WNID and by its name, as files use either; a WNID wins over a name."""
    categories = tuple(categories)
    return {one.name: one.id for one in categories} | {one.wnid: one.id for one in categories}


def _from_row(line: str, where: str) -> Category:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 3 or not all(fields) or not (fields[0].isascii() and fields[0].isdigit()):
        raise CategoryError(f"{where}: expected id, WNID and name with tabs between them, got {line!r}")
    if int(fields[0]) < 1:
        raise CategoryError(f"{where}: the id is {fields[0]}; expected 1 or more (0 is the background)")
    return Category(int(fields[0]), fields[1], fields[2])
