"""The objects found in one picture, with their names, and their conversion to the forms of other libraries.

pandas, torch and supervision are imported only by the method that converts to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..data.boxes import to_xywh
from ..data.categories import Category, Subclass, finest_name
from ..data.images import to_rgb
from .drawing import draw_detections

if TYPE_CHECKING:
    import pandas
    import supervision
    import torch

_SHOWN = 10  # detections in a repr


class Detection(NamedTuple):
    """One object.

    Attributes:
        box: (x1, y1, x2, y2) in pixels of the upright full-size picture, see `data.boxes`.
        score: probability of the class.
        label: `Category.id` of the class.
        name: name of the class; see `Detections.names`.
        finest_name: see `Detections.finest_names`.
    """

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    finest_name: str

    def __repr__(self) -> str:
        place = ", ".join(f"{side:.1f}" for side in self.box)
        return f"{self.finest_name} {self.score:.2f} ({place})"


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The objects found in one picture, sorted by falling score.

        for found in detector(image):
            print(found.name, found.score, found.box)
        dogs = detections[detections.labels == 58]

    An integer index gives a `Detection`. A slice, a mask (bool [N]) or an array of indices gives `Detections`.

    Attributes:
        boxes: float32 [N, 4], (x1, y1, x2, y2) in pixels of the upright full-size picture, see `data.boxes`.
        scores: float32 [N], probabilities of the class.
        labels: int64 [N], `Category.id` of the class (the DET id with the shipped model).
        regions: int64 [N], the row of the region that each detection comes from; None if that is not known, as in
            results that were read from a file.
        subclasses: int64 [N], the likeliest of the model's subclasses under the label, by its row in `finest`; -1 if it
            is not known. None if the model has no subclasses.
        categories: the classes that `labels` refers to; empty if they are not known.
        finest: the classes that `subclasses` refers to.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    regions: np.ndarray | None = None
    subclasses: np.ndarray | None = None
    categories: tuple[Category, ...] = ()
    finest: tuple[Subclass, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def names(self) -> list[str]:
        """The class name of each detection; "class 58" if the classes are not known."""
        names = {category.id: category.name for category in self.categories}
        return [names.get(label, f"class {label}") for label in self.labels.tolist()]

    @property
    def finest_names(self) -> list[str]:
        """The finest name of each detection: "dog: Samoyed" if the model tells breeds of dogs apart, else "dog"."""
        if self.subclasses is None:
            return self.names
        rows = self.subclasses.tolist()
        return [
            finest_name(name, self.finest[row]) if row >= 0 else name
            for name, row in zip(self.names, rows, strict=True)
        ]

    @overload
    def __getitem__(self, index: int | np.integer) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | npt.ArrayLike) -> Detections: ...

    def __getitem__(self, index: int | np.integer | slice | npt.ArrayLike) -> Detection | Detections:
        """See the class.

        Raises:
            IndexError: an index is out of range, a mask has another length, or the index has another type.
        """
        if isinstance(index, int | np.integer) and not isinstance(index, bool):
            if not -len(self) <= index < len(self):
                raise IndexError(f"detection {index} of {len(self)}")
            return self._select([int(index)])._listed()[0]
        return self._select(index)

    def _select(self, index: slice | npt.ArrayLike) -> Detections:
        rows = np.arange(len(self))[index if isinstance(index, slice) else _rows(index)]
        regions, subclasses = (None if one is None else one[rows] for one in (self.regions, self.subclasses))
        return Detections(
            self.boxes[rows], self.scores[rows], self.labels[rows], regions, subclasses, self.categories, self.finest
        )

    def __iter__(self) -> Iterator[Detection]:
        return iter(self._listed())

    def _listed(self) -> list[Detection]:
        columns = map(tuple, self.boxes.tolist()), self.scores.tolist(), self.labels.tolist()
        return [Detection(*row) for row in zip(*columns, self.names, self.finest_names, strict=True)]

    def __repr__(self) -> str:
        """A line for each of the ten best detections: finest name, score, box."""
        lines = [f"Detections: {len(self) or 'no'} object{'s' * (len(self) != 1)}"]
        lines += [f"  {found!r}" for found in self[:_SHOWN]]
        if len(self) > _SHOWN:
            lines.append(f"  and {len(self) - _SHOWN} more")
        return "\n".join(lines)

    def above(self, score: float) -> Detections:
        """The detections whose score is at least `score`."""
        return self._select(self.scores >= score)

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row for each detection: x1, y1, x2, y2, score, label, name and finest_name."""
        import pandas as pd

        columns: dict[str, Any] = {side: self.boxes[:, n].copy() for n, side in enumerate(("x1", "y1", "x2", "y2"))}
        columns |= {"score": self.scores.copy(), "label": self.labels.copy()}
        return pd.DataFrame({**columns, "name": self.names, "finest_name": self.finest_names})

    def to_torch(self) -> dict[str, torch.Tensor]:
        """The dictionary of torchvision's detectors: boxes (float32 [N, 4]), labels (int64 [N]), scores (float32 [N]).

        `torchvision.utils.draw_bounding_boxes` and torchmetrics take it. The tensors are copies.
        """
        import torch

        fields = {"boxes": self.boxes, "labels": self.labels, "scores": self.scores}
        return {name: torch.from_numpy(values.copy()) for name, values in fields.items()}

    def to_supervision(self) -> supervision.Detections:
        """The `Detections` of the library supervision, with the names in `data["class_name"]`.

        `data["finest_name"]` holds the finest names.
        """
        import supervision as sv

        return sv.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array(self.names, str), "finest_name": np.array(self.finest_names, str)},
        )

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """A list of COCO results, as `pycocotools.coco.COCO.loadRes` takes it.

        Args:
            image_id: number of the picture in the COCO data set.

        Returns:
            A dictionary for each detection: image_id, category_id (the label), bbox [x, y, width, height], score.
        """
        rows = zip(to_xywh(self.boxes).tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        return [
            {"image_id": image_id, "category_id": label, "bbox": bbox, "score": score} for bbox, score, label in rows
        ]

    def draw(self, image: np.ndarray | Image.Image, *, finest_names: bool = False) -> npt.NDArray[np.uint8]:
        """Draws the detections into a copy of the picture, see `draw_detections`.

        Args:
            image: the picture in which the objects were found: uint8 RGB [H, W, 3], or a PIL picture.
            finest_names: whether labels say "dog: Samoyed" in place of "dog".

        Returns:
            uint8 RGB [H, W, 3].
        """
        return draw_detections(
            to_rgb(image),
            self.boxes,
            self.finest_names if finest_names else self.names,
            self.scores,
            classes=self.names,
        )


def _rows(index: npt.ArrayLike) -> np.ndarray:
    """A mask or an array of indices; an empty list is no indices."""
    rows = np.asarray(index)
    if rows.ndim != 1 or (rows.dtype.kind not in "biu" and len(rows)):
        raise IndexError(f"expected an integer, a slice, a mask or an array of indices, got {index!r:.80}")
    return rows if len(rows) else rows.astype(np.int64)
