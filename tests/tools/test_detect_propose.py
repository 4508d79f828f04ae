"""The command detect-propose: its file contains the proposals of the library and lists unreadable images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.model_files import Model, RegionSettings, load_model, save_model
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.proposals.combine import combine
from inception_rcnn.proposals.files import read_proposals
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.proposals import Source
from inception_rcnn.proposals.selective_search import selective_search
from inception_rcnn.proposals.strategies import STRATEGY_SETS
from inception_rcnn.tools.detect_propose import Mode, app


def picture(file: Path, seed: int, width: int = 120, height: int = 90) -> Path:
    """Writes an image of coloured rectangles."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 200, np.uint8)
    for _ in range(6):
        x, y = rng.integers(0, (width - 20, height - 20))
        pixels[y : y + rng.integers(15, 60), x : x + rng.integers(15, 60)] = rng.integers(0, 256, 3)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)
    return file


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    picture(tmp_path / "photos" / "a.png", 0)
    picture(tmp_path / "photos" / "sub" / "b.png", 1, 90, 120)
    return tmp_path / "photos"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.split())


def test_the_file_contains_the_proposals_of_selective_search(photos: Path, tmp_path: Path) -> None:
    settings = ("--mode", "single", "--superpixel-scale", "1", "--min-side", "30", "--seed", "3", "--connectivity", "8")
    code, output = run(photos, "--recursive", "--out", tmp_path / "out" / "p.npz", *settings)
    assert code == 0, output
    with read_proposals(tmp_path / "out" / "p.npz") as file:
        assert file.names == ["a.png", "sub/b.png"]
        expected = {"mode": "single", "superpixel_scale": 1, "min_side": 30, "seed": 3, "connectivity": 8}
        assert expected.items() <= file.settings.items()
        for path in (photos / "a.png", photos / "sub" / "b.png"):
            image = read_image(path)
            found = file.find(path, (image.shape[1], image.shape[0]))
            searched = selective_search(image, "single", superpixel_scale=1, min_side=30, seed=3, connectivity=8)
            assert found is not None
            assert len(found) > 0
            assert np.array_equal(found.boxes, searched.boxes)
            assert np.array_equal(found.scores, searched.scores)


def test_a_huge_superpixel_scale_gives_one_superpixel(photos: Path, tmp_path: Path) -> None:
    code, output = run(photos / "a.png", "--out", tmp_path / "p.npz", "--superpixel-scale", "1e300")
    assert code == 0, output
    with read_proposals(tmp_path / "p.npz") as file:
        found = file.find(photos / "a.png")
    assert found is not None
    assert found.boxes.tolist() == [[0, 0, 120, 90]]


def test_unreadable_images_are_listed_and_the_exit_code_is_3(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    code, output = run(photos, "--out", tmp_path / "p.npz", "--mode", "single")
    assert code == 3
    assert "broken.jpg" in output
    assert "not a JPEG" in output
    assert "1 of 2 pictures could not be read" in output
    with read_proposals(tmp_path / "p.npz") as file:
        assert file.names == ["a.png"]
        assert list(file.failures) == ["broken.jpg"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nowhere", "--out", "p.npz"], "nowhere: no such file or folder"),
        ([".", "--out", "p.npz"], "use --recursive"),
        (["photos", "--out", "p.npz", "--superpixel-scale", "0"], "above 0"),
        (["photos", "--out", "p.npz", "--mode", "best"], "'best' is not one of"),
        (["photos", "--out", "p.npz", "--connectivity", "6"], "'6' is not one of"),
        (["photos", "--out", "photos/a.png/p.npz", "--mode", "single"], "is not a folder"),
        (["photos", "--out", "photos", "--mode", "single"], "it is a folder, expected a file"),
        (["photos", "--out", "photos/a.png", "--mode", "single"], "is an input of the command"),
        (["photos", "--out", "p.npz", "--method", "both", "--device", "cuda:x"], "expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_wrong_usage_is_explained(
    photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(photos.parent)
    code, output = run(*arguments)
    assert code == 2
    assert problem in output.replace(" │ │ ", " ")
    assert not Path("p.npz").exists()


def test_the_modes_equal_the_strategy_sets_of_the_library() -> None:
    assert {mode.value for mode in Mode} == set(STRATEGY_SETS)


def test_the_help_has_an_example() -> None:
    code, output = run("--help")
    assert code == 0
    assert "detect-propose photos/" in output


@pytest.fixture
def model(tmp_path: Path, tiny_googlenet: None) -> Path:
    """A detector with a MultiBox network of random weights."""
    torch.manual_seed(0)
    folder = tmp_path / "model"
    grids = [PriorGrid(16, 1, ((20.0, 30.0),)), PriorGrid(32, 1, ((50.0, 40.0),))]
    network = MultiBox(headless(GoogLeNet(2)), grids, width=8, sizes=(64,))
    regions = RegionSettings(min_side=5)
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),), regions, multibox=network), folder)
    return folder


@pytest.mark.slow
def test_boxes_of_multibox_are_written_alone_or_combined(photos: Path, model: Path, tmp_path: Path) -> None:
    found = {}
    for method in ("multibox", "both"):
        arguments = ("--method", method, "--model", model, "--device", "cpu")
        code, output = run(photos / "a.png", "--out", tmp_path / f"{method}.npz", *arguments)
        assert code == 0, output
        with read_proposals(tmp_path / f"{method}.npz") as file:
            found[method] = file.find(photos / "a.png")
            assert file.settings["method"] == method
    alone, both = found["multibox"], found["both"]
    assert alone is not None
    assert both is not None
    image = read_image(photos / "a.png")
    detector = Detector(load_model(model), device="cpu", engine="torch")
    np.testing.assert_array_equal(both.boxes, detector.propose(image).boxes)  # as in `detect`
    expected = combine(selective_search(image, min_side=5, connectivity=8), alone)
    np.testing.assert_array_equal(both.boxes, expected.boxes)
    np.testing.assert_array_equal(both.source, expected.source)
    assert set(alone.source) == {Source.MULTIBOX}
    assert set(both.source) == set(Source)


def test_a_model_without_multibox_is_rejected(photos: Path, tmp_path: Path, tiny_googlenet: None) -> None:
    save_model(Model([GoogLeNet(2, auxiliary=False)], (Category(1, "a", "a"),)), tmp_path / "model")
    code, output = run(photos, "--out", tmp_path / "p.npz", "--method", "both", "--model", tmp_path / "model")
    assert code == 2
    assert "detect-train-multibox" in output
