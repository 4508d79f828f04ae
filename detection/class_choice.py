"""Which classes a detector reports: all classes of its model, some of them, or the finest names that it tells apart."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..data.categories import Category, CategoryError, Subclass
from ..data.json_values import LONGEST_NAME, shown
from .model_files import Model
from .regression import BoxRegressor

FINEST = "imagenet"
"""The word that asks for all finest classes: a teacher's classes are those of ImageNet."""


@dataclass(frozen=True)
class ClassChoice:
    """The classes that a detector reports.

    Attributes:
        categories: the reported classes.
        subclasses: the model's subclasses; `Subclass.category` refers to `among`.
        among: the classes among which `categories` were chosen: the model's categories, or its finest classes.
        rows: int64, rising: the rows of `categories` in `among`.
        of_model: for each class of `among`, the row of its category in the model's categories; None for a finest class
            without category.
    """

    categories: tuple[Category, ...]
    subclasses: tuple[Subclass, ...]
    among: tuple[Category, ...]
    rows: np.ndarray
    of_model: tuple[int | None, ...]


def choose_classes(
    categories: Sequence[Category], subclasses: Sequence[Subclass], classes: Sequence[str] | str | None
) -> ClassChoice:
    """Finds the classes that a detector is to report.

    Non-maximum suppression, box regression and box voting work within each class, so the detections of a class do not
    depend on which other classes are reported.

    Args:
        categories, subclasses: those of the model.
        classes: names or WNIDs, in small letters or capitals: of the model's categories, or, if one of them is no
            category, of its finest classes. `FINEST` for all finest classes, None for all categories.

    Raises:
        CategoryError: `classes` is empty, the model has no such class, or finest classes are asked for and the model
            has no subclasses.
    """
    own = ClassChoice(tuple(categories), tuple(subclasses), tuple(categories), *_all_rows(len(categories)))
    if classes is None:
        return own
    names = [classes] if isinstance(classes, str) else list(classes)
    if not names:
        raise CategoryError("no classes to report are named")
    rows = _rows(categories, names)
    if None not in rows:
        return _part(own, rows)
    if names == [FINEST]:
        return _finest_classes(categories, subclasses)
    if not subclasses:
        raise _unknown(names[rows.index(None)], categories)
    finest = _finest_classes(categories, subclasses)
    finest_rows = _rows(finest.among, names)
    if None not in finest_rows:
        return _part(finest, finest_rows)
    for name, row, finest_row in zip(names, rows, finest_rows, strict=True):
        if row is None and finest_row is None:
            raise _unknown(name, [*categories, *finest.among])
    raise CategoryError(
        f"{shown(names[rows.index(None)])} is a finest name beneath a class, but "
        f"{shown(names[finest_rows.index(None)])} is a class; expected names of the same kind"
    )


def with_classes(model: Model, choice: ClassChoice) -> Model:
    """The model with `choice.among` as its categories.

    A finest class has the box regression of its category; a class without category has the mean of all regressions.
    """
    if choice.among == model.categories:
        return model
    regressor = model.regressor
    if regressor is not None:
        mean = regressor.weights.mean(axis=0)
        weights = [mean if row is None else regressor.weights[row] for row in choice.of_model]
        regressor = BoxRegressor(np.stack(weights))
    return replace(model, categories=choice.among, subclasses=choice.subclasses, regressor=regressor)


def _finest_classes(categories: Sequence[Category], subclasses: Sequence[Subclass]) -> ClassChoice:
    """All classes that the networks tell apart.

    Subclasses of the same WNID are one class: a class with boxes can also be a class of the teacher. If several classes
    have the same name, their WNIDs are added to it: "crane (n02012849)".
    """
    if not subclasses:
        raise CategoryError(
            f"the networks of this model tell only its {len(categories)} classes apart, so there are no finest names "
            "to report; a model that was trained with `detect-train --teacher` has them"
        )
    first: dict[str, Subclass] = {}
    for subclass in subclasses:
        first.setdefault(subclass.wnid, subclass)
    times = Counter(subclass.name for subclass in first.values())
    finest = {
        wnid: Category(number, wnid, one.name if times[one.name] == 1 else f"{one.name} ({wnid})")
        for number, (wnid, one) in enumerate(first.items(), 1)
    }
    rows = {category.id: row for row, category in enumerate(categories)}
    among = tuple(finest.values())
    everything, _ = _all_rows(len(among))
    of_model = tuple(None if one.category is None else rows[one.category] for one in first.values())
    renamed = tuple(Subclass(one.wnid, finest[one.wnid].name, finest[one.wnid].id) for one in subclasses)
    return ClassChoice(among, renamed, among, everything, of_model)


def _part(choice: ClassChoice, rows: Iterable[int | None]) -> ClassChoice:
    chosen = np.array(sorted({row for row in rows if row is not None}), np.int64)
    return replace(choice, categories=tuple(choice.among[row] for row in chosen), rows=chosen)


def _all_rows(count: int) -> tuple[np.ndarray, tuple[int, ...]]:
    return np.arange(count), tuple(range(count))


def _rows(categories: Sequence[Category], names: Iterable[str]) -> list[int | None]:
    """The row of each name or WNID; None where there is none. Exact names come before names in other letters."""
    rows: dict[str, int] = {}
    for spelled in (str, str.casefold):
        for field in ("wnid", "name"):
            for row, category in enumerate(categories):
                rows.setdefault(spelled(getattr(category, field)), row)
    return [rows.get(name, rows.get(name.casefold())) for name in names]


def _unknown(name: str, categories: Sequence[Category]) -> CategoryError:
    names = list(dict.fromkeys(category.name for category in categories))
    wanted = name[:LONGEST_NAME].casefold()
    within = [one for one in names if wanted in one.casefold()]
    similar = difflib.get_close_matches(wanted, [one.casefold() for one in names], n=3)
    near = list(dict.fromkeys([*within, *(one for one in names if one.casefold() in similar)]))[:5]
    hint = f"the nearest are {', '.join(near)}" if near else f"the classes begin with {', '.join(names[:6])}"
    return CategoryError(f"the model has no class {shown(name)}; {hint}")
