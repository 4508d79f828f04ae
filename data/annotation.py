"""Reads and writes ILSVRC and PASCAL VOC annotation files: one XML file per picture.

The files are untrusted: the reader refuses XML entities (defusedxml) and very large files, and checks every value that
the program uses. <truncated> and <size> may have any form, because the boxes do not depend on them.
An `Annotation` holds the coordinates of its file; `Annotation.boxes` converts them to the program's box convention.
"""

from __future__ import annotations

import codecs
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
from .boxes import LARGEST_COORDINATE, from_inclusive, reach_beyond
from .json_values import LONGEST_NAME, class_name, shown

_LARGEST_FILE = 16 * 2**20  # bytes: some 50,000 objects. Parsing takes up to 30 times as much memory.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "unspecified": False}
_DECLARED_ENCODING = re.compile(rb"""<\?xml[^>]{1,100}encoding\s{0,9}=\s{0,9}["']([\w.-]{1,40})["']""")
# Encodings of several bytes per letter, which the XML parser does not know.
_DOUBLE_BYTE = {
    "gb2312",
    "gbk",
    "gb18030",
    "big5",
    "big5hkscs",
    "cp950",
    "shift_jis",
    "cp932",
    "euc_jp",
    "euc_kr",
    "cp949",
}


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
        width, height: size of the picture in pixels; 0 if the file does not say.
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
        return reach_beyond(self.boxes, self.width or math.inf, self.height or math.inf)

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
    """Reads an annotation file. An object needs only <name> and <bndbox>; <size>, <folder>, <source> may be missing.

    Raises:
        AnnotationError: the file does not exist, is not XML, is larger than 16 MB or contains entities; or an element
            is missing, occurs twice or is malformed (not a number, too large, an inverted box).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise AnnotationError(f"{path}: cannot read the annotation: {error.strerror}") from error
    except ValueError as error:  # a NUL character
        raise AnnotationError(f"{path}: cannot read the annotation: {error}") from error
    if len(content) > _LARGEST_FILE:
        raise AnnotationError(f"{path}: more than {_LARGEST_FILE >> 20} MB; expected the annotation of one picture")
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
        root = SafeElementTree.fromstring(_decode(content))
    except DefusedXmlException as error:
        raise AnnotationError(f"{path}: entities are not allowed in an annotation ({type(error).__name__})") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: unknown encodings
        raise AnnotationError(f"{path}: not well-formed XML: {error}") from error
    if root.tag != "annotation":
        raise _error(path, f"<{root.tag}>", "expected <annotation> as the root element")
    width, height = (_pixels(root, f"size/{side}", path) for side in ("width", "height"))
    return Annotation(
        filename=_text(root, "filename", path),
        width=width if height else 0,
        height=height if width else 0,
        objects=tuple(_object(element, n, path) for n, element in enumerate(root.findall("object"), start=1)),
        folder=_optional_text(root, "folder") or "",
        database=_optional_text(root, "source/database") or "",
        path=path,
    )


def _decode(content: bytes) -> bytes | str:
    """Decodes a file in an encoding that the XML parser does not know. Leaves other files to the parser."""
    declared = _DECLARED_ENCODING.match(content.removeprefix(codecs.BOM_UTF8))
    if declared is None:
        return content
    encoding = codecs.lookup(declared[1].decode("ascii", "replace")).name
    if encoding == "utf-16":  # The declaration is readable, so the file is not in UTF-16.
        return content.decode("utf-8-sig")
    if encoding not in _DOUBLE_BYTE:
        return content
    return content.decode("gb18030" if encoding.startswith("gb") else encoding)


def _object(element: ElementTree.Element, number: int, path: Path) -> AnnotatedObject:
    where = f"object {number}, "
    xmin, ymin, xmax, ymax = (_number(element, f"bndbox/{side}", path, where) for side in _SIDES)
    if xmax < xmin or ymax < ymin:
        got = f"({xmin:g}, {ymin:g}, {xmax:g}, {ymax:g})"
        raise _error(path, f"{where}<bndbox>", f"expected xmin <= xmax and ymin <= ymax, got {got}")
    return AnnotatedObject(
        name=_class_name(element, path, where),
        box=(xmin, ymin, xmax, ymax),
        difficult=_difficult(element, path, where),
        truncated=_truncated(element),
        pose=_optional_text(element, "pose"),
    )


def _optional_text(parent: ElementTree.Element, tag: str) -> str | None:
    return (parent.findtext(tag) or "").strip() or None


def _only_text(parent: ElementTree.Element, tag: str, path: Path, where: str = "") -> str | None:
    """Returns the text of an element that may be missing, but may not occur twice: only one value would be used."""
    elements = parent.findall(tag)
    if len(elements) > 1:
        raise _error(path, f"{where}<{tag}>", f"the element occurs {len(elements)} times; expected it once")
    return (elements[0].text or "").strip() or None if elements else None


def _text(parent: ElementTree.Element, tag: str, path: Path, where: str = "") -> str:
    text = _only_text(parent, tag, path, where)
    if text is None:
        state = "missing" if parent.find(tag) is None else "empty"
        raise _error(path, f"{where}<{tag}>", f"the element is {state}; expected text or a number")
    return text


def _class_name(element: ElementTree.Element, path: Path, where: str) -> str:
    try:
        return class_name(_text(element, "name", path, where))
    except AnnotationError:
        raise
    except ValueError as error:
        raise _error(path, f"{where}<name>", str(error)) from error


def _number(parent: ElementTree.Element, tag: str, path: Path, where: str) -> float:
    text = _text(parent, tag, path, where)
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise _error(path, f"{where}<{tag}>", f"expected a finite number, got {text[:40]!r}")
    if abs(number) > LARGEST_COORDINATE:
        raise _error(path, f"{where}<{tag}>", f"expected at most {LARGEST_COORDINATE:,} pixels, got {number:g}")
    return number


def _pixels(parent: ElementTree.Element, tag: str, path: Path) -> int:
    """Returns a side of the picture; 0 if it is missing."""
    if _only_text(parent, tag, path) is None:
        return 0
    number = _number(parent, tag, path, "")
    if number < 0 or not number.is_integer():
        raise _error(path, f"<{tag}>", f"expected a whole number of pixels, got {number:g}")
    return int(number)


def _difficult(element: ElementTree.Element, path: Path, where: str) -> bool:
    text = _only_text(element, "difficult", path, where) or "0"
    if text.lower() not in _FLAGS:
        raise _error(path, f"{where}<difficult>", f"expected 0 or 1, got {text[:40]!r}")
    return _FLAGS[text.lower()]


def _truncated(element: ElementTree.Element) -> bool | None:
    """Returns whether any part of the object is missing. Some files give the missing fraction; some only a word."""
    text = _optional_text(element, "truncated") or ""
    return float(text) > 0 if _NUMBER.fullmatch(text) else {"false": False, "true": True}.get(text.lower())


def _unknown_class(name: str, ids: Mapping[str, int]) -> str:
    near = difflib.get_close_matches(name[:LONGEST_NAME], ids, n=3)
    hint = f"the nearest are {', '.join(near)}" if near else f"the list begins with {', '.join(list(ids)[:6])}"
    return f"the class {shown(name)} is not in the class list; {hint}. Name your own classes with --classes FILE"


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
