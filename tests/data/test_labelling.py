"""Detections in the VOC and the YOLO layout are read back by the package's own readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data import labelling, voc, yolo
from inception_rcnn.data.annotation import read_annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.labelling import VocWriter, YoloWriter
from inception_rcnn.data.picture_detections import PictureDetections

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"), Category(3, "n3", "größe: 1"))
WIDTH, HEIGHT = 120, 90
# Whole pixels, parts of pixels, less than a pixel, the whole picture, a box that reaches beyond the picture.
BOXES = np.array(
    [[10, 20, 50, 60], [0.3, 0.4, 77.7, 33.6], [5.1, 5.1, 5.3, 5.2], [0, 0, 120, 90], [100, 70, 125, 95]], np.float32
)
LABELS = np.array([58, 7, 3, 7, 58])
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.2], np.float32)
NOTHING = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two pictures of the same name with different suffixes."""
    paths = [tmp_path / "photos" / name for name in ("a b.JPG", "a b.png")]
    paths[0].parent.mkdir()
    for path in paths:
        Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    return paths


def add_both(writer: VocWriter | YoloWriter, pictures: list[Path]) -> None:
    writer.add(PictureDetections(str(pictures[0]), WIDTH, HEIGHT, BOXES, SCORES, LABELS, np.full(5, -1)))
    writer.fail("broken.jpg", "truncated")
    writer.add(PictureDetections(str(pictures[1]), WIDTH, HEIGHT, *NOTHING))


def write(kind: type, folder: Path, pictures: list[Path], **options) -> list[Path]:
    """Writes detections in the first picture, none in the second; returns the files that were kept."""
    names = {str(pictures[0]): "a b", str(pictures[1]): "a b-2", "broken.jpg": "broken"}
    with kind(folder, CATEGORIES, names, **options) as writer:
        add_both(writer, pictures)
    return writer.kept


def expected(least_score: float) -> np.ndarray:
    return np.clip(BOXES, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])[least_score <= SCORES]


@pytest.mark.parametrize(("least_score", "count"), [(0, 5), (0.5, 4), (0.95, 0)])
def test_voc_files_are_read_back_to_the_same_boxes(tmp_path, pictures, least_score, count):
    write(VocWriter, tmp_path / "voc", pictures, least_score=least_score)
    dataset = voc.open_folder(tmp_path / "voc", CATEGORIES)
    second, first = dataset[0], dataset[1]
    assert (first.path.name, second.path.name) == ("a b.JPG", "a b-2.png")
    assert len(first.boxes) == count
    assert first.labels.tolist() == LABELS[:count].tolist()
    assert (first.size, len(second.boxes)) == ((WIDTH, HEIGHT), 0)
    tiny = expected(least_score)[:, 2] - expected(least_score)[:, 0] < 1
    assert np.abs(first.boxes - expected(least_score))[~tiny].max(initial=0) <= 0.5
    assert np.abs(first.boxes - expected(least_score)).max(initial=0) <= 1  # a box has at least one pixel
    assert (tmp_path / "voc" / "classes.txt").read_text(encoding="utf-8") == "dog\ndomestic cat\ngröße: 1\n"


@pytest.mark.parametrize(("least_score", "count"), [(0, 5), (0.5, 4), (0.95, 0)])
def test_yolo_files_are_read_back_to_the_same_boxes(tmp_path, pictures, least_score, count):
    write(YoloWriter, tmp_path / "yolo", pictures, least_score=least_score)
    dataset = yolo.open_dataset(tmp_path / "yolo", "train")
    assert [category.name for category in dataset.categories] == [category.name for category in CATEGORIES]
    by_name = {sample.path.name: sample for sample in (dataset[0], dataset[1])}
    first = by_name["a b.JPG"]
    names = [dataset.categories[label - 1].name for label in first.labels]
    assert names == [next(one.name for one in CATEGORIES if one.id == label) for label in LABELS[:count]]
    np.testing.assert_allclose(first.boxes, expected(least_score), atol=0.001)
    assert len(by_name["a b-2.png"].boxes) == 0


@pytest.mark.parametrize(("kind", "folder"), [(VocWriter, "JPEGImages"), (YoloWriter, "images")])
@pytest.mark.parametrize("links", [True, False])
def test_pictures_are_links_or_copies(tmp_path, pictures, monkeypatch, kind, folder, links):
    def refuse(self: Path, target: Path) -> None:
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(labelling.Path, "symlink_to", refuse)
    write(kind, tmp_path / "out", pictures)
    picture = tmp_path / "out" / folder / "a b.JPG"
    assert picture.is_symlink() == links
    assert picture.read_bytes() == pictures[0].read_bytes()
    write(kind, tmp_path / "out", pictures[::-1])  # other pictures get the names
    assert picture.with_suffix(".png").read_bytes() == pictures[1].read_bytes()
    assert not list(tmp_path.rglob("*.partial"))


def test_corrected_annotations_are_kept(tmp_path, pictures):
    assert write(VocWriter, tmp_path / "voc", pictures, keep=True) == []
    assert write(YoloWriter, tmp_path / "yolo", pictures, keep=True) == []
    xml, text = tmp_path / "voc" / "Annotations" / "a b.xml", tmp_path / "yolo" / "labels" / "a b.txt"
    corrected = read_annotation(xml)
    corrected = type(corrected)(corrected.filename, WIDTH, HEIGHT, corrected.objects[:1], folder=corrected.folder)
    write_annotation(xml, corrected)
    text.write_text("0 0.5 0.5 0.1 0.1\n")
    assert write(VocWriter, tmp_path / "voc", pictures, keep=True) == [xml]
    assert write(YoloWriter, tmp_path / "yolo", pictures, keep=True) == [text]
    assert len(read_annotation(xml).objects) == 1
    assert text.read_text() == "0 0.5 0.5 0.1 0.1\n"
    xml.write_text("<annotation>")
    assert write(VocWriter, tmp_path / "voc", pictures, keep=True) == [xml]
    assert write(VocWriter, tmp_path / "voc", pictures) == []
    assert write(YoloWriter, tmp_path / "yolo", pictures) == []
    assert len(read_annotation(xml).objects) == len(text.read_text().splitlines()) == 5


@pytest.mark.parametrize(("kind", "last"), [(VocWriter, "classes.txt"), (YoloWriter, "data.yaml")])
def test_the_file_of_classes_comes_last(tmp_path, pictures, kind, last):
    names = {str(pictures[0]): "a b"}  # the second picture lacks a name
    with pytest.raises(KeyError), kind(tmp_path / "out", CATEGORIES, names) as writer:
        add_both(writer, pictures)
    assert not (tmp_path / "out" / last).exists()


def test_a_picture_with_a_url_is_not_linked(tmp_path):
    with VocWriter(tmp_path, CATEGORIES, {"s3://bucket/a.jpg": "a"}) as writer:
        writer.add(PictureDetections("s3://bucket/a.jpg", WIDTH, HEIGHT, BOXES, SCORES, LABELS))
    assert list((tmp_path / "JPEGImages").iterdir()) == []
    assert len(read_annotation(tmp_path / "Annotations" / "a.xml").objects) == 5
