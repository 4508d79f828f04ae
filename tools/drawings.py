"""The drawings of `detect`: copies of the pictures with the detections drawn in."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..data.images import ImageError, read_image
from ..data.output_names import distinct_names
from ..runtime.atomic_write import atomic_write
from .error_messages import message_of

if TYPE_CHECKING:
    from ..detection.detections import Detections
    from ..detection.run_state import Result

# Errors of a disk that has room for nothing: no more drawings are written.
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class Drawings:
    """Writes the drawings of a run. A drawing that cannot be written is a warning, and the run goes on.

    Drawings are no part of a run's results. `complete` draws what is missing: drawings of an earlier part of the run
    that drew none, and drawings that show other detections, which a comment in each JPEG file tells.

    Args:
        folder: the folder of the drawings; it is created if missing.
        paths: all pictures of the run.
        least_score: smallest score of the detections that are drawn.
        finest_names: whether labels say "dog: Samoyed" in place of "dog".
        warn: prints a warning.
        on_written: called with each drawing after it is written, and in `complete` with those that are there.
    """

    def __init__(
        self,
        folder: Path,
        paths: Sequence[Path | str],
        *,
        least_score: float,
        finest_names: bool,
        warn: Callable[[str], None],
        on_written: Callable[[Path], None],
    ):
        self.folder = folder
        self._paths = paths
        self._files = [folder / f"{name}.jpg" for name in distinct_names(paths)]
        self._least_score = least_score
        self._finest_names = finest_names
        self._warn = warn
        self._on_written = on_written
        self._drawn: set[int] = set()
        self._disk_is_full = False

    def draw(self, picture: int, image: np.ndarray, found: Detections) -> None:
        """Write the drawing of a picture.

        Args:
            picture: index of the picture in the run.
            image: uint8 RGB [H, W, 3].
            found: the objects in it.
        """
        if self._disk_is_full:
            return
        shown = found.above(self._least_score)
        drawn = shown.draw(image, finest_names=self._finest_names)
        try:
            with atomic_write(self._files[picture]) as partial:
                Image.fromarray(drawn).save(partial, format="JPEG", quality=90, comment=self._comment(shown))
            self._drawn.add(picture)
        except (OSError, ValueError) as error:  # Pillow raises both for pictures that JPEG cannot hold
            self._disk_is_full = isinstance(error, OSError) and error.errno in _FULL_DISK
            later = "; no more drawings are written, the same command with --resume writes them later"
            self._warn(
                f"{self._paths[picture]}: its drawing cannot be written: {message_of(error)}"
                f"{later if self._disk_is_full else ''}"
            )
            return
        self._on_written(self._files[picture])

    def missing(self, results: Iterable[Result]) -> list[int]:
        """The indices of the pictures with a result whose drawing is missing or shows other detections."""
        return [
            result.picture
            for result in results
            if result.detections is not None and result.picture not in self._drawn and not self._is_drawn(result)
        ]

    def complete(self, results: Iterable[Result]) -> None:
        """Write the drawings that are missing, from the pictures and their results."""
        for result in results:
            if self._disk_is_full:
                return
            if result.detections is None or result.picture in self._drawn:
                continue
            if self._is_drawn(result):
                self._on_written(self._files[result.picture])
                continue
            try:
                image = read_image(self._paths[result.picture], max_pixels=result.width * result.height)
            except ImageError as error:
                self._warn(f"{error.path}: its drawing cannot be written: {error.reason}")
                continue
            self.draw(result.picture, image, result.detections)

    def _is_drawn(self, result: Result) -> bool:
        assert result.detections is not None
        comment = self._comment(result.detections.above(self._least_score))
        try:
            with Image.open(self._files[result.picture], formats=("JPEG",)) as drawing:
                return drawing.info.get("comment") == comment and drawing.size == (result.width, result.height)
        except (OSError, ValueError):
            return False

    def _comment(self, shown: Detections) -> bytes:
        """The comment in a drawing: a digest of the boxes, scores and names that it shows."""
        names = shown.finest_names if self._finest_names else shown.names
        digest = hashlib.sha256("\n".join(names).encode(errors="backslashreplace"))
        digest.update(shown.boxes.tobytes() + shown.scores.tobytes())
        return f"detections {digest.hexdigest()[:16]}".encode()
