"""The classes that a detector reports."""

import numpy as np
import pytest

from inception_rcnn.data.categories import Category, CategoryError, Subclass
from inception_rcnn.detection.class_choice import choose_classes, with_classes
from inception_rcnn.detection.model_files import Model
from inception_rcnn.detection.regression import BoxRegressor

CATEGORIES = (
    Category(3, "n1", "dog"),
    Category(7, "n2", "domestic cat"),
    Category(9, "n3", "goldfish"),
    Category(4, "n4", "Hammer"),
)
# As a teacher gives them: its own classes, then a class for each category with boxes.
SUBCLASSES = (
    Subclass("n11", "Samoyed", 3),
    Subclass("n12", "beagle", 3),
    Subclass("n21", "tabby", 7),
    Subclass("n3", "goldfish", 9),
    Subclass("n5", "crane", None),
    Subclass("n6", "crane", None),
    Subclass("n41", "claw hammer", 4),
    Subclass("n1", "dog", 3),
    Subclass("n3", "goldfish", 9),
)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (None, [3, 7, 9, 4]),
        ("dog", [3]),
        (["goldfish", "dog"], [3, 9]),
        (["n2", "n2", "domestic cat"], [7]),
        (["hammer", "DOG", "Domestic Cat"], [3, 7, 4]),
    ],
)
@pytest.mark.parametrize("subclasses", [(), SUBCLASSES])
def test_names_and_wnids_choose_categories(names, ids, subclasses):
    choice = choose_classes(CATEGORIES, subclasses, names)
    assert [category.id for category in choice.categories] == ids
    assert choice.categories == tuple(CATEGORIES[row] for row in choice.rows)
    assert choice.among == CATEGORIES
    assert choice.subclasses == subclasses


def test_imagenet_chooses_all_classes_that_the_networks_tell_apart():
    choice = choose_classes(CATEGORIES, SUBCLASSES, "imagenet")
    names = ["Samoyed", "beagle", "tabby", "goldfish", "crane (n5)", "crane (n6)", "claw hammer", "dog"]
    assert [category.name for category in choice.categories] == names
    assert [category.id for category in choice.categories] == list(range(1, 9))
    assert choice.rows.tolist() == list(range(8))
    assert choice.of_model == (0, 0, 1, 2, None, None, 3, 0)
    columns = Model([], choice.among, subclasses=choice.subclasses).output_columns()
    assert columns.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 4]


def test_finest_names_choose_finest_classes():
    choice = choose_classes(CATEGORIES, SUBCLASSES, ["tabby", "goldfish", "n6"])
    assert [category.name for category in choice.categories] == ["tabby", "goldfish", "crane (n6)"]
    assert choice.rows.tolist() == [2, 3, 5]
    assert len(choice.among) == 8


@pytest.mark.parametrize(
    ("names", "subclasses", "message"),
    [
        (["dog", "cat"], SUBCLASSES, "the model has no class 'cat'; the nearest are domestic cat"),
        (["goldfisch"], (), "no class 'goldfisch'; the nearest are goldfish"),
        (["samoyd"], SUBCLASSES, "the nearest are Samoyed"),
        (["xyzzy"], (), "the classes begin with dog, domestic cat"),
        (["beagle", "domestic cat"], SUBCLASSES, "'beagle' is a finest name beneath a class, but 'domestic cat' is a"),
        ("imagenet", (), "tell only its 4 classes apart.*detect-train --teacher"),
        ([], SUBCLASSES, "no classes to report"),
    ],
)
def test_classes_that_the_model_lacks_are_refused(names, subclasses, message):
    with pytest.raises(CategoryError, match=message):
        choose_classes(CATEGORIES, subclasses, names)


def test_a_finest_class_has_the_box_regression_of_its_category():
    weights = np.arange(4 * 3 * 4, dtype=np.float32).reshape(4, 3, 4)
    model = Model([], CATEGORIES, subclasses=SUBCLASSES, regressor=BoxRegressor(weights))
    finest = with_classes(model, choose_classes(CATEGORIES, SUBCLASSES, "imagenet"))
    np.testing.assert_array_equal(finest.regressor.weights[[0, 1, 2, 3, 6, 7]], weights[[0, 0, 1, 2, 3, 0]])
    np.testing.assert_array_equal(finest.regressor.weights[4], weights.mean(axis=0))
    assert with_classes(model, choose_classes(CATEGORIES, SUBCLASSES, "dog")) is model
