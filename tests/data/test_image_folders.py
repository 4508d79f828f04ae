"""Data sets for image classification: a folder per class."""

from __future__ import annotations

from pathlib import Path

import pytest

from inception_rcnn.data.ilsvrc import LayoutError
from inception_rcnn.data.image_folders import open_image_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("red/a.jpg", "blue/2.png", "blue/deep/1.JPEG", ".hidden/x.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "README.txt").touch()
    return tmp_path


def test_folders_are_classes_of_the_pictures_below_them(root: Path) -> None:
    images = open_image_folders(root)
    assert images.classes == ("blue", "red")
    assert len(images) == 3
    names = [path.relative_to(root).as_posix() for path in images.paths]
    found = dict(zip(names, images.labels.tolist(), strict=True))
    assert found == {"blue/2.png": 0, "blue/deep/1.JPEG": 0, "red/a.jpg": 1}


def test_labels_are_positions_in_the_given_classes(root: Path) -> None:
    images = open_image_folders(root, ["red", "green", "blue"])
    assert sorted(images.labels.tolist()) == [0, 2, 2]
    with pytest.raises(LayoutError, match="'red' is not among the 1 classes of the classifier"):
        open_image_folders(root, ["blue"])


def test_missing_folders_and_folders_without_pictures_are_errors(root: Path) -> None:
    for name in ("blue/deep", "missing", "z" * 300):
        with pytest.raises(LayoutError, match="one for each class"):
            open_image_folders(root / name)
    (root / "green").mkdir()
    with pytest.raises(LayoutError, match="expected pictures of the class 'green'"):
        open_image_folders(root)
