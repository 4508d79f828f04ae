import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn.data.categories import Category
from inception_rcnn.data.dataset import Dataset, Sample
from inception_rcnn.detection.engine import Engine
from inception_rcnn.detection.googlenet import GoogLeNet
from inception_rcnn.detection.model_files import RegionSettings
from inception_rcnn.detection.training import cascade
from inception_rcnn.detection.warp import warp_regions
from inception_rcnn.proposals.proposals import Proposals


def test_the_threshold_passes_the_share_of_regions_that_it_is_meant_to(tmp_path, monkeypatch):
    monkeypatch.setattr(cascade, "PASSED", 0.25)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    corner = rng.uniform(0, 40, (24, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 20, (24, 2))], axis=1).astype(np.float32)
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False).eval()
    with torch.no_grad():
        network.classifier.weight.mul_(0.01)
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    sample = Sample("a", 1, tmp_path / "a.png", *nothing)

    one = Dataset("one", (Category(1, "n1", "thing"),), [sample], lambda record: record)
    proposals = Proposals(boxes, np.linspace(1, 0, 24, dtype=np.float32))
    done = []

    def fit() -> float:
        return cascade.fit_cascade(
            network,
            one,
            lambda _: proposals,
            RegionSettings(),
            tmp_path / "cascade.json",
            seed=0,
            device="cpu",
            report=lambda *of: done.append(of),
        )

    threshold = fit()
    likely = 1 - Engine(network, device="cpu")(warp_regions(image, boxes))[:, 0]
    assert (likely >= threshold).mean() == pytest.approx(0.25)
    assert done == [(1, 1)]
    assert fit() == threshold
    assert done == [(1, 1)]  # what is there is not fitted again
