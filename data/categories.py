"""Class lists: the 200 classes of ILSVRC DET, or the classes of a user.

Ids start at 1, because the network uses 0 for the background.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .json_values import class_name, shown

_DET_TABLE = Path(__file__).with_name("det_categories.tsv")


@dataclass(frozen=True)
class Category:
    """A class.

    Attributes:
        id: number of the class, at least 1; for the 200 classes of ILSVRC the DET id. For a classifier of whole
            pictures it is the number of the network's output, from 0.
        wnid: WordNet id, for example "n02084071".
        name: for example "dog".
    """

    id: int
    wnid: str
    name: str


@dataclass(frozen=True)
class Subclass:
    """A class that a network tells apart beneath the classes that are detected: "Samoyed" beneath "dog".

    Attributes:
        wnid: WordNet id, for example "n02111889".
        name: for example "Samoyed".
        category: the `Category.id` that the subclass belongs to; None if it belongs to no class that is detected.
    """

    wnid: str
    name: str
    category: int | None


def finest_name(name: str, subclass: Subclass) -> str:
    """The finest name of an object: "dog: Samoyed", or "goldfish" if the subclass has the name of the class."""
    return name if subclass.name == name else f"{name}: {subclass.name}"


class CategoryError(ValueError):
    """A class list cannot be used; the message names the file and the line."""


@lru_cache(maxsize=1)
def det_categories() -> tuple[Category, ...]:
    """Returns the 200 classes of the ILSVRC detection task in the order of their ids 1..200."""
    return read_categories(_DET_TABLE)


def read_categories(path: str | Path) -> tuple[Category, ...]:
    """Reads a class list (UTF-8). Empty lines are ignored. The file has one of two forms:

    - a table `id  wnid  name` separated by tabs, like `det_categories.tsv`, with or without a header line;
    - one name per line: the ids are 1..K in the order of the lines, and the name is also the WNID.

    Raises:
        CategoryError: the file does not exist, contains no classes or a malformed line, an id is below 1, or an id,
            WNID or name occurs twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CategoryError(f"{path}: cannot read the class list: {error}") from error
    lines = [(number, line.strip("\r ")) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        raise CategoryError(f"{path}: contains no classes; expected one name per line, or a table id, WNID, name")
    is_table = "\t" in lines[0][1]
    if is_table and lines[0][1].lower().split("\t") == ["id", "wnid", "name"]:
        del lines[0]

    categories: list[Category] = []
    seen: dict[tuple[str, int | str], int] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        category = _from_row(line, where) if is_table else Category(len(categories) + 1, line, line)
        try:
            category = Category(category.id, class_name(category.wnid), class_name(category.name))
        except ValueError as error:
            raise CategoryError(f"{where}: {error}") from error
        for field in ("id", "wnid", "name"):
            key = (field, getattr(category, field))
            if key in seen:
                raise CategoryError(f"{where}: the {field} {key[1]!r} occurs in line {seen[key]} too")
            seen[key] = number
        categories.append(category)
    if not categories:
        raise CategoryError(f"{path}: contains no classes, only the line of headings")
    return tuple(categories)


def read_class_names(text: str) -> list[str]:
    """The class names in a text such as "lion, zebra", or the WNIDs in the class list of that name.

    Raises:
        CategoryError: the class list is malformed, see `read_categories`.
    """
    if os.path.isfile(text):
        return [category.wnid for category in read_categories(text)]
    return [name.strip() for name in text.split(",") if name.strip()]


def category_ids(categories: Iterable[Category]) -> dict[str, int]:
    """Maps the WNID and the name of each class to its id. If a WNID equals another class's name, the WNID wins."""
    categories = tuple(categories)
    by_name = {category.name: category.id for category in categories}
    return by_name | {category.wnid: category.id for category in categories}


def _from_row(line: str, where: str) -> Category:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != 3 or not all(fields) or not (fields[0].isascii() and fields[0].isdigit()):
        raise CategoryError(f"{where}: expected id, WNID and name separated by tabs, got {shown(line)}")
    if len(fields[0]) > 15 or int(fields[0]) < 1:
        problem = "expected at least 1 (0 is the background) and at most 15 digits"
        raise CategoryError(f"{where}: the id is {fields[0][:40]}; {problem}")
    return Category(int(fields[0]), fields[1], fields[2])
