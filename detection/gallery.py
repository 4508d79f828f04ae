"""Writes the results of a run as a web page: small pictures with their detections, to search, sort and enlarge."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from ..data.boxes import to_xywh
from ..data.categories import Category, Subclass
from ..data.images import ImageError
from ..data.thumbnails import data_url, thumbnail
from ..runtime.atomic_write import atomic_write
from ..runtime.page_templates import page_template
from ..runtime.prefetch import map_ahead
from ..runtime.remote import is_url
from .detections import Detections
from .drawing import Colour, distinct_colours, ink_on
from .run_state import Result

# Up to this number of pictures, the page contains the thumbnails (some 20 kB each) and can be sent as one file.
MOST_EMBEDDED = 100
# The page shows the first pictures of a longer run. With 50 detections in each picture, 50,000 take some 75 MB.
MOST_PICTURES = 50_000

_PAGES = Path(__file__).parent / "pages"
_THUMBNAILS = "gallery_thumbnails"
_AHEAD = 64  # thumbnails that are made before they are needed


def write_gallery(
    file: str | Path,
    paths: Sequence[Path | str],
    results: Iterable[Result],
    categories: Sequence[Category],
    shown_score: float,
    finest: Sequence[Subclass] = (),
    on_picture: Callable[[], None] = lambda: None,
    on_written: Callable[[Path], None] = lambda file: None,
) -> None:
    """Writes the page. It loads nothing from the network, and opens from the disk without a server.

    The page contains the thumbnails of at most `MOST_EMBEDDED` pictures. For more pictures they are JPEG files in the
    folder `gallery_thumbnails` beside the page. The large view of a picture shows its file if it is still where it was,
    else the thumbnail. The picture of a URL is shown as a thumbnail only. A picture that can no longer be read is an
    empty frame with its boxes.

    Args:
        file: the page to write.
        paths: the files or URLs of the run.
        results: results with indices in `paths`.
        categories: the classes that labels refer to.
        shown_score: the least score with which the page opens.
        finest: the classes that `Detections.subclasses` refers to; names are then "dog: Samoyed".
        on_picture: called after each picture, for a progress bar.
        on_written: called with each thumbnail, and then the page, after it is written.

    Raises:
        OSError: the page or a thumbnail cannot be written; an older page stays as it is.
    """
    file = Path(file)
    embedded = len(paths) <= MOST_EMBEDDED
    folder = file.parent / _THUMBNAILS
    rows = {category.id: row for row, category in enumerate(categories)}
    failures: list[tuple[str, str]] = []
    shown_together: list[list[str]] = []  # the names of the classes that are shown in each picture
    least = shown_score

    def readable() -> Iterator[tuple[Result, Detections]]:
        for result in results:
            if result.detections is None:
                failures.append((str(paths[result.picture]), result.failure or "not read"))
            else:
                yield result, result.detections

    def pictures() -> Iterator[str]:
        nonlocal least
        to_show = readable()
        made = map_ahead(
            lambda one: (*one, _thumbnail(paths[one[0].picture], one[0])),
            islice(to_show, MOST_PICTURES),
            workers=min(os.cpu_count() or 1, 8),
            ahead=_AHEAD,
        )
        for result, found, jpeg in made:
            source = ""
            if jpeg is not None and embedded:
                source = data_url(jpeg)
            elif jpeg is not None:
                source = f"{_THUMBNAILS}/{result.picture + 1}.jpg"
                folder.mkdir(parents=True, exist_ok=True)
                (file.parent / source).write_bytes(jpeg)
                on_written(file.parent / source)
            shown_together.append([categories[rows[label]].name for label in found.above(shown_score).labels.tolist()])
            least = min([least, *found.scores.tolist()])
            original = _original(paths[result.picture], file.parent)
            numbers = _numbers(found, rows)
            picture = [str(paths[result.picture]), result.width, result.height, source, original, numbers]
            yield _json(picture)
            on_picture()
        for _ in to_show:  # the failures after the last picture that is shown
            on_picture()

    def about() -> str:
        # All classes are seen together in the list of classes, too, those that are shown at first above all.
        shown_first = set().union(*shown_together)
        colours = distinct_colours([*shown_together, shown_first, [one.name for one in categories]])
        classes = [
            {"name": one.name, "colour": _css(colours[one.name]), "ink": _css(ink_on(colours[one.name]))}
            for one in categories
        ]
        names = [one.name for one in finest]
        scores = {"shown": _whole_score(shown_score), "least": _whole_score(least)}
        return _json({"classes": classes, "finest": names, **scores})

    page = page_template(_PAGES / "gallery.html.j2").stream(
        shown=MOST_PICTURES,
        hidden=max(len(paths) - MOST_PICTURES, 0),
        pictures=pictures(),
        about=about,
        failures=lambda: failures,
        version=version("inception-rcnn"),
    )
    with atomic_write(file) as partial, partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        stream.writelines(page)
    on_written(file)


def _thumbnail(path: Path | str, result: Result) -> bytes | None:
    """Returns a small JPEG file; None if the picture can no longer be read."""
    try:
        return thumbnail(path, max_pixels=max(result.width * result.height, 1))
    except ImageError:
        return None


def _original(path: Path | str, folder: Path) -> str:
    """Returns the address of a picture file relative to the folder of the page; "" for a URL."""
    if is_url(path):
        return ""
    file = os.path.abspath(path)
    try:
        relative = os.path.relpath(file, os.path.abspath(folder))
    except ValueError:  # another drive on Windows
        return Path(file).as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def _numbers(found: Detections, rows: dict[int, int]) -> list[int]:
    """Returns the detections as whole numbers, by falling score: seven for each, as `gallery.js` describes."""
    order = np.argsort(-found.scores, kind="stable")
    table = np.empty((len(order), 7), np.int64)
    table[:, 0] = [rows[label] for label in found.labels[order].tolist()]
    table[:, 1] = [_whole_score(score) for score in found.scores[order].tolist()]
    table[:, 2:6] = np.rint(to_xywh(found.boxes[order]) * 10)
    table[:, 6] = -1 if found.subclasses is None else found.subclasses[order]
    return table.ravel().tolist()


def _whole_score(score: float) -> int:
    """Returns the score in 1/10,000. It is rounded down, so that no score reaches a threshold that it is below."""
    return int(score * 10_000 + 1e-3)  # float32 holds 0.7 as 0.69999999


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _json(value: object) -> Markup:
    """Returns JSON that can stand in a script element, whatever its texts contain."""
    return Markup(json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))
