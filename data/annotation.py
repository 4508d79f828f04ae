"""Reads and writes ILSVRC and PASCAL VOC annotation files: one XML file per picture.

The files are untrusted: the reader refuses XML entities (defusedxml) and checks every value before it is used.
An `Annotation` holds the coordinates of its file; `Annotation.boxes` converts them to the program's box convention.
"""

from __future__ import annotations

import difflib
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from defusedxml import ElementTree as SafeElementTree
from defusedxml.common import DefusedXmlException

from ..runtime.atomic_write import atomic_write
from .boxes import from_inclusive, reach_beyond

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class AnnotationError(ValueError):
    """An annotation cannot be used; the message names the file, the element and the expected value."""


@dataclass(frozen=True)
class AnnotatedObject:
    """An object in a picture.

    Attributes:
        name: the class of the object: a WNID in ILSVRC files, a name in VOC files.
        box: `(xmin, ymin, xmax, ymax)` as in the file: pixels, 1-based, inclusive.
        difficult: whether VOC evaluation ignores the object.
        truncated: whether the object extends beyond its box (VOC); None if the file has no such element.
        pose: the viewpoint, for example "Left" or "Frontal" (VOC); None if the file has no such element.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool | None = None
    pose: str | None = None


@dataclass(frozen=True)
class Annotation:
    """The content of an annotation file.

    Attributes:
        filename: name of the picture; ILSVRC files omit the suffix.
        width, height: size of the picture in pixels.
        objects: the objects in the order of the file. A picture may have no objects.
        folder, database: source of the picture; may be empty.
        path: the file that was read, for error messages. Comparisons ignore it.
    """

    filename: str
    width: int
    height: int
    objects: tuple[AnnotatedObject, ...] = ()
    folder: str = ""
    database: str = ""
    path: Path | None = field(default=None, compare=False)

    @property
    def boxes(self) -> npt.NDArray[np.float32]:
        """The boxes in the program's convention (0-based, half-open), float32 [N, 4], not clipped."""
        return from_inclusive([annotated.box for annotated in self.objects])

    @property
    def difficult(self) -> npt.NDArray[np.bool_]:
        """Whether each object is difficult, bool [N]."""
        return np.array([annotated.difficult for annotated in self.objects], dtype=np.bool_)

    @property
    def outside(self) -> npt.NDArray[np.bool_]:
        """Whether each box extends more than a pixel beyond the picture, bool [N].

        A box may extend by one pixel because some files count pixels from 0.
        """
        return reach_beyond(self.boxes, self.width, self.height)

    def labels(self, ids: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """Returns the class ids of the objects, int64 [N].

        Args:
            ids: class id by WNID and by name, from `categories.category_ids`.

        Raises:
            AnnotationError: the class of an object is not in `ids`.
        """
        for number, annotated in enumerate(self.objects, start=1):
            if annotated.name not in ids:
                raise _error(self.path, f"object {number}, <name>", _unknown_class(annotated.name, ids))
        return np.array([ids[annotated.name] for annotated in self.objects], dtype=np.int64)


def read_annotation(path: str | Path) -> Annotation:
    """Reads an annotation file. <pose>, <truncated>, <difficult>, <folder> and <source> may be missing.

    Raises:
        AnnotationError: the file does not exist, is not XML or contains entities; or an element is missing or
            malformed (not a number, not finite, an inverted box).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the annotation: {error.strerror}") from error
    return _parse(content, path)


def write_annotation(path: str | Path, annotation: Annotation) -> None:
    """Writes an annotation file in the ILSVRC form, UTF-8. `read_annotation` returns an equal `Annotation`.

    Raises:
        AnnotationError: a value that the file format cannot hold (an inverted box, a name with control characters or
            surrounding spaces). Then nothing is written.
    """
    path = Path(path)
    content = _to_xml(annotation)
    if _parse(content, path) != annotation:
        raise AnnotationError(f"{path}: not written: a text is empty or has spaces around it: {annotation}")
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def _parse(content: bytes, path: Path) -> Annotation:
    try:
        root = SafeElementTree.fromstring(content)
    except DefusedXmlException as error:
        raise AnnotationError(f"{path}: entities are not allowed in an annotation ({type(error).__name__})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: unknown encodings
        raise AnnotationError(f"{path}: not well-formed XML: {error}") from error
    if root.tag != "annotation":
        raise _error(path, f"<{root.tag}>", "expected <annotation> as the root element")
    return Annotation(
        filename=_text(root, "filename", path),
        width=_pixels(root, "size/width", path),
        height=_pixels(root, "size/height", path),
        objects=tuple(_object(element, n, path) for n, element in enumerate(root.findall("object"), start=1)),
        folder=_optional_text(root, "folder") or "",
        database=_optional_text(root, "source/database") or "",
        path=path,
    )


def _object(element: ElementTree.Element, number: int, path: Path) -> AnnotatedObject:
    where = f"object {number}, "
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{side}", path, where) for side in _SIDES)
    if xmax < xmin or ymax < ymin:
        got = f"({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g})"
        raise _error(path, f"{where}<bndbox>", f"expected xmin <= xmax and ymin <= ymax, got {got}")
    return AnnotatedObject(
        name=_text(element, "name", path, where),
        box=(xmin, ymin, xmax, ymax),
        difficult=bool(_flag(element, "difficult", path, where)),
        truncated=_flag(element, "truncated", path, where),
        pose=_optional_text(element, "pose"),
    )


def _optional_text(parent: ElementTree.Element, tag: str) -> str | None:
    return (parent.findtext(tag) or "").strip() or None


def _text(parent: ElementTree.Element, tag: str, path: Path, where: str = "") -> str:
    text = _optional_text(parent, tag)
    if text is None:
        state = "missing" if parent.find(tag) is None else "empty"
        raise _error(path, f"{where}<{tag}>", f"the element is {state}; expected text or a number")
    return text


def _number(parent: ElementTree.Element, tag: str, path: Path, where: str) -> float:
    text = _text(parent, tag, path, where)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise _error(path, f"{where}<{tag}>", f"expected a finite number, got {text[:40]!r}")
    return number


def _pixels(parent: ElementTree.Element, tag: str, path: Path) -> int:
    number = _number(parent, tag, path, "")
    if number < 1 or not number.is_integer():
        raise _error(path, f"<{tag}>", f"expected a whole number of pixels, at least 1, got {number:g}")
    return int(number)


def _flag(parent: ElementTree.Element, tag: str, path: Path, where: str) -> bool | None:
    text = _optional_text(parent, tag)
    if text not in (None, "0", "1"):
        raise _error(path, f"{where}<{tag}>", f"expected 0 or 1, got {text[:40]!r}")
    return None if text is None else text == "1"


def _unknown_class(name: str, ids: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(name, ids, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else f"the list begins with {', '.join(list(ids)[:6])}"
    return f"the class {name!r} is not in the class list; {hint}. Name your own classes with --classes FILE"


def _error(path: Path | None, element: str, problem: str) -> AnnotationError:
    return AnnotationError(f"{path or 'annotation'}: {element}: {problem}")


def _to_xml(annotation: Annotation) -> bytes:
    root = ElementTree.Element("annotation")
    _add_text(root, "folder", annotation.folder)
    _add_text(root, "filename", annotation.filename)
    _add_text(ElementTree.SubElement(root, "source"), "database", annotation.database)
    size = ElementTree.SubElement(root, "size")
    _add_text(size, "width", str(annotation.width))
    _add_text(size, "height", str(annotation.height))
    for annotated in annotation.objects:
        element = ElementTree.SubElement(root, "object")
        _add_text(element, "name", annotated.name)
        if annotated.pose is not None:
            _add_text(element, "pose", annotated.pose)
        if annotated.truncated is not None:
            _add_text(element, "truncated", str(int(annotated.truncated)))
        _add_text(element, "difficult", str(int(annotated.difficult)))
        box = ElementTree.SubElement(element, "bndbox")
        for side, value in zip(_SIDES, map(float, annotated.box), strict=True):
            _add_text(box, side, f"{value:.0f}" if value.is_integer() else repr(value))
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _add_text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
