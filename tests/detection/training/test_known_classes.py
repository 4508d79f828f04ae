"""A data set as a detector sees it that knows only some of its classes."""

from inception_rcnn.data.categories import Category
from inception_rcnn.detection.training.known_classes import warn_of_unknown_classes, with_known_classes


def test_known_classes_are_matched_by_name(dataset):
    names = {category.id: category.name for category in dataset.categories}
    dog, cat = (
        next(i for i, one in enumerate(dataset) if names[int(one.labels[0])] == name)
        for name in ("dog", "domestic cat")
    )
    known = with_known_classes(dataset, (Category(3, "x", "dog"),))
    assert known[dog].labels.tolist() == [3]
    assert known[cat].labels.tolist() == []
    assert known[cat].boxes.shape == (0, 4)


def test_classes_with_objects_that_a_model_does_not_know_are_named(dataset):
    ids = {category.name: category.id for category in dataset.categories}
    warnings = []
    warn_of_unknown_classes(dataset, {ids["dog"]: 2}, (Category(3, "x", "dog"),), "m", warnings.append)
    assert not warnings
    warn_of_unknown_classes(dataset, {ids["dog"]: 2, ids["zebra"]: 1}, (Category(3, "x", "dog"),), "m", warnings.append)
    assert warnings == ["m does not know some classes, whose objects are left out: zebra"]
