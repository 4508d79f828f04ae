from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.detector import Detector
from inception_rcnn.detection.model_files import Model, RegionSettings
from inception_rcnn.detection.networks.googlenet import GoogLeNet
from inception_rcnn.detection.training import cascade
from inception_rcnn.detection.warping.warp import warp_regions


def test_a_quarter_of_the_regions_reaches_the_threshold_and_it_is_fitted_once(
    tmp_path, monkeypatch, tiny_googlenet, uncompiled_networks
):
    monkeypatch.setattr(cascade, "PASSED_SHARE", 0.25)
    monkeypatch.setattr(cascade, "REGIONS_PER_PICTURE", 500)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8).repeat(20, 0).repeat(20, 1)
    Image.fromarray(image).save(tmp_path / "a.png")
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(0.01)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    sample = Sample("a", 1, tmp_path / "a.png", *nothing)

    one = Dataset("one", (Category(1, "n1", "thing"),), [sample], lambda record: record)
    model = Model([network, network], one.categories, RegionSettings(min_side=100))
    done = []

    def fit(model: Model) -> float:
        return cascade.fit_cascade(
            model, one, tmp_path / "training", seed=0, device="cpu", report=lambda *of: done.append(of)
        )

    threshold = fit(model)
    detector = Detector(model, device="cpu")
    boxes = detector.propose(image).boxes
    assert 8 < len(boxes) <= cascade.REGIONS_PER_PICTURE  # All of them are used.
    likely = detector.ensemble(warp_regions(image, boxes)).objectness
    assert (likely >= threshold).mean() == pytest.approx(0.25, abs=1 / len(boxes))
    assert done == [("cascade", 1, 1, {})]
    assert fit(model) == threshold
    assert done == [("cascade", 1, 1, {})]  # A threshold in the folder is not fitted again.
    fit(replace(model, regions=RegionSettings(min_side=150)))  # Other region settings need another threshold.
    assert done == [("cascade", 1, 1, {})] * 2


@pytest.mark.parametrize(
    "content", ["", "[", "[" * 100_000, "{}", "null", '{"cascade": "0.5"}', '{"cascade": NaN}', "[1]"]
)
def test_a_damaged_threshold_is_fitted_again_with_a_warning(content, tmp_path, caplog):
    file = tmp_path / "cascade_1.json"
    assert cascade._stored_threshold(file) is None
    assert not caplog.records
    file.write_text(content)
    assert cascade._stored_threshold(file) is None
    assert f"{file}: damaged" in caplog.text
    file.write_text('{"cascade": 0.5}')
    assert cascade._stored_threshold(file) == 0.5
