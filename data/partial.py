"""Partial annotations: which classes are annotated in which pictures.

Data sets that were made for other purposes mark only the objects of their own classes. A file beside the image list,
`<split>_annotated.txt`, says so. Each line has a picture's name, or a pattern such as `lions_*`, a tab, and the
annotated classes, by WNID or name, separated by commas:

    lions_*             lion
    street_0012         car, bus, traffic light
    *                   boxed

The first line that fits a picture counts. `boxed` stands for the classes of the boxes in the picture, `all` for all
classes. In a picture that no line fits, all classes are annotated. Objects of classes that are not annotated are
unknown: training takes no background from them, and evaluation ignores detections of these classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .annotation import AnnotationError
from .categories import Category, category_ids


class PartialAnnotationError(AnnotationError):
    """A file of annotated classes is malformed; the message names the file and the line."""


@dataclass(frozen=True)
class AnnotatedClasses:
    """The lines of a file, in order: the pattern, and class ids, or None for the classes of the picture's own boxes."""

    rules: tuple[tuple[str, frozenset[int] | None], ...]

    def of(self, image_id: str, labels: Iterable[int]) -> frozenset[int] | None:
        """Returns the ids of the classes that are annotated in a picture; None if all classes are.

        Args:
            image_id: name of the picture.
            labels: the class ids of the boxes in the picture, which are always annotated.
        """
        for pattern, classes in self.rules:
            if fnmatchcase(image_id, pattern):
                return None if classes == _ALL else (classes or frozenset()) | frozenset(labels)
        return None


_ALL = frozenset({-1})  # stands for "all"


def read_annotated_classes(path: str | Path, categories: Sequence[Category]) -> AnnotatedClasses:
    """Reads a file of annotated classes.

    Raises:
        PartialAnnotationError: the file cannot be read, or a line is malformed or names an unknown class.
    """
    path = Path(path)
    ids = category_ids(categories)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PartialAnnotationError(f"{path}: cannot read the annotated classes: {error}") from error
    rules: list[tuple[str, frozenset[int] | None]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pattern, tab, names = line.partition("\t")
        where = f"{path}, line {number}"
        classes = [name.strip() for name in names.split(",") if name.strip()]
        if not pattern.strip() or not tab or not classes:
            raise PartialAnnotationError(
                f"{where}: expected a picture or pattern, a tab, and classes, got {line[:80]!r}"
            )
        if classes in (["boxed"], ["all"]):
            rules.append((pattern.strip(), None if classes == ["boxed"] else _ALL))
            continue
        unknown = [name for name in classes if name not in ids]
        if unknown:
            raise PartialAnnotationError(f"{where}: the class {unknown[0][:80]!r} is not in the class list")
        rules.append((pattern.strip(), frozenset(ids[name] for name in classes)))
    return AnnotatedClasses(tuple(rules))
