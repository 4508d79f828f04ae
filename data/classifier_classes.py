"""The classes of classifiers of whole pictures: ImageNet's, or a list in a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from .categories import Category, CategoryError
from .json_values import class_name

_IMAGENET = Path(__file__).with_name("imagenet_classes.tsv")
_SYNSET = re.compile(r"(n\d{8})\s+(\S.*)")


@lru_cache(maxsize=1)
def imagenet_classes() -> tuple[Category, ...]:
    """Returns the 1,000 classes of ILSVRC 2012 in the order of the public networks' outputs, with ids from 0.

    The name is the first of the names that WordNet gives.
    """
    rows = [line.split("\t") for line in _IMAGENET.read_text(encoding="utf-8").splitlines()[1:]]
    return tuple(Category(number, wnid, _first(names)) for number, (wnid, names) in enumerate(rows))


def read_classifier_classes(path: str | Path) -> tuple[Category, ...]:
    """Reads the classes of a classifier's outputs, a line for each output, in UTF-8. Empty lines are ignored.

    A line is "n01440764 tench, Tinca tinca", as in Caffe's `synset_words.txt`: the WNID, then names, of which the first
    is used. A line of another form is a name, which is also the WNID.

    Returns:
        The classes with ids from 0.

    Raises:
        CategoryError: the file cannot be read or holds no classes, or a WNID occurs twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CategoryError(f"{path}: cannot read the class list: {error}") from error
    classes: list[Category] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.strip()
        if not name:
            continue
        found = _SYNSET.fullmatch(name)
        wnid, name = (found[1], _first(found[2])) if found else (name, name)
        try:
            wnid, name = class_name(wnid), class_name(name)
        except ValueError as error:
            raise CategoryError(f"{path}, line {number}: {error}") from error
        if wnid in seen:
            raise CategoryError(f"{path}, line {number}: {wnid!r} occurs in line {seen[wnid]} too")
        seen[wnid] = number
        classes.append(Category(len(classes), wnid, name))
    if not classes:
        raise CategoryError(f"{path}: contains no classes; expected a line for each, as in Caffe's synset_words.txt")
    return tuple(classes)


def named_classes(names: Sequence[str]) -> tuple[Category, ...]:
    """Returns classes with these names and ids from 0. A name that is the WNID of a class of ImageNet gets its name."""
    known = {one.wnid: one.name for one in imagenet_classes()}
    return tuple(Category(number, name, known.get(name, name)) for number, name in enumerate(names))


def class_positions(classes: Sequence[Category]) -> dict[str, int]:
    """Maps each WNID, and each name that only one class has, to the position of the class. A WNID wins over a name."""
    count = Counter(one.name for one in classes)
    by_name = {one.name: position for position, one in enumerate(classes) if count[one.name] == 1}
    return by_name | {one.wnid: position for position, one in enumerate(classes)}


def _first(names: str) -> str:
    return names.split(",")[0].strip()
