"""The regions of training pictures are those that the detector proposes, and are computed once."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import Detector
from inception_rcnn.data.categories import Category
from inception_rcnn.data.images import read_image
from inception_rcnn.detection.model_files import Model, RegionSettings
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training.regions import all_regions, screened_regions
from inception_rcnn.proposals import cache as cache_module
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.screen import Screen, ScreenThresholds

pytestmark = pytest.mark.usefixtures("tiny_googlenet", "uncompiled_networks")


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    multibox = MultiBox(headless(GoogLeNet(2)), [PriorGrid(32, 1, ((20.0, 30.0),))], width=8, sizes=(64,)).eval()
    with torch.inference_mode():
        channels = [one.shape[1] for one in multibox.trunk_maps(torch.zeros(1, 3, 64, 64))]
    screen = Screen(1, *channels, width=8, grid=3, hidden=16).eval()
    screen.thresholds = ScreenThresholds(0.2, 0.8)
    return Model([GoogLeNet(2)], (Category(1, "a", "a"),), multibox=multibox, screen=screen)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def same(found: Proposals, expected: Proposals) -> bool:
    ours, theirs = asdict(found), asdict(expected)
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_they_are_the_detectors(model: Model, picture: Path, tmp_path: Path) -> None:
    assert model.multibox is not None
    assert model.screen is not None
    image, file = read_image(picture), tmp_path / "proposals.sqlite"
    with all_regions(file, model.regions, model.multibox, "cpu") as everything:
        assert same(everything(picture), Detector(model, device="cpu", screen=False).propose(image))
    with screened_regions(file, model.regions, model.multibox, model.screen, "cpu") as screened:
        kept = screened(picture)
    assert same(kept, replace(Detector(model, device="cpu").propose(image), classes=None))
    assert len(kept) > 0
    selective = Model(model.members, model.categories)
    with all_regions(file, model.regions, None, "cpu") as everything:
        assert same(everything(picture), Detector(selective, device="cpu").propose(image))


def test_they_are_computed_once(model: Model, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.multibox is not None
    assert model.screen is not None
    file = tmp_path / "proposals.sqlite"
    searches = []
    search = cache_module.selective_search
    monkeypatch.setattr(cache_module, "selective_search", lambda *a, **o: searches.append(1) or search(*a, **o))
    found = []
    for _ in range(2):
        with screened_regions(file, model.regions, model.multibox, model.screen, "cpu") as screened:
            found.append(screened(picture))
    assert len(searches) == 1
    assert same(*found)
    model.screen.thresholds = ScreenThresholds(0.0, 1.0)
    with screened_regions(file, model.regions, model.multibox, model.screen, "cpu") as screened:
        assert len(screened(picture)) > len(found[0])
    assert len(searches) == 1
    with all_regions(file, RegionSettings(min_side=30), None, "cpu") as everything:
        everything(picture)
    assert len(searches) == 2
