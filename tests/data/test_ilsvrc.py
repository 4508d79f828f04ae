"""Data sets in the ILSVRC DET layout: image lists, folders, samples and missing files."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, AnnotationError, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.ilsvrc import LayoutError, open_dataset, picture_path, read_image_list
from inception_rcnn.data.images import read_image

DOG = AnnotatedObject("n02084071", (1, 1, 50, 40))
# The box extends a pixel beyond the left and the right side of the picture.
PERSON = AnnotatedObject("person", (0, 11, 101, 80), difficult=True)


def add(root: Path, split: str, image_id: str, objects: Iterable[AnnotatedObject] = (), suffix: str = ".JPEG") -> None:
    picture = root / "Data" / "DET" / split / f"{image_id}{suffix}"
    xml = root / "Annotations" / "DET" / split / f"{image_id}.xml"
    for path in (picture, xml):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture.touch()
    write_annotation(xml, Annotation(image_id, 100, 80, tuple(objects)))


def add_list(root: Path, split: str, text: str) -> Path:
    path = root / "ImageSets" / "DET" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "my photos"
    add(root, "val", "a", [DOG, PERSON])
    add(root, "val", "Ä 1")
    add(root, "train", "sub/b", [PERSON])
    add_list(root, "val", "a 7\nÄ 1 9\n")
    add_list(root, "train", "sub/b 1\n")
    return root


def test_samples_have_boxes_labels_and_paths(root: Path) -> None:
    dataset = open_dataset(root, "val")
    assert (dataset.name, len(dataset), len(dataset.categories)) == ("my photos val", 2, 200)
    sample = dataset[0]
    assert (sample.image_id, sample.index, sample.path) == ("a", 7, root / "Data" / "DET" / "val" / "a.JPEG")
    assert sample.labels.tolist() == [58, 124]
    assert sample.difficult.tolist() == [False, True]
    assert sample.boxes.dtype == np.float32


def test_boxes_are_clipped_to_the_picture(root: Path) -> None:
    assert open_dataset(root, "val")[0].boxes.tolist() == [[0, 0, 50, 40], [0, 10, 100, 80]]


def test_a_picture_may_have_no_objects(root: Path) -> None:
    sample = open_dataset(root, "val")[1]
    assert (sample.image_id, sample.index) == ("Ä 1", 9)
    assert sample.boxes.shape == (0, 4)
    assert sample.labels.shape == sample.difficult.shape == (0,)


def test_ids_may_contain_sub_folders(root: Path) -> None:
    assert open_dataset(root, "train")[0].path == root / "Data" / "DET" / "train" / "sub" / "b.JPEG"


def test_a_data_set_can_be_pickled(root: Path) -> None:
    dataset = pickle.loads(pickle.dumps(open_dataset(str(root), "val")))
    assert [sample.image_id for sample in dataset] == ["a", "Ä 1"]


def test_annotations_are_read_on_first_access(root: Path) -> None:
    dataset = open_dataset(root, "val")
    broken = root / "Annotations" / "DET" / "val" / "a.xml"
    broken.write_text("<annotation>")
    assert dataset[1].image_id == "Ä 1"
    with pytest.raises(AnnotationError, match=r"a\.xml"):
        dataset[0]


def test_classes_are_matched_by_wnid_or_name(root: Path) -> None:
    own = [Category(1, "x", "person"), Category(5, "n02084071", "hound")]
    assert open_dataset(root, "val", own)[0].labels.tolist() == [5, 1]


def test_a_class_outside_the_list_is_an_error(root: Path) -> None:
    dataset = open_dataset(root, "val", [Category(1, "n02084071", "dog")])
    with pytest.raises(AnnotationError, match=r"a\.xml: object 2, <name>: the class 'person'.*--classes FILE"):
        dataset[0]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".jpeg"])
def test_pictures_may_have_other_suffixes(root: Path, suffix: str) -> None:
    add(root, "val", "c", suffix=suffix)
    add_list(root, "val", "c 1\n")
    assert open_dataset(root, "val")[0].path.name == f"c{suffix}"


def test_a_list_may_name_files(root: Path) -> None:
    add(root, "val", "c", suffix=".png")
    add_list(root, "val", "c.png 1\na.JPEG 2\n")
    dataset = open_dataset(root, "val")
    assert [(sample.image_id, sample.path.name) for sample in dataset] == [("c", "c.png"), ("a", "a.JPEG")]


@pytest.mark.parametrize("part", ["val2", "val_small", "val1"])
def test_a_part_of_a_split_uses_the_folders_of_the_whole_split(root: Path, part: str) -> None:
    add_list(root, part, "a 1\n")
    assert open_dataset(root, part)[0].path.parent.name == "val"


def test_a_part_of_a_split_may_have_its_own_folders(root: Path) -> None:
    add(root, "val2", "z")
    add_list(root, "val2", "z 1\n")
    assert open_dataset(root, "val2")[0].path.parent.name == "val2"


def test_marks_in_class_lists_are_not_indices(root: Path) -> None:
    add(root, "train", "sub/c")
    path = add_list(root, "train_58", "sub/b 1\nsub/c 0\nextra/lacks_dogs -1\n")
    assert read_image_list(path) == [("sub/b", 1), ("sub/c", 2), ("extra/lacks_dogs", 3)]
    dataset = open_dataset(root, "train_58")
    assert [sample.index for sample in dataset] == [1, 2, 3]
    assert dataset[2].boxes.shape == (0, 4)  # pictures without the class have no XML file


def test_the_extra_pictures_of_ilsvrc_train_have_no_xml_files(root: Path) -> None:
    add_list(root, "train", "sub/b 1\nILSVRC2013_train_extra0/ILSVRC2013_train_00000001 2\n")
    assert open_dataset(root, "train")[1].labels.shape == (0,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a 1\nb 2\n", [("a", 1), ("b", 2)]),
        ("a 5\r\n\r\n  b\t2  \r\n", [("a", 5), ("b", 2)]),
        ("\ufeffa\nb\n", [("a", 1), ("b", 2)]),  # no indices: the index is the number of the entry
        ("a 1\nb 1\n", [("a", 1), ("b", 2)]),  # marks: the index is the number of the entry
        ("a -1\n", [("a", 1)]),
        ("a 3 -1\nb 4 1\n", [("a", 3), ("b", 4)]),  # third column
        ("000000000042 1\n7 2\n", [("000000000042", 1), ("7", 2)]),
        ("my photo 3\nmy photo 2 4\n", [("my photo", 3), ("my photo 2", 4)]),
        ("sub/a.JPEG 3\nb.v2 4\n", [("sub/a", 3), ("b.v2", 4)]),
        ("frame.0001\nframe.0002\n", [("frame.0001", 1), ("frame.0002", 2)]),
        ("'my photo' 3\n\"it's\" 4\n", [("my photo", 3), ("it's", 4)]),
        ("a\u00a0b 3\nc\u2028d 4\n", [("a\u00a0b", 3), ("c\u2028d", 4)]),  # blanks of other scripts are letters
        ("a" + " " * 100_000 + "7\n", [("a", 7)]),
    ],
)
def test_image_lists_give_ids_and_indices(tmp_path: Path, text: str, expected: list[tuple[str, int]]) -> None:
    assert read_image_list(add_list(tmp_path, "list", text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1\nb\n", "only some lines have an index"),
        ("a 2\n\nb 2\n", "line 3: the index is 2; line 1 has the same index"),
        ("a 2\nb 0\n", "line 2: the index is 0; expected at least 1"),
        ("a -4\n", "line 1: the index is -4; expected at least 1"),
        ("b 1\na 99999999999999999999\n", "line 2: the index is '99999999999999999999'; expected at most 15 digits"),
        (f"a {'9' * 5000}\n", "line 1: the index is .* expected at most 15 digits"),
        ("b\na\0b\n", r"line 2: 'a.x00b' cannot be the name of a file"),
        ("b\n..\n", r"line 2: '\.\.' cannot be the name of a file"),
        ("n" * 256, "line 1: 'nnn.*' cannot be the name of a file"),
        ("a" + " " * 100_000 + "b", "line 1: 'a .* b' cannot be the name of a file"),
    ],
)
def test_the_error_for_a_malformed_list_names_the_file_and_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = add_list(tmp_path, "list", text)
    with pytest.raises(LayoutError, match=message) as caught:
        read_image_list(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_error_for_an_incomplete_layout_names_all_missing_paths(tmp_path: Path) -> None:
    expected = [
        f"missing image list: {tmp_path / 'ImageSets' / 'DET' / 'val.txt'}",
        f"missing folder of pictures: {tmp_path / 'Data' / 'DET' / 'val'}",
        f"missing folder of annotations: {tmp_path / 'Annotations' / 'DET' / 'val'}",
    ]
    with pytest.raises(LayoutError) as caught:
        open_dataset(tmp_path, "val")
    assert all(line in str(caught.value) for line in expected)


def test_the_error_for_a_wrong_split_or_root_has_a_hint(root: Path) -> None:
    with pytest.raises(LayoutError, match="the data set has the splits train, val"):
        open_dataset(root, "valid")
    root.rename(root.with_name("ILSVRC"))
    with pytest.raises(LayoutError, match=r"the data set is in .*ILSVRC"):
        open_dataset(root.parent, "val")


def test_empty_lists_and_pictures_named_twice_are_refused(root: Path) -> None:
    add_list(root, "val", "\n")
    with pytest.raises(LayoutError, match="the list is empty"):
        open_dataset(root, "val")
    add_list(root, "val", "a 1\nÄ 1 2\na 3\n")
    with pytest.raises(LayoutError, match="names 'a' twice"):
        open_dataset(root, "val")


def test_a_data_set_of_photographs_is_read(shared: Path) -> None:
    root = shared / "data" / "ILSVRC"
    for split, pictures, objects in (("train", 2746, 7502), ("val", 741, 1989)):
        dataset = open_dataset(root, split)
        assert len(dataset) == pictures
        assert sum(len(sample.boxes) for sample in dataset) == objects
        assert all(sample.path.is_file() for sample in dataset)
    for sample in dataset[::100]:
        height, width, _ = read_image(sample.path).shape
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= (width, height, width, height)).all()


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("Screen 101112\nScreen 101113\n", ["Screen 101112.jpg"], [("Screen 101112", 1), ("Screen 101113", 2)]),
        ("Screen 101112\n", ["Screen 101112.XML"], [("Screen 101112", 1)]),
        ("lost 1\nphoto 2\nphoto 3\n", ["photo 3.png", "photo 2.png"], [("lost 1", 1), ("photo 2", 2), ("photo 3", 3)]),
        ("photo 2 4\nphoto 7\n", ["photo.png", "photo 2.png"], [("photo 2", 4), ("photo", 7)]),
        ("photo\nphoto 2\n", ["photo.png", "photo 2.png"], [("photo", 1), ("photo 2", 2)]),
        ('"a"\n"b"\n', ["a.png", '"b".png'], [("a", 1), ('"b"', 2)]),
        (" a \nb \n", [" a .png", "b.png"], [(" a ", 1), ("b", 2)]),
        ("sub/x 3\nsub/x 4\n", ["sub/x 3.jpg", "sub/x 4.jpg"], [("sub/x 3", 1), ("sub/x 4", 2)]),
    ],
)
def test_a_name_in_a_list_is_that_of_an_existing_file_if_there_is_one(
    tmp_path: Path, lines: str, files: list[str], expected: list[tuple[str, int]]
) -> None:
    for name in files:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert read_image_list(add_list(tmp_path, "list", lines), [tmp_path / "pictures"]) == expected


def test_names_in_a_list_need_not_be_utf_8(tmp_path: Path) -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9 7\n")
    assert read_image_list(tmp_path / "list.txt") == [(name, 7)]
    (tmp_path / f"{name}.jpg").touch()
    assert picture_path(tmp_path, name).exists()


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["a.JPG"], "a", "a.JPG"),
        (["a.Png"], "a", "a.Png"),
        (["a.TIF", "b.jpg"], "a", "a.TIF"),
        (["a.jpg", "a.png"], "a.png", "a.png"),
        (["a.JPG"], "a.jpg", "a.JPG"),
        (["a.png"], "a.jpg", "a.png"),
        (["a.png.jpg", "a.jpg"], "a.png", "a.png.jpg"),
        (["frame.0001.jpg", "frame.jpg"], "frame.0001", "frame.0001.jpg"),
        ([], "a.png", "a.png"),
        ([], "a", "a.JPEG"),
        ([], "n" * 300, "n" * 300 + ".JPEG"),
    ],
)
def test_a_picture_of_exactly_the_name_comes_first(tmp_path: Path, files: list[str], name: str, expected: str) -> None:
    for file in files:
        (tmp_path / file).touch()
    assert picture_path(tmp_path, name) == tmp_path / expected


def test_annotations_may_have_a_suffix_in_capitals(root: Path) -> None:
    xml = root / "Annotations" / "DET" / "val" / "a.xml"
    xml.rename(xml.with_suffix(".XML"))
    assert len(open_dataset(root, "val")[0].boxes) == 2
