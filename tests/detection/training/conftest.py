"""A data set that is small enough to train on in a test."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.dataset import Dataset
from inception_rcnn.data.ilsvrc import open_dataset

DOG, CAT = "n02084071", "n02121808"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four pictures of 100 x 80 with an object each: cats in pictures 0 and 2, dogs in pictures 1 and 3."""
    root: Path = tmp_path_factory.mktemp("ilsvrc")
    for kind in ("Data/DET/train", "Annotations/DET/train", "ImageSets/DET"):
        (root / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(4):
        image = np.full((80, 100, 3), 100, np.uint8)
        image[5:25, 5:25] = rng.integers(0, 256, 3)
        image[20:60, 30 + number : 80] = (200, 30, 30) if number % 2 else (30, 30, 200)
        Image.fromarray(image).save(root / f"Data/DET/train/{number}.JPEG", quality=95)
        one = AnnotatedObject(DOG if number % 2 else CAT, (31 + number, 21, 80, 60))
        write_annotation(root / f"Annotations/DET/train/{number}.xml", Annotation(str(number), 100, 80, (one,)))
    (root / "ImageSets/DET/train.txt").write_text("".join(f"{n} {n + 1}\n" for n in range(4)))
    return open_dataset(root, "train")
