"""Every layout is detected; the tests store the same two pictures in each layout."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.coco import CocoError
from inception_rcnn.data.ilsvrc import LayoutError, MissingSplitError
from inception_rcnn.data.layouts import open_dataset, open_datasets, open_ground_truth, open_validation

GNOME = AnnotatedObject("gnome", (11, 11, 50, 40))
CART = AnnotatedObject("cart", (1, 1, 20, 20), difficult=True)


def write_pictures(folder: Path, suffix: str = ".jpg") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        (folder / f"{name}{suffix}").touch()  # opening a data set does not open its pictures


def write_real_pictures(folder: Path) -> None:
    """Writes pictures of 60 x 45 pixels, for the layouts whose coordinates are fractions."""
    write_pictures(folder)
    for path in folder.glob("*.jpg"):
        Image.new("RGB", (60, 45)).save(path)


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


def coco_of_windows(root: Path) -> Path:
    write_pictures(root / "images")
    (root / "result.json").write_text(coco_content("images\\{}.jpg"))
    return root


def coco_of_another_machine(root: Path) -> Path:
    write_pictures(root / "images")
    (root / "result.json").write_text(coco_content("../../label-studio/upload/1/{}.jpg"))
    return root


def roboflow_coco(root: Path) -> Path:
    coco_export(root / "train")
    return root


def roboflow_voc(root: Path) -> Path:
    files_side_by_side(root / "train")
    return root


def cvat_voc(root: Path) -> Path:
    return voc(root, "default")


def cvat(root: Path) -> Path:
    write_pictures(root / "images")
    (root / "annotations.xml").write_text(CVAT_XML)
    return root


def labelme(root: Path) -> Path:
    write_pictures(root)
    write_labelme(root / "a.json", [rectangle("gnome", [50, 40], [10, 10]), {**CART_POLYGON, "difficult": True}])
    write_labelme(root / "b.json", [])
    return root


def label_studio(root: Path) -> Path:
    write_pictures(root / "images")
    size = {"original_width": 60, "original_height": 45, "image_rotation": 0}
    box = {"x": 100 / 6, "y": 1000 / 45, "width": 4000 / 60, "height": 3000 / 45, "rotation": 0}
    triangle = [[0, 0], [2000 / 60, 0], [2000 / 60, 2000 / 45]]
    results = [
        {"type": "rectanglelabels", "value": {**box, "rectanglelabels": ["gnome"]}, **size},
        {"type": "polygonlabels", "value": {"points": triangle, "polygonlabels": ["cart"]}, **size},
        {"type": "choices", "value": {"choices": ["night"]}},
    ]
    tasks = [
        {"id": 5, "data": {"image": "/data/upload/1/a.jpg"}, "annotations": [{"result": results}], "predictions": []},
        {"id": 6, "data": {"image": "/data/local-files/?d=x/b.jpg"}, "annotations": [{"result": []}]},
    ]
    (root / "project-1-at-2026-11-26.json").write_text(json.dumps(tasks))
    return root


def label_studio_file(root: Path) -> Path:
    return label_studio(root) / "project-1-at-2026-11-26.json"


LAYOUTS = [
    *(voc, voc_without_lists, files_side_by_side, cvat_voc, roboflow_voc, labelme),
    *(coco_folder, coco_file, coco_export, coco_anywhere, coco_of_windows, coco_of_another_machine, roboflow_coco),
]

CVAT_XML = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task/></meta>
<image id="0" name="a.jpg" width="60" height="45">
  <box label="gnome" source="manual" occluded="0" xtl="10.0" ytl="10.0" xbr="50" ybr="40" z_order="0"></box>
  <polygon label="cart" points="0,0;20.00,0.00;20.00,20.00;10.5,20"/>
  <tag label="night"/>
</image>
<image id="1" name="b.jpg" width="60" height="45"/>
</annotations>
"""
CART_POLYGON = {"label": "cart", "points": [[0, 0], [20, 0], [20, 20]], "shape_type": "polygon"}


def rectangle(label: str, *points: list[float]) -> dict[str, object]:
    return {"label": label, "points": list(points), "shape_type": "rectangle", "group_id": None, "flags": {}}


def write_labelme(file: Path, shapes: list[dict[str, object]], **more: object) -> None:
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{file.stem}.jpg", "imageData": None}
    file.write_text(json.dumps({**content, "imageHeight": 45, "imageWidth": 60, **more}))


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


YOLO_LABELS = "0 0.5 0.555555555555 0.666666666667 0.666666666667\n\n1 0 0 0.33333333333 0 0.33333333333 0.4444444444\n"


def yolo(root: Path, yaml: str = "names: [gnome, cart]\ntrain: images/train\nval: images/val\n") -> Path:
    for split in ("train", "val"):
        write_real_pictures(root / "images" / split)
        (root / "labels" / split).mkdir(parents=True)
        (root / "labels" / split / "a.txt").write_text(YOLO_LABELS)
    (root / "data.yaml").write_text(yaml)
    return root


def yolo_with_names_by_number(root: Path) -> Path:
    return yolo(root, "path: .\ntrain: [images/train]\nval: images/val\nnames:\n  0: gnome\n  1: cart\nnc: 2\n")


def yolo_with_lists(root: Path) -> Path:
    yolo(root, "names: [gnome, cart]\ntrain: train.txt\nval: val.txt\n")
    (root / "train.txt").write_text("./images/train/a.jpg\nimages/train/b.jpg\n")
    return root


def yolo_file(root: Path) -> Path:
    return yolo(root) / "data.yaml"


def roboflow_yolo(root: Path) -> Path:
    write_real_pictures(root / "train" / "images")
    (root / "train" / "labels").mkdir()
    (root / "train" / "labels" / "a.txt").write_text(YOLO_LABELS)
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\n\nnc: 2\nnames: ['gnome', 'cart']\n")
    return root


def label_studio_yolo(root: Path) -> Path:
    write_real_pictures(root / "images")
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(YOLO_LABELS)
    (root / "classes.txt").write_text("gnome\ncart\n")
    (root / "notes.json").write_text('{"categories": []}')
    return root


def cvat_yolo(root: Path) -> Path:
    write_real_pictures(root / "obj_train_data")
    (root / "obj_train_data" / "a.txt").write_text(YOLO_LABELS)
    (root / "obj.names").write_text("gnome\ncart\n")
    (root / "train.txt").write_text("data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    return root


@pytest.mark.parametrize(
    "layout",
    [
        *(yolo, yolo_with_names_by_number, yolo_with_lists, yolo_file, roboflow_yolo, label_studio_yolo, cvat_yolo),
        *(cvat, label_studio, label_studio_file),
    ],
)
def test_layouts_without_difficult_objects_give_the_same_objects(layout, tmp_path: Path) -> None:
    first, second = dataset = open_dataset(layout(tmp_path))
    names = {category.id: category.name for category in dataset.categories}
    assert [names[label] for label in first.labels.tolist()] == ["gnome", "cart"]
    assert first.boxes == pytest.approx(np.array([[10, 10, 50, 40], [0, 0, 20, 20]]), abs=1e-4)
    assert (first.image_id, second.image_id, second.boxes.shape) == ("a", "b", (0, 4))
    assert first.size == (60, 45)
    assert min(names) == 1


@pytest.mark.parametrize("layout", [*LAYOUTS, yolo, roboflow_yolo, label_studio_yolo, cvat_yolo, cvat, label_studio])
def test_each_layout_gives_ground_truth(layout, tmp_path: Path) -> None:
    path = layout(tmp_path)
    split = {voc: "train", coco_folder: "train", roboflow_coco: "train", roboflow_voc: "train", roboflow_yolo: "train"}
    categories = open_dataset(path).categories if layout in (voc, cvat_voc) else None
    truth = open_ground_truth(path, split.get(layout), categories, default_splits=("train",))
    assert truth.inclusive == pytest.approx(np.array([[11, 11, 50, 40], [1, 1, 20, 20]]), abs=1e-4)
    names = {category.id: category.name for category in truth.categories}
    assert [names[label] for label in truth.labels.tolist()] == ["gnome", "cart"]
    assert all(path.is_file() for path in truth.paths.values())
    assert len(truth.image_ids) == 2


def test_folders_of_roboflow_are_splits_and_valid_is_val(tmp_path: Path) -> None:
    trained = open_dataset(roboflow_coco(tmp_path))
    assert open_validation([tmp_path], None, None, [trained.name]) is None
    coco_export(tmp_path / "valid")
    for name in ("val", "valid"):
        found = open_validation([tmp_path], name, None, [trained.name])
        assert found is not None
        assert (found.name, found[0].path.parent.name) == (f"{tmp_path.name} valid", "valid")
    assert open_validation([tmp_path], None, None, [trained.name]) is not None
    assert trained.name == f"{tmp_path.name} train"


def test_a_broken_validation_file_is_an_error(tmp_path: Path) -> None:
    trained = open_dataset(roboflow_coco(tmp_path))
    coco_export(tmp_path / "valid")
    (tmp_path / "valid" / "_annotations.coco.json").write_text("{")
    with pytest.raises(CocoError, match="not JSON"):
        open_validation([tmp_path], None, None, [trained.name])


@pytest.mark.parametrize("layout", [files_side_by_side, coco_folder, labelme, roboflow_voc])
def test_hidden_files_are_passed_over(layout, tmp_path: Path) -> None:
    path = layout(tmp_path)
    for file in [file for file in tmp_path.rglob("*.*") if file.is_file()]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
    assert len(open_dataset(path)) == 2


@pytest.mark.parametrize("layout", [voc, voc_without_lists, files_side_by_side, labelme, yolo])
def test_suffixes_may_be_in_capitals(layout, tmp_path: Path) -> None:
    path = layout(tmp_path)
    for file in [*tmp_path.rglob("*.jpg"), *tmp_path.rglob("*.xml"), *tmp_path.rglob("*.JPG")]:
        file.rename(file.with_suffix(file.suffix.upper()))
    dataset = open_dataset(path)
    assert [len(sample.boxes) for sample in dataset] == [2, 0]
    assert all(sample.path.is_file() for sample in dataset)


def test_xml_files_may_have_the_whole_name_of_the_picture(tmp_path: Path) -> None:
    for name, suffix in (("a", ".jpg"), ("a", ".png"), ("frame.0001", ".jpg")):
        (tmp_path / f"{name}{suffix}").touch()
        xml = tmp_path / (f"{name}{suffix}.xml" if name == "a" else f"{name}.xml")
        write_annotation(xml, Annotation("x", 60, 45, (AnnotatedObject(suffix[1:], (1, 1, 5, 5)),)))
    dataset = open_dataset(tmp_path)
    assert [sample.path.name for sample in dataset] == ["a.jpg", "a.png", "frame.0001.jpg"]
    assert [dataset.categories[sample.labels[0] - 1].name for sample in dataset] == ["jpg", "png", "jpg"]


@pytest.mark.parametrize("names", [("x/a.jpg", "y/a.jpg"), ("a.jpg", "a.jpg")])
def test_two_coco_images_of_one_file_are_an_error(tmp_path: Path, names: tuple[str, str]) -> None:
    file = coco_file(tmp_path)
    file.write_text(coco_content().replace("a.jpg", names[0]).replace("b.jpg", names[1]))
    message = f"the images 7 ({names[0]!r}) and 9 ({names[1]!r}) are the same picture, {tmp_path / 'images' / 'a.jpg'}"
    with pytest.raises(CocoError, match=re.escape(message)):
        open_dataset(file)


@pytest.mark.parametrize("name", ["{}.jpg", "s3://b/x/{}.jpg", f"https://b/x/{{}}.jpg?q={'z' * 5000}", "{}%2E.jpg#1"])
def test_coco_names_may_be_urls(tmp_path: Path, name: str) -> None:
    file = coco_file(tmp_path)
    file.write_text(coco_content(name))
    if name.startswith("{}%"):
        for letter in "ab":
            (tmp_path / "images" / f"{letter}.jpg").rename(tmp_path / "images" / name.format(letter))
    assert [len(sample.boxes) for sample in open_dataset(file)] == [2, 0]
    assert all(sample.path.is_file() for sample in open_dataset(file))


def test_names_that_are_too_long_for_a_file_are_missing_pictures(tmp_path: Path) -> None:
    file = coco_file(tmp_path)
    file.write_text(coco_content("z" * 300_000 + "{}.jpg"))
    with pytest.raises(LayoutError, match=r"the first picture, zzz.* is in none of the folders") as caught:
        open_dataset(file)
    assert len(str(caught.value)) < 2000
    with pytest.raises(LayoutError, match="no such file or folder"):
        open_dataset("z" * 300)


def test_data_sets_are_merged_by_class_names(tmp_path: Path) -> None:
    roots = [yolo(tmp_path / "one"), files_side_by_side(tmp_path / "two"), roboflow_coco(tmp_path / "three")]
    write_annotation(roots[1] / "b.xml", Annotation("b.jpg", 60, 45, (AnnotatedObject("dog", (1, 1, 5, 5)),)))
    dataset, found = open_datasets(roots)
    assert [(one.id, one.name) for one in dataset.categories] == [(1, "gnome"), (2, "cart"), (3, "dog")]
    assert [sample.labels.tolist() for sample in dataset] == [[1, 2], [], [1, 2], [3], [1, 2], []]
    assert [sample.index for sample in dataset] == [1, 2, 3, 4, 5, 6]
    assert [(one.layout, one.pictures, one.objects) for one in found] == [
        ("YOLO", 2, {"gnome": 1, "cart": 1}),
        ("VOC's files", 2, {"gnome": 1, "cart": 1, "dog": 1}),
        ("COCO", 2, {"gnome": 1, "cart": 1}),
    ]
    assert [sample.annotated for sample in dataset] == [{1, 2}, {1, 2}, {1, 2, 3}, {1, 2, 3}, {1, 2}, {1, 2}]
    assert len(pickle.loads(pickle.dumps(dataset))) == 6
    single, nothing = open_datasets(roots[:1])
    assert (len(single), nothing) == (2, [])


def test_data_sets_with_the_same_classes_are_annotated_for_all_of_them(tmp_path: Path) -> None:
    dataset, _ = open_datasets([yolo(tmp_path / "one"), roboflow_coco(tmp_path / "two")])
    assert [sample.annotated for sample in dataset] == [None] * 4


def test_validation_sets_are_merged_too(tmp_path: Path) -> None:
    roots = [voc(tmp_path / "one"), voc(tmp_path / "two"), voc(tmp_path / "three")]
    for root in roots[:2]:
        (root / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    validation = open_validation(roots, None, None, [])
    assert validation is not None
    assert validation.name == "one val + two val"
    assert len(validation) == 2


def test_a_picture_in_two_merged_data_sets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"a\.jpg is in .* expected each picture once"):
        open_datasets([yolo(tmp_path), tmp_path / "data.yaml"])


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
    assert open_validation([tmp_path], None, None, [trained.name]) is None  # the split val does not exist
    (tmp_path / "ImageSets" / "Main" / "val.txt").write_text("b\nc\n")
    (tmp_path / "JPEGImages" / "c.jpg").touch()
    write_annotation(tmp_path / "Annotations" / "c.xml", Annotation("c.jpg", 60, 45))
    found = open_validation([tmp_path], None, None, [trained.name])
    assert found is not None
    assert [sample.image_id for sample in found] == ["b", "c"]
    named = open_validation([tmp_path], "train", None, [trained.name])
    assert named is not None
    assert [sample.image_id for sample in named] == ["a", "b"]
    with pytest.raises(LayoutError):
        open_validation([tmp_path], "test", None, [trained.name])


def test_a_single_coco_file_is_not_its_own_validation_set(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    (tmp_path / "instances.json").write_text(coco_content())
    assert open_validation([tmp_path], None, None, [open_dataset(tmp_path).name]) is None


def test_ground_truth_is_read_from_the_first_split_that_exists(tmp_path: Path) -> None:
    for layout in (voc, roboflow_coco):
        root = layout(tmp_path / layout.__name__)
        truth = open_ground_truth(root)
        assert "train" in truth.name
        assert {category.name for category in truth.categories} == {"gnome", "cart"}
        with pytest.raises(MissingSplitError):
            open_ground_truth(root, "dev")
