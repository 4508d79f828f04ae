"""The example service of the documentation serves one detector from its thread pool."""

import importlib.util
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.model_files import Model

REASON = "needs the extra [dev]"
pytest.importorskip("fastapi", reason=REASON)
pytest.importorskip("httpx", reason=REASON)
pytest.importorskip("python_multipart", reason=REASON)

from fastapi.testclient import TestClient  # noqa: E402

CATEGORIES = (Category(1, "n1", "dog"), Category(2, "n2", "cat"))


def png(seed: int) -> bytes:
    """A grey picture with a few coloured rectangles."""
    rng = np.random.default_rng(seed)
    image = np.full((60 + seed, 90, 3), 100, np.uint8)
    for _ in range(3):
        x, y = rng.integers(0, 60), rng.integers(0, 40)
        image[y : y + 20, x : x + 25] = rng.integers(0, 256, 3)
    stream = BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def detector(tiny_googlenet, uncompiled_networks) -> Detector:
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False).eval()
    with torch.no_grad():  # random features are large, and all probabilities would be 0 or 1
        network.classifier.weight.mul_(0.01)
    return Detector(Model([network], CATEGORIES), device="cpu", max_detections=5)


@pytest.fixture
def client(detector, monkeypatch) -> Iterator[TestClient]:
    """A client of the running service, whose detector is a small one."""
    file = Path(__file__).parents[1] / "docs" / "service.py"
    if not file.is_file():
        pytest.skip("the documentation is not part of this installation")
    spec = importlib.util.spec_from_file_location("service", file)
    assert spec is not None
    assert spec.loader is not None
    service = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(service)
    monkeypatch.setattr(Detector, "load", lambda *arguments, **options: detector)
    with TestClient(service.app) as running:
        yield running


def test_twenty_pictures_at_once_get_the_detections_of_one_thread(client, detector):
    pictures = [png(seed) for seed in range(20)]
    expected = [detector(np.asarray(Image.open(BytesIO(picture)))) for picture in pictures]
    assert len({tuple(map(tuple, found.boxes.tolist())) for found in expected}) > 10
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda picture: client.post("/", files={"picture": picture}), pictures))
    for answer, found in zip(answers, expected, strict=True):
        assert answer.status_code == 200
        assert [(one["name"], one["score"], tuple(one["box"])) for one in answer.json()] == [
            (one.name, one.score, one.box) for one in found
        ]


def test_a_file_that_is_no_picture_is_refused(client):
    answer = client.post("/", files={"picture": b"no picture"})
    assert answer.status_code == 422
    assert "not a JPEG" in answer.json()["detail"]
