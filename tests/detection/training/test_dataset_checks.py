import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.voc import open_folder
from inception_rcnn.detection.training.dataset_checks import check_dataset
from inception_rcnn.detection.training.errors import TrainingError


@pytest.fixture
def root(tmp_path):
    """Three pictures of 60 x 40 with gnomes, one of them partly and one completely outside, and a difficult cart."""
    objects = {
        "a": [("gnome", (1, 1, 20, 20)), ("gnome", (30, 1, 80, 40)), ("gnome", (70, 1, 80, 40))],
        "b": [("gnome", (0, 0, 61, 41))],  # A pixel beyond each side, which is tolerated
        "c": [("cart", (1, 1, 20, 20)), ("gnome", (5, 5, 5, 5))],
    }
    for name, some in objects.items():
        Image.new("RGB", (60, 40)).save(tmp_path / f"{name}.jpg")
        found = tuple(AnnotatedObject(label, box, difficult=label == "cart") for label, box in some)
        write_annotation(tmp_path / f"{name}.xml", Annotation(f"{name}.jpg", 60, 40, found))
    return tmp_path


def test_boxes_beyond_the_picture_are_clipped_and_named(root):
    warnings = []
    dataset, counts = check_dataset(open_folder(root), "clip", warnings.append)
    assert dataset[0].boxes.tolist() == [[0, 0, 20, 20], [29, 0, 60, 40]]
    assert dataset[1].boxes.tolist() == [[0, 0, 60, 40]]
    gnome = {category.name: category.id for category in dataset.categories}["gnome"]
    assert counts == {gnome: 4}
    assert warnings[0] == "2 boxes reach beyond their picture and are clipped to it: a (object 2), a (object 3)"


def test_boxes_beyond_the_picture_can_be_dropped(root):
    warnings = []
    dataset, _ = check_dataset(open_folder(root), "drop", warnings.append)
    assert dataset[0].boxes.tolist() == [[0, 0, 20, 20]]
    assert len(dataset[0].labels) == len(dataset[0].difficult) == 1
    assert "are left out: a (object 2)" in warnings[0]


def test_a_picture_whose_size_differs_from_its_annotation_is_named_and_its_own_size_counts(root):
    Image.new("RGB", (50, 40)).save(root / "a.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6  # Rotated upright, the picture is 60 wide and 40 high.
    Image.new("RGB", (40, 60)).save(root / "b.jpg", exif=turned)
    warnings = []
    dataset, _ = check_dataset(open_folder(root), "clip", warnings.append)
    assert dataset[0].boxes.tolist() == [[0, 0, 20, 20], [29, 0, 50, 40]]
    assert dataset[1].boxes.tolist() == [[0, 0, 60, 40]]
    assert [one for one in warnings if "in size" in one] == [
        "1 pictures differ in size from their annotation; boxes are read as pixels of the upright picture in the file: "
        "a (50 x 40, annotated as 60 x 40)"
    ]


def test_a_file_that_is_no_picture_is_named_before_training(root):
    (root / "b.jpg").write_text("no picture")
    with pytest.raises(TrainingError, match=r"1 of 3 pictures cannot be trained on:\n.*b\.jpg: not a JPEG"):
        check_dataset(open_folder(root))


def test_classes_without_a_box_are_named(root):
    warnings = []
    known = [Category(number, name, name) for number, name in enumerate(("cart", "gnome", "dwarf"), 1)]
    check_dataset(open_folder(root, known), "clip", warnings.append)
    assert "2 of 3 classes have no boxes, so the detector will not know them: cart, dwarf" in warnings


def test_boxes_without_area_are_left_out_and_named(root):
    thin = AnnotatedObject("gnome", (61, 1, 61, 40))  # x from 60 to 61 in a picture that is 60 wide
    write_annotation(root / "b.xml", Annotation("b.jpg", 60, 40, (thin, AnnotatedObject("gnome", (1, 1, 9, 9)))))
    warnings = []
    dataset, _ = check_dataset(open_folder(root), "clip", warnings.append)
    assert dataset[1].boxes.tolist() == [[0, 0, 9, 9]]
    assert "1 boxes have no area and are left out: b (object 1)" in warnings


def test_classes_with_few_boxes_are_named_with_their_number(root):
    warnings = []
    check_dataset(open_folder(root), "clip", warnings.append)
    assert "classes with fewer than 20 boxes will rarely be detected: gnome 4" in warnings


def test_enough_boxes_inside_their_pictures_give_no_warning(root):
    boxes = [(x, y, x + 3, y + 3) for x in range(1, 50, 5) for y in (1, 10)]
    for name in "abc":
        objects = tuple(AnnotatedObject("gnome", box) for box in boxes)
        write_annotation(root / f"{name}.xml", Annotation(f"{name}.jpg", 60, 40, objects))
    warnings = []
    assert check_dataset(open_folder(root), "clip", warnings.append)[1] == {1: 60}
    assert warnings == []


def test_missing_pictures_and_broken_annotations_are_counted_and_named(root):
    dataset = open_folder(root, [Category(1, "gnome", "gnome"), Category(2, "card", "card")])
    (root / "a.jpg").unlink()
    (root / "b.xml").unlink()
    with pytest.raises(TrainingError) as raised:
        check_dataset(dataset)
    message = str(raised.value)
    assert "3 of 3 pictures cannot be trained on" in message
    assert "a.jpg: annotated picture is missing" in message
    assert "b.xml: cannot read the annotation" in message
    assert "'cart' is not in the class list; the nearest are card" in message


@pytest.mark.parametrize("objects", [(), (AnnotatedObject("cart", (1, 1, 20, 20), difficult=True),)])
def test_a_data_set_without_objects_to_learn_is_refused(root, objects):
    for name in "abc":
        write_annotation(root / f"{name}.xml", Annotation(f"{name}.jpg", 60, 40, objects))
    with pytest.raises(TrainingError, match="none of 3 pictures has an object"):
        check_dataset(open_folder(root))


def test_labels_stay_with_their_boxes(root):
    dataset, _ = check_dataset(open_folder(root))
    names = {category.id: category.name for category in dataset.categories}
    assert [[names[label] for label in sample.labels.tolist()] for sample in dataset] == [
        ["gnome", "gnome"], ["gnome"], ["cart", "gnome"],
    ]  # fmt: skip
    assert np.concatenate([sample.difficult for sample in dataset]).tolist() == [False, False, False, True, False]


def test_names_that_differ_in_case_only_are_named(root):
    objects = tuple(AnnotatedObject(name, (1, 1, 20, 20)) for name in ("Gnome", "garden cart", "GardenCart", "pond"))
    write_annotation(root / "a.xml", Annotation("a.jpg", 60, 40, objects))
    warnings = []
    check_dataset(open_folder(root), warn=warnings.append)
    named = [warning for warning in warnings if "differ in case" in warning]
    assert len(named) == 2
    assert any("'GardenCart' with 1, 'garden cart' with 1 boxes" in warning for warning in named)
    assert any("'Gnome' with 1, 'gnome' with 2 boxes" in warning for warning in named)
    warnings.clear()
    check_dataset(open_folder(root), warn=warnings.append, learns_classes=False)
    assert not any("differ in case" in warning for warning in warnings)
