"""The objects of a picture: names, selection, text, and the forms of other libraries."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import Detection, Detections
from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.detection.drawing import draw_detections

DOG, CAT = Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat")
FINEST = (
    Subclass("n02111889", "Samoyed", 58),
    Subclass("n02123045", "tabby", 7),
    Subclass("n02084071", "dog", 58),
)
BOXES = np.array([[0.25, 0, 20, 20], [40, 0.125, 60, 20], [80, 20, 100, 40]], np.float32)


def three(**fields) -> Detections:
    """A Samoyed, a tabby and a dog of unknown breed."""
    values = {"subclasses": np.array([0, 1, -1]), "categories": (DOG, CAT), "finest": FINEST, **fields}
    return Detections(BOXES, np.array([0.9, 0.6, 0.3], np.float32), np.array([58, 7, 58]), np.arange(3), **values)


def none() -> Detections:
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def test_names_are_those_of_the_labels():
    assert three().names == ["dog", "domestic cat", "dog"]
    assert three(categories=(), subclasses=None).names == ["class 58", "class 7", "class 58"]
    assert none().names == []


def test_the_finest_name_is_class_and_subclass():
    assert three().finest_names == ["dog: Samoyed", "domestic cat: tabby", "dog"]
    assert three(subclasses=np.array([2, -1, -1])).finest_names == ["dog", "domestic cat", "dog"]
    assert three(subclasses=None).finest_names == ["dog", "domestic cat", "dog"]


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        ([], []),
        (slice(None), [0, 1, 2]),
        (slice(1, None), [1, 2]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        (np.array([-1]), [2]),
        ([True, False, True], [0, 2]),
        (np.array([0.9, 0.6, 0.3]) > 0.5, [0, 1]),
        (torch.tensor([2, 1]), [2, 1]),
    ],
)
def test_a_mask_a_slice_and_indices_select_detections(index, rows):
    chosen = three()[index]
    assert isinstance(chosen, Detections)
    np.testing.assert_array_equal(chosen.boxes, BOXES[rows])
    for name in ("scores", "labels", "regions", "subclasses"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(three(), name)[rows])
    assert chosen.finest_names == [three().finest_names[row] for row in rows]


@pytest.mark.parametrize("index", [3, -4, [3], [True, False], "dog", [0.5], [[0]]])
def test_an_index_of_no_detection_is_refused(index):
    with pytest.raises(IndexError):
        three()[index]


def test_iteration_and_an_integer_give_single_detections():
    first, _, last = three()
    assert first == three()[0] == three()[np.int64(-3)]
    assert first == Detection((0.25, 0, 20, 20), pytest.approx(0.9), 58, "dog", "dog: Samoyed")
    assert (last.name, last.finest_name) == ("dog", "dog")
    box, score, label, name, _ = three()[1]
    assert (box, label, name) == ((40, 0.125, 60, 20), 7, "domestic cat")
    assert isinstance(score, float)
    assert list(none()) == []


def test_the_text_lists_the_best_detections():
    assert repr(three()).split("\n") == [
        "Detections: 3 objects",
        "  dog: Samoyed 0.90 (0.2, 0.0, 20.0, 20.0)",
        "  domestic cat: tabby 0.60 (40.0, 0.1, 60.0, 20.0)",
        "  dog 0.30 (80.0, 20.0, 100.0, 40.0)",
    ]
    assert repr(none()) == "Detections: no objects"
    assert repr(three()[:1]).startswith("Detections: 1 object\n")
    many = repr(three()[[0] * 25]).split("\n")
    assert len(many) == 12
    assert many[-1] == "  and 15 more"


def test_above_keeps_scores_of_at_least_the_threshold():
    assert three().above(0.6).finest_names == ["dog: Samoyed", "domestic cat: tabby"][: 1 + (np.float32(0.6) >= 0.6)]
    assert len(three().above(0)) == 3


def as_detections(boxes, scores, labels) -> Detections:
    return Detections(np.asarray(boxes), np.asarray(scores), np.asarray(labels), categories=(DOG, CAT))


def assert_same(a: Detections, b: Detections) -> None:
    for name in ("boxes", "scores", "labels"):
        one, other = getattr(a, name), getattr(b, name)
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("found", [three(), none()], ids=["three", "none"])
def test_torch_round_trip(found):
    tensors = found.to_torch()
    assert set(tensors) == {"boxes", "labels", "scores"}
    assert_same(as_detections(tensors["boxes"], tensors["scores"], tensors["labels"]), found)
    tensors["boxes"] += 1
    assert_same(found, found[:])


@pytest.mark.parametrize("found", [three(), none()], ids=["three", "none"])
def test_pandas_round_trip(found):
    pytest.importorskip("pandas", reason="needs pandas (pip install inception-rcnn[dev])")
    table = found.to_pandas()
    assert list(table.columns) == ["x1", "y1", "x2", "y2", "score", "label", "name", "finest_name"]
    boxes = table[["x1", "y1", "x2", "y2"]].to_numpy(np.float32).reshape(-1, 4)
    assert_same(as_detections(boxes, table["score"].to_numpy(), table["label"].to_numpy()), found)
    assert table["name"].tolist() == found.names
    assert table["finest_name"].tolist() == found.finest_names


@pytest.mark.parametrize("found", [three(), none()], ids=["three", "none"])
def test_supervision_round_trip(found):
    pytest.importorskip("supervision", reason="needs supervision (pip install inception-rcnn[dev])")
    other = found.to_supervision()
    assert len(other) == len(found)
    assert_same(as_detections(other.xyxy, other.confidence, other.class_id), found)
    assert other.data["class_name"].tolist() == found.names
    assert other[other.confidence > 0.5].data["finest_name"].tolist() == found.above(0.5).finest_names


def test_coco_results_are_read_by_pycocotools():
    from pycocotools.coco import COCO

    truth = COCO()
    truth.dataset = {"images": [{"id": 4}], "categories": [{"id": 58}, {"id": 7}], "annotations": []}
    truth.createIndex()
    results = three().to_coco(4)
    loaded = truth.loadRes(results).loadAnns([1, 2, 3])
    boxes = np.array([one["bbox"] for one in loaded])
    boxes[:, 2:] += boxes[:, :2]
    found = as_detections(
        boxes.astype(np.float32),
        np.array([one["score"] for one in loaded], np.float32),
        [one["category_id"] for one in loaded],
    )
    assert_same(found, three())
    assert none().to_coco(1) == []


def test_draw_labels_the_objects_in_a_copy_of_the_picture():
    image = np.full((60, 120, 3), 90, np.uint8)
    drawn = three().draw(image)
    np.testing.assert_array_equal(drawn, draw_detections(image, BOXES, three().names, three().scores))
    assert (image == 90).all()
    np.testing.assert_array_equal(three().draw(Image.fromarray(image)), drawn)
    finest = three().draw(image, finest_names=True)
    np.testing.assert_array_equal(
        finest, draw_detections(image, BOXES, three().finest_names, three().scores, classes=three().names)
    )


def test_other_libraries_are_imported_only_when_asked_for():
    program = (
        "import sys, inception_rcnn; found = inception_rcnn.Detections\n"
        "print([name for name in ('torch', 'pandas', 'supervision', 'numba') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
