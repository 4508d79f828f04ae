"""The same two pictures in every layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.coco import CocoError
from inception_rcnn.data.ilsvrc import LayoutError
from inception_rcnn.data.layouts import open_dataset, open_validation

GNOME = AnnotatedObject("gnome", (11, 11, 50, 40))
CART = AnnotatedObject("cart", (1, 1, 20, 20), difficult=True)


def write_pictures(folder: Path, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / f"{name}{suffix}").touch()  # opening a data set opens no picture


def write_xml(folder: Path, gnome: AnnotatedObject = GNOME) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_annotation(folder / "a.xml", Annotation("a.jpg", 60, 45, (gnome, CART)))
    write_annotation(folder / "b.xml", Annotation("b.jpg", 60, 45))


def write_list(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("a\nb\n")


def coco_content(name: str = "{}.jpg") -> str:
    return json.dumps(
        {
            "images": [{"id": n, "file_name": name.format(letter)} for n, letter in ((7, "a"), (9, "b"))],
            "categories": [{"id": 2, "name": "gnome"}, {"id": 1, "name": "cart"}],
            "annotations": [
                {"image_id": 7, "category_id": 2, "bbox": [10, 10, 40, 30]},
                {"image_id": 7, "category_id": 1, "bbox": [0, 0, 20, 20], "iscrowd": 1},
            ],
        }
    )


def voc(root: Path, split: str = "train") -> Path:
    write_pictures(root / "JPEGImages")
    write_xml(root / "Annotations")
    write_list(root / "ImageSets" / "Main" / f"{split}.txt")
    return root


def voc_without_lists(root: Path) -> Path:
    write_pictures(root / "JPEGImages", ".JPG")
    write_xml(root / "Annotations")
    return root


def files_side_by_side(root: Path) -> Path:
    write_pictures(root)
    write_xml(root)
    return root


def coco_folder(root: Path) -> Path:
    write_pictures(root / "train2017")
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train2017.json").write_text(coco_content())
    (root / "annotations" / "instances_val2017.json").write_text("no JSON, and not read")
    (root / "annotations" / "captions_train2017.json").write_text("no JSON, and not read")
    return root


def coco_file(root: Path) -> Path:
    write_pictures(root / "images")
    (root / "labels.json").write_text(coco_content())
    return root / "labels.json"


def coco_export(root: Path) -> Path:
    write_pictures(root)
    (root / "_annotations.coco.json").write_text(coco_content())
    return root


def coco_anywhere(root: Path) -> Path:
    write_pictures(root / "far" / "away")
    (root / "labels.json").write_text(coco_content(str(root / "far" / "away" / "{}.jpg")))
    return root / "labels.json"


LAYOUTS = [voc, voc_without_lists, files_side_by_side, coco_folder, coco_file, coco_export, coco_anywhere]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_out_and_gives_the_same_objects(layout, tmp_path: Path) -> None:
    dataset = open_dataset(layout(tmp_path))
    names = {category.id: category.name for category in dataset.categories}
    assert set(names.values()) == {"gnome", "cart"}
    assert [sample.image_id.split("/")[-1] for sample in dataset] == ["a", "b"]
    first, second = dataset
    assert first.path.is_file()
    assert [names[label] for label in first.labels.tolist()] == ["gnome", "cart"]
    assert first.boxes.tolist() == [[10, 10, 50, 40], [0, 0, 20, 20]]
    assert first.difficult.tolist() == [False, True]
    assert len(second.boxes) == 0


def test_ilsvrc_has_its_200_classes_whatever_occurs(tmp_path: Path) -> None:
    write_pictures(tmp_path / "Data" / "DET" / "train", ".JPEG")
    write_xml(tmp_path / "Annotations" / "DET" / "train", AnnotatedObject("n02084071", (11, 11, 50, 40)))
    write_list(tmp_path / "ImageSets" / "DET" / "train.txt")
    assert len(open_dataset(tmp_path).categories) == 200
    own = (Category(1, "n02084071", "dog"), Category(2, "cart", "cart"))
    assert open_dataset(tmp_path, categories=own)[0].labels.tolist() == [1, 2]


def test_classes_of_a_voc_list_are_those_that_occur_in_it_by_name(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    assert open_dataset(tmp_path).categories == (Category(1, "cart", "cart"), Category(2, "gnome", "gnome"))
    assert open_dataset(tmp_path, "val").categories == ()


def test_without_a_train_list_voc_is_opened_by_trainval_and_else_asks(tmp_path: Path) -> None:
    assert open_dataset(voc(tmp_path / "a", "trainval")).name == "a trainval"
    with pytest.raises(LayoutError, match=r"no list train\.txt; name one of those there: summer"):
        open_dataset(voc(tmp_path / "b", "summer"))
    assert open_dataset(tmp_path / "b", default_splits=("summer",)).name == "b summer"


def test_a_picture_without_annotation_and_an_annotation_without_picture_are_named(tmp_path: Path) -> None:
    root = files_side_by_side(tmp_path)
    (root / "c.png").touch()
    with pytest.raises(LayoutError, match=r"1 of 3 pictures have no annotation of the same name: c\.png"):
        open_dataset(root)
    (root / "c.png").unlink()
    (root / "b.jpg").unlink()
    with pytest.raises(LayoutError, match=r"1 of 2 annotations have no picture of the same name: b\.xml"):
        open_dataset(root)


def test_two_pictures_for_one_annotation_are_named(tmp_path: Path) -> None:
    root = files_side_by_side(tmp_path)
    (root / "a.png").touch()
    with pytest.raises(LayoutError, match=r"a\.png and a\.jpg have one name"):
        open_dataset(root)


def test_a_coco_file_whose_pictures_are_nowhere_says_where_it_looked(tmp_path: Path) -> None:
    file = coco_file(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match=r"its first picture, a\.jpg, is in none of .*images"):
        open_dataset(file)


def test_several_annotation_files_that_might_be_meant_are_named(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for name in ("north", "south"):
        (tmp_path / "annotations" / f"{name}.json").write_text(coco_content())
    with pytest.raises(LayoutError, match=r"north\.json, south\.json.*name the file itself"):
        open_dataset(tmp_path)


def test_a_coco_file_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(CocoError, match=r"a\.json"):
        open_dataset(tmp_path / "a.json")


@pytest.mark.parametrize("layout", [files_side_by_side, coco_file])
def test_a_split_of_what_has_none_is_refused(layout, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="'val'"):
        open_dataset(layout(tmp_path), "val")


def test_what_is_no_data_set_is_told_the_layouts_and_where_one_may_be(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"(?s)no such folder.*ILSVRC.*VOC.*COCO"):
        open_dataset(tmp_path / "nowhere")
    voc(tmp_path / "VOCdevkit" / "VOC2012")
    with pytest.raises(LayoutError, match=r"(?s)not a data set.*COCO.*hint: .*VOC2012"):
        open_dataset(tmp_path)


def test_pictures_to_measure_on_are_those_of_val_if_there_is_one(tmp_path: Path) -> None:
    trained = open_dataset(voc(tmp_path))
    assert open_validation(tmp_path, None, None, trained) is None  # there is no val
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\nc\n")
    (tmp_path / "JPEGImages" / "c.jpg").touch()
    write_annotation(tmp_path / "Annotations" / "c.xml", Annotation("c.jpg", 60, 45))
    found = open_validation(tmp_path, None, None, trained)
    assert found is not None
    assert [sample.image_id for sample in found] == ["b", "c"]
    named = open_validation(tmp_path, "train", None, trained)
    assert named is not None
    assert [sample.image_id for sample in named] == ["a", "b"]
    with pytest.raises(LayoutError):
        open_validation(tmp_path, "test", None, trained)


def test_a_coco_file_is_no_validation_of_its_own(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "instances.json").write_text(coco_content())
    assert open_validation(tmp_path, None, None, open_dataset(tmp_path)) is None
