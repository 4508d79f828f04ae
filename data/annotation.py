"""ILSVRC and PASCAL VOC annotation files: one XML file per picture, in and out.

The files are untrusted: entities are refused (defusedxml), and every value is checked before it is used.
An ``Annotation`` mirrors its file, coordinates included; ``Annotation.boxes`` is where they enter the
program's convention.
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

from .boxes import from_inclusive, reach_beyond

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class AnnotationError(ValueError):
    """An annotation that cannot be used; the message names the file, the element and what was expected."""


@dataclass(frozen=True)
class AnnotatedObject:
    """One object.

    Attributes:
        name: its class: a WNID in ILSVRC files, a name in VOC files.
        box: ``(xmin, ymin, xmax, ymax)`` as in the file: pixels, 1-based, inclusive.
        difficult: an evaluation may leave it out (VOC).
        truncated: it goes on outside the box (VOC); None where the file does not say.
        pose: "Left", "Frontal" and the like (VOC); None where the file does not say.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool | None = None
    pose: str | None = None


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says about one picture.

    Attributes:
        filename: name of the picture, in ILSVRC files without suffix.
        width, height: size of the picture in pixels.
        objects: in the order of the file; none is normal.
        folder, database: where the picture comes from; may be empty.
        path: the file that was read, for messages; it takes no part in comparisons.
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
        return from_inclusive([one.box for one in self.objects])

    @property
    def difficult(self) -> npt.NDArray[np.bool_]:
        """Which objects are difficult, bool [N]."""
        return np.array([one.difficult for one in self.objects], dtype=np.bool_)

    @property
    def outside(self) -> npt.NDArray[np.bool_]:
        """Which boxes reach more than a pixel beyond the picture, bool [N]. (A pixel is what counting from 0 costs.)"""
        return reach_beyond(self.boxes, self.width, self.height)

    def labels(self, ids: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """The class ids of the objects, int64 [N].

        Args:
            ids: class id by WNID and by name, from ``categories.category_ids``.

        Raises:
            AnnotationError: a name that is not among them.
        """
        for number, one in enumerate(self.objects, start=1):
            if one.name not in ids:
                raise _error(self.path, f"object {number}, <name>", _unknown(one.name, ids))
        return np.array([ids[one.name] for one in self.objects], dtype=np.int64)


def read_annotation(path: str | Path) -> Annotation:
    """Reads an annotation file. <pose>, <truncated>, <difficult>, <folder> and <source> may be missing.

    Raises:
        AnnotationError: no such file, not XML, entities in it, or an element that is missing or malformed
            (not a number, not finite, an inverted box).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the annotation: {error.strerror}") from error
    return _parse(content, path)


def write_annotation(path: str | Path, annotation: Annotation) -> None:
    """Writes an annotation file in the ILSVRC form, UTF-8; reading it gives an equal ``Annotation``.

    Raises:
        AnnotationError: a value that no file can hold (an inverted box, a name with control characters or
            spaces around it). Nothing is written then.
    """
    path = Path(path)
    content = _format(annotation)
    if _parse(content, path) != annotation:
        raise AnnotationError(f"{path}: not written: a text is empty or has spaces around it: {annotation}")
    path.write_bytes(content)


def _parse(content: bytes, path: Path) -> Annotation:
    try:
        root = SafeElementTree.fromstring(content)
    except DefusedXmlException as error:
        raise AnnotationError(f"{path}: entities are not allowed in an annotation ({type(error).__name__})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: unknown encodings
        raise AnnotationError(f"{path}: not well-formed XML: {error}") from error
    if root.tag != "annotation":
        raise _error(path, f"<{root.tag}>", "expected <annotation> as the outermost element")
    return Annotation(
        filename=_text(root, "filename", path),
        width=_side(root, "size/width", path),
        height=_side(root, "size/height", path),
        objects=tuple(_object(one, n, path) for n, one in enumerate(root.findall("object"), start=1)),
        folder=_optional(root, "folder") or "",
        database=_optional(root, "source/database") or "",
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
        pose=_optional(element, "pose"),
    )


def _optional(parent: ElementTree.Element, tag: str) -> str | None:
    return (parent.findtext(tag) or "").strip() or None


def _text(parent: ElementTree.Element, tag: str, path: Path, where: str = "") -> str:
    text = _optional(parent, tag)
    if text is None:
        state = "it is missing" if parent.find(tag) is None else "it is empty"
        raise _error(path, f"{where}<{tag}>", f"{state}; expected a text or number in it")
    return text


def _number(parent: ElementTree.Element, tag: str, path: Path, where: str) -> float:
    text = _text(parent, tag, path, where)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise _error(path, f"{where}<{tag}>", f"expected a finite number, got {text[:40]!r}")
    return number


def _side(parent: ElementTree.Element, tag: str, path: Path) -> int:
    number = _number(parent, tag, path, "")
    if number < 1 or not number.is_integer():
        raise _error(path, f"<{tag}>", f"expected a whole number of pixels, 1 or more, got {number:g}")
    return int(number)


def _flag(parent: ElementTree.Element, tag: str, path: Path, where: str) -> bool | None:
    text = _optional(parent, tag)
    if text not in (None, "0", "1"):
        raise _error(path, f"{where}<{tag}>", f"expected 0 or 1, got {text[:40]!r}")
    return None if text is None else text == "1"


def _unknown(name: str, ids: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(name, ids, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else f"it holds {', '.join(list(ids)[:6])}, ..."
    return f"the class {name!r} is not in the class list; {hint}. Name your own classes with --classes FILE"


def _error(path: Path | None, element: str, problem: str) -> AnnotationError:
    return AnnotationError(f"{path or 'annotation'}: {element}: {problem}")


def _format(annotation: Annotation) -> bytes:
    root = ElementTree.Element("annotation")
    _add(root, "folder", annotation.folder)
    _add(root, "filename", annotation.filename)
    _add(ElementTree.SubElement(root, "source"), "database", annotation.database)
    size = ElementTree.SubElement(root, "size")
    _add(size, "width", str(annotation.width))
    _add(size, "height", str(annotation.height))
    for one in annotation.objects:
        element = ElementTree.SubElement(root, "object")
        _add(element, "name", one.name)
        if one.pose is not None:
            _add(element, "pose", one.pose)
        if one.truncated is not None:
            _add(element, "truncated", str(int(one.truncated)))
        _add(element, "difficult", str(int(one.difficult)))
        box = ElementTree.SubElement(element, "bndbox")
        for side, value in zip(_SIDES, map(float, one.box), strict=True):
            _add(box, side, f"{value:.0f}" if value.is_integer() else repr(value))
    ElementTree.indent(root, "\t")
    return ElementTree.tostring(root, encoding="utf-8") + b"\n"


def _add(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
