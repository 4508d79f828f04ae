"""Parsed annotations are cached by the content of their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data import annotation_cache
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, AnnotationError, write_annotation
from inception_rcnn.data.annotation_cache import read_annotations


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three annotations, of which the second has no objects."""
    dog = AnnotatedObject("dog", (11, 21, 60, 80))
    cat = AnnotatedObject("cat", (1.5, 2, 30, 40), difficult=True)
    for name, objects in {"a": (dog, cat), "b": (), "c": (dog,)}.items():
        write_annotation(tmp_path / f"{name}.xml", Annotation(name, 100, 100, objects))
    return tmp_path


def test_annotations_are_parsed_into_arrays(folder: Path) -> None:
    parsed = read_annotations([folder / "a.xml", folder / "b.xml", folder / "c.xml"])
    assert parsed.files.tolist() == [0, 0, 2]
    assert parsed.names.tolist() == ["cat", "dog"]
    assert parsed.name_numbers.tolist() == [1, 0, 1]
    assert parsed.inclusive.tolist() == [[11, 21, 60, 80], [1.5, 2, 30, 40], [11, 21, 60, 80]]
    assert parsed.difficult.tolist() == [False, True, False]
    assert parsed.labels({"dog": 7, "cat": 3}).tolist() == [7, 3, 7]


def test_the_error_for_an_unknown_class_names_the_file(folder: Path) -> None:
    parsed = read_annotations([folder / "c.xml", folder / "a.xml"])
    with pytest.raises(AnnotationError, match=r"a\.xml.*'cat' is not in the class list"):
        parsed.labels({"dog": 7})


def test_no_files_give_empty_arrays() -> None:
    parsed = read_annotations([])
    assert parsed.inclusive.shape == (0, 4)
    assert parsed.labels({}).shape == (0,)


def test_the_cache_returns_the_same_arrays_without_parsing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache = [folder / "a.xml", folder / "b.xml", folder / "c.xml"], folder / "cache"
    first = read_annotations(paths, cache)
    with monkeypatch.context() as patch:
        patch.setattr(annotation_cache, "read_annotation", None)
        again = read_annotations(paths, cache)
    for name in ("files", "names", "name_numbers", "inclusive", "difficult"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert [file.suffix for file in cache.iterdir()] == [".npz"]


def test_the_cache_is_keyed_by_content_and_order(folder: Path) -> None:
    paths, cache = [folder / "a.xml", folder / "c.xml"], folder / "cache"
    read_annotations(paths, cache)
    text = (folder / "a.xml").read_text()
    (folder / "a.xml").write_text(text.replace("<xmin>11<", "<xmin>12<"))
    assert read_annotations(paths, cache).inclusive[0, 0] == 12
    assert read_annotations(paths[::-1], cache).inclusive[0, 0] == 11


def replace_arrays(file: Path) -> None:
    with file.open("wb") as stream:
        np.savez(stream, **{name: np.zeros(1) for name in (*annotation_cache._ARRAYS, "checksum")})


def change_a_coordinate(file: Path) -> None:
    with np.load(file) as stored:
        arrays = dict(stored)
    arrays["inclusive"][0, 0] += 1
    with file.open("wb") as stream:
        np.savez(stream, **arrays)


def change_the_compression(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[content.find(b"PK\x01\x02") + 10] = content[content.find(b"PK\x03\x04") + 8] = 99
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:100]),
        lambda file: np.save(file.open("wb"), np.zeros(3)),
        replace_arrays,
        change_a_coordinate,
        change_the_compression,
    ],
)
def test_a_damaged_entry_is_rebuilt_with_a_warning(
    folder: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    paths, cache = [folder / "a.xml"], folder / "cache"
    expected = read_annotations(paths, cache).inclusive
    (file,) = cache.iterdir()
    damage(file)
    assert np.array_equal(read_annotations(paths, cache).inclusive, expected)
    assert f"{file}: the cached annotations are damaged" in caplog.text
    caplog.clear()
    assert np.array_equal(read_annotations(paths, cache).inclusive, expected)
    assert not caplog.records


def test_an_unwritable_folder_is_ignored(folder: Path) -> None:
    paths = [folder / "a.xml"]
    expected = read_annotations(paths).inclusive
    assert np.array_equal(read_annotations(paths, folder / "a.xml" / "cache").inclusive, expected)
