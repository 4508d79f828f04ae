"""Every layout is detected; the tests store the same two pictures in each layout."""

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
        (folder / f"{name}{suffix}").touch()  # opening a data set does not open its pictures


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
    (root / "annotations" / "instances_val2017.json").write_text("not JSON, must not be read")
    (root / "annotations" / "captions_train2017.json").write_text("not JSON, must not be read")
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
def test_each_layout_is_detected_and_gives_the_same_objects(layout, tmp_path: Path) -> None:
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


def test_the_ilsvrc_layout_has_200_classes_by_default(tmp_path: Path) -> None:
    write_pictures(tmp_path / "Data" / "DET" / "train", ".JPEG")
    write_xml(tmp_path / "Annotations" / "DET" / "train", AnnotatedObject("n02084071", (11, 11, 50, 40)))
    write_list(tmp_path / "ImageSets" / "DET" / "train.txt")
    assert len(open_dataset(tmp_path).categories) == 200
    own = (Category(1, "n02084071", "dog"), Category(2, "cart", "cart"))
    assert open_dataset(tmp_path, categories=own)[0].labels.tolist() == [1, 2]


def test_the_voc_layout_has_the_classes_that_occur_in_the_split_by_default(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    assert open_dataset(tmp_path).categories == (Category(1, "cart", "cart"), Category(2, "gnome", "gnome"))
    assert open_dataset(tmp_path, "val").categories == ()


def test_the_voc_layout_opens_the_first_default_split_that_exists(tmp_path: Path) -> None:
    assert open_dataset(voc(tmp_path / "a", "trainval")).name == "a trainval"
    with pytest.raises(LayoutError, match=r"the list train\.txt does not exist; existing lists: summer"):
        open_dataset(voc(tmp_path / "b", "summer"))
    assert open_dataset(tmp_path / "b", default_splits=("summer",)).name == "b summer"


def test_a_picture_without_annotation_and_an_annotation_without_picture_are_errors(tmp_path: Path) -> None:
    root = files_side_by_side(tmp_path)
    (root / "c.png").touch()
    with pytest.raises(LayoutError, match=r"1 of 3 pictures have no annotation of the same name: c\.png"):
        open_dataset(root)
    (root / "c.png").unlink()
    (root / "b.jpg").unlink()
    with pytest.raises(LayoutError, match=r"1 of 2 annotations have no picture of the same name: b\.xml"):
        open_dataset(root)


def test_two_pictures_with_the_same_name_are_an_error(tmp_path: Path) -> None:
    root = files_side_by_side(tmp_path)
    (root / "a.png").touch()
    with pytest.raises(LayoutError, match=r"a\.png and a\.jpg have the same name"):
        open_dataset(root)


def test_the_error_for_missing_pictures_of_a_coco_file_names_the_folders(tmp_path: Path) -> None:
    file = coco_file(tmp_path)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match=r"the first picture, a\.jpg, is in none of the folders .*images"):
        open_dataset(file)


def test_the_error_for_several_annotation_files_names_them(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for name in ("north", "south"):
        (tmp_path / "annotations" / f"{name}.json").write_text(coco_content())
    with pytest.raises(LayoutError, match=r"found 0 .*north\.json, south\.json.*give the path of the file"):
        open_dataset(tmp_path)


def test_the_error_for_a_file_that_is_not_coco_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(CocoError, match=r"a\.json"):
        open_dataset(tmp_path / "a.json")


@pytest.mark.parametrize("layout", [files_side_by_side, coco_file])
def test_a_split_is_refused_if_the_layout_has_no_splits(layout, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="'val'"):
        open_dataset(layout(tmp_path), "val")


def test_the_error_for_an_unknown_layout_describes_the_layouts_and_finds_nested_data_sets(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"(?s)no such file or folder.*ILSVRC.*VOC.*COCO"):
        open_dataset(tmp_path / "nowhere")
    voc(tmp_path / "VOCdevkit" / "VOC2012")
    with pytest.raises(LayoutError, match=r"(?s)not a data set.*COCO.*hint: .*VOC2012"):
        open_dataset(tmp_path)


def test_the_default_validation_set_is_val_if_it_exists(tmp_path: Path) -> None:
    trained = open_dataset(voc(tmp_path))
    assert open_validation(tmp_path, None, None, trained) is None  # the split val does not exist
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


def test_a_single_coco_file_is_not_its_own_validation_set(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "instances.json").write_text(coco_content())
    assert open_validation(tmp_path, None, None, open_dataset(tmp_path)) is None
