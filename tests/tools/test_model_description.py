"""`detect --describe`."""

from io import StringIO

import pytest
from rich.console import Console
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.tools.detect import app
from inception_rcnn.tools.model_description import describe

CATEGORIES = tuple(Category(number, name, name) for number, name in enumerate(("gnome", "[pond]", "gate", "hedge"), 1))


pytestmark = pytest.mark.usefixtures("tiny_googlenet")


def described(folder) -> str:
    result = CliRunner().invoke(app, ["--describe", "--model", str(folder)], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


def row(text: str, name: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if f" {name} " in line)
    return [cell.strip() for cell in line.split("│")[1:-1]]


@pytest.fixture
def networks(tiny_googlenet):
    return [GoogLeNet(5, auxiliary=False)] * 2


def test_each_class_is_listed_with_its_ap_and_how_far_to_trust_it(networks, tmp_path):
    classes = {
        "gnome": {"AP": 0.71, "interval": [0.5, 0.9], "objects": 40},
        "[pond]": {"AP": 0.3, "interval": [0.1, 0.6], "objects": 12},
        "gate": {"AP": 0.8, "interval": [0.0, 1.0], "objects": 3},
    }
    card = {
        "data": "garden train", "pictures": 2500, "init": "bvlc", "objects": {"gnome": 1200, "[pond]": 9},
        "taught": ["[pond]"],
        "evaluation": {
            "data": "garden val", "pictures": 60, "protocol": "ilsvrc", "mAP": 0.603, "interval": [0.5, 0.7],
            "classes": classes,
        },
    }  # fmt: skip
    save_model(Model(networks, CATEGORIES, card=card, cascade=0.125), tmp_path)
    text = described(tmp_path)
    assert "2 networks, 4 classes" in text
    assert "a cascade (only the first network scores regions with an object probability below 0.125)" in text
    assert "2500 pictures of garden train, from bvlc" in text
    assert "mAP 0.603 (0.500 to 0.700) on 60 pictures of garden val" in text
    assert row(text, "gnome") == ["gnome", "1,200", "0.710", "0.50 to 0.90", "40", "good"]
    assert row(text, "[pond]")[1::4] == ["9 + teacher", "fair"]
    assert row(text, "gate") == ["gate", "?", "0.800", "0.00 to 1.00", "3", "unsure"]
    assert row(text, "hedge")[2:] == ["-", "-", "0", "not measured"]
    assert text.index(" gate ") < text.index(" gnome ") < text.index("[pond]") < text.index(" hedge ")


def test_a_model_without_a_card_is_described(networks, tmp_path):
    save_model(Model(networks[:1], CATEGORIES), tmp_path)
    text = described(tmp_path)
    assert "1 network, 4 classes" in text
    assert "with no other parts" in text
    assert "mAP has not been measured" in text


def test_a_model_that_does_not_exist_is_wrong_usage(tmp_path):
    result = CliRunner().invoke(app, ["--describe", "--model", "nowhere"])
    assert result.exit_code == 2
    assert "no model at" in result.output


@pytest.mark.parametrize(("width", "tables"), [(90, 1), (172, 2), (258, 3)])
def test_a_wide_terminal_shows_classes_side_by_side(width, tables):
    names = [f"class {number:02}" for number in range(40)]
    stream = StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None)
    categories = tuple(Category(number, name, name) for number, name in enumerate(names, 1))
    describe("model", Model([GoogLeNet(41, auxiliary=False)], categories), console)
    lines = stream.getvalue().splitlines()
    (first,) = (line for line in lines if "class 00" in line)
    assert first.count("not measured") == tables
    assert all(any(name in line for line in lines) for name in names)
    assert max(map(len, lines[4:])) <= width


def test_a_pipe_gets_whole_names(networks):
    name = "a class whose name is longer than a line of a terminal, as nobody would call it " * 2
    stream = StringIO()
    describe("model", Model(networks[:1], (Category(1, name, name),)), Console(file=stream, width=80))
    assert f" {name.strip()} " in stream.getvalue()
