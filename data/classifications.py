"""Writes the classes of pictures: `classes.json` for programs, `classes.csv` for spreadsheets."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from ..runtime.atomic_write import atomic_write
from .categories import Category

_COLUMNS = ("file", "rank", "class_id", "wnid", "name", "probability")


class ClassificationsWriter:
    """Writes the predictions picture by picture. Memory use does not grow with the number of pictures.

        with ClassificationsWriter("out", classes) as writer:
            writer.add("a.jpg", positions, probabilities)
            writer.fail("b.jpg", "truncated")

    `classes.json` holds `images` (file_name, predictions), `failures` (file_name, reason) and whatever `measure` was
    given. A prediction has class_id, wnid, name and probability; the most probable class is first. `classes.csv` has a
    row for each prediction: file, rank from 1, class_id, wnid, name, probability. The files appear when the `with`
    block ends; if the block raises an exception, older files stay unchanged.

    Args:
        folder: the folder of both files; it is created if missing.
        classes: the classes that the positions refer to.
    """

    def __init__(self, folder: str | Path, classes: Sequence[Category]):
        self._folder = Path(folder)
        self._classes = classes
        self._failures: list[dict[str, str]] = []
        self._measured: Mapping[str, Any] = {}
        self._written = 0

    def __enter__(self) -> ClassificationsWriter:
        with ExitStack() as opened:
            # The surrogates in names that are not UTF-8 become \udcXX, which JSON readers turn into the same name.
            json_file, csv_file = (
                opened.enter_context(
                    opened.enter_context(atomic_write(self._folder / name)).open(
                        "w", encoding="utf-8", errors="backslashreplace", newline=""
                    )
                )
                for name in ("classes.json", "classes.csv")
            )
            self._json = json_file
            self._csv = csv.writer(csv_file, lineterminator="\n")
            self._csv.writerow(_COLUMNS)
            self._json.write('{"images": [')
            self._opened = opened.pop_all()
        return self

    def add(self, file_name: str, positions: Sequence[int], probabilities: Sequence[float]) -> None:
        """Adds the predictions for a picture.

        Args:
            file_name: name of the picture.
            positions: positions of the classes, the most probable first.
            probabilities: of these classes; they are rounded to six decimals.
        """
        predictions = []
        for rank, (position, probability) in enumerate(zip(positions, probabilities, strict=True), start=1):
            one = self._classes[position]
            rounded = round(float(probability), 6)
            predictions.append({"class_id": one.id, "wnid": one.wnid, "name": one.name, "probability": rounded})
            self._csv.writerow([file_name, rank, one.id, one.wnid, one.name, f"{rounded:.6f}"])
        image = {"file_name": file_name, "predictions": predictions}
        self._json.write((",\n" if self._written else "\n") + json.dumps(image, ensure_ascii=False))
        self._written += 1

    def fail(self, file_name: str, reason: str) -> None:
        """Adds a picture that could not be read, with the reason."""
        self._failures.append({"file_name": file_name, "reason": reason})

    def measure(self, figures: Mapping[str, Any]) -> None:
        """Adds figures at the end of `classes.json`, by their names there."""
        self._measured = figures

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._opened.__exit__(kind, error, trace)
            return
        with self._opened:
            rest = {"failures": self._failures, **self._measured}
            self._json.write("\n],\n" + json.dumps(rest, ensure_ascii=False)[1:] + "\n")
