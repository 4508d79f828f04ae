"""Detection on a Ray cluster of two simulated machines, which are both this machine."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from inception_rcnn import GoogLeNet
from inception_rcnn.data.categories import Category
from inception_rcnn.detection.cluster import Cluster, ClusterError, Workers, plan_workers
from inception_rcnn.detection.model_files import Model, load_model, save_model
from inception_rcnn.tools.detect import app

CATEGORIES = (Category(58, "n02084071", "dog"), Category(7, "n02121808", "domestic cat"))


@pytest.mark.parametrize(
    ("machines", "device", "workers"),
    [
        ([{"CPU": 2}], "auto", Workers(1, 2, 0)),
        ([{"CPU": 1}, {"CPU": 1}], "auto", Workers(2, 1, 0)),
        ([{"CPU": 4}, {"CPU": 9}], "cpu", Workers(3, 4, 0)),  # each worker gets the CPUs of the smallest machine
        ([{"CPU": 8}, {}], "auto", Workers(1, 8, 0)),  # a head node that offers no CPU
        ([{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 1}, {"CPU": 64}], "auto", Workers(3, 4, 1)),
        ([{"CPU": 1, "GPU": 2}], "cuda", Workers(2, 0, 1)),
        ([{"CPU": 16, "GPU": 2}], "cpu", Workers(1, 16, 0)),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_without_gpus_for_each_machine(machines, device, workers):
    assert plan_workers(machines, device) == workers


@pytest.mark.parametrize(
    ("machines", "device", "message"),
    [([{"CPU": 2}], "cuda", "GPU"), ([{"GPU": 1}], "cpu", "CPU"), ([], "auto", "CPU")],
)
def test_a_cluster_without_the_device_is_refused(machines, device, message):
    with pytest.raises(ClusterError, match=f"no machine of the Ray cluster offers a {message}"):
        plan_workers(machines, device)


def test_a_certain_gpu_is_refused_because_ray_assigns_gpus():
    with pytest.raises(ClusterError, match="cuda:1"):
        Cluster("local", "cuda:1")


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'inception-rcnn\[ray\]'"):
        Cluster("local")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:gcs"])
def test_a_cluster_that_cannot_be_reached_is_an_error_with_its_address(address):
    pytest.importorskip("ray", reason="needs the extra [ray]")
    with pytest.raises(ClusterError, match=f"cannot join the Ray cluster at '{address}'"):
        Cluster(address)


@pytest.mark.slow
def test_ray_and_pyarrow_are_imported_on_first_use():
    program = "import sys, inception_rcnn, inception_rcnn.detection.cluster, inception_rcnn.tools.detect\n"
    program += "print([name for name in ('ray', 'pyarrow') if name in sys.modules])"
    imported = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert imported.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    network = GoogLeNet(3, auxiliary=False)
    with torch.no_grad():
        network.classifier.weight.mul_(0.01)
    folder = tmp_path_factory.mktemp("model")
    save_model(Model([network], CATEGORIES), folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(16):
        pixels = np.full((60, 80, 3), 100, np.uint8)
        pixels[15:45, 20:60] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / "03.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("ray", reason="needs the extra [ray]")
    from ray.cluster_utils import Cluster as LocalCluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = LocalCluster()
    for _ in range(2):
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, include_log_monitor=False)
    yield cluster.address
    cluster.shutdown()


def detect(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--device", "cpu")])


def workers() -> dict[int, int]:
    """The number of restarts of each live worker, by its process id."""
    import ray

    actors = ray._private.state.actors().values()
    return {
        actor["Pid"]: actor["NumRestarts"]
        for actor in actors
        if "_Worker" in actor["ActorClassName"] and actor["State"] == "ALIVE"
    }


def kept(state) -> int:
    try:
        with closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as database:
            return database.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


class Killer(threading.Thread):
    """Kills a worker once `state` holds two results, and notes whether another process takes its place."""

    def __init__(self, state):
        super().__init__(daemon=True)
        self.state, self.stop = state, threading.Event()
        self.kept_at_death, self.restarted = -1, False

    def run(self) -> None:
        while kept(self.state) < 2:
            if self.stop.wait(0.01):
                return
        os.kill(min(workers()), signal.SIGKILL)
        self.kept_at_death = kept(self.state)
        while not self.restarted and not self.stop.wait(0.05):
            self.restarted = 1 in workers().values()


@pytest.mark.slow
def test_after_a_worker_is_killed_no_result_is_missing_or_doubled(address, pictures, model, tmp_path):
    import pyarrow.parquet

    alone = detect(pictures, "--model", model, "--out", tmp_path / "alone", "--no-pictures")
    assert alone.exit_code == 3, alone.output
    killer = Killer(tmp_path / "many" / "run.sqlite")
    killer.start()
    many = detect(pictures, "--model", model, "--out", tmp_path / "many", "--ray", address)
    killer.stop.set()
    killer.join()
    assert many.exit_code == 3, many.output
    assert 2 <= killer.kept_at_death < 16
    assert killer.restarted
    assert (tmp_path / "many" / "detections.json").read_bytes() == (tmp_path / "alone" / "detections.json").read_bytes()
    assert not list((tmp_path / "many").rglob("*.partial"))

    document = json.loads((tmp_path / "many" / "detections.json").read_text())
    rows = pyarrow.parquet.read_table(tmp_path / "many" / "detections.parquet").to_pylist()
    assert [row["picture"] for row in rows] == list(range(16))
    assert [row["file_name"] for row in rows] == [str(pictures / f"{number:02}.png") for number in range(16)]
    assert {row["file_name"]: row["failure"] for row in rows if row["failure"]} == {
        failure["file_name"]: failure["reason"] for failure in document["failures"]
    }
    scores = [score for row in rows for score in row["scores"]]
    assert scores == [annotation["score"] for annotation in document["annotations"]]
    assert len(scores) > 0
    assert {name for row in rows for name in row["names"]} <= {"dog", "domestic cat"}


@pytest.mark.slow
def test_pictures_can_be_urls_results_carry_their_numbers_and_ray_prints_nothing(address, pictures, model, capfd):
    urls = [(100 + number, (pictures / f"{number:02}.png").as_uri()) for number in range(2)]
    with Cluster(address) as cluster:
        assert cluster.workers == Workers(2, 1, 0)
        results = list(cluster.detect([*urls, (7, "file:///nowhere.png")], load_model(model)))
    found = {result.picture: (result.width, result.height, result.failure) for result in results}
    assert found == {100: (80, 60, None), 101: (80, 60, None), 7: (0, 0, "No such file or directory")}
    assert len(results) == 3
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_an_error_with_the_reason(address, pictures, model, tmp_path):
    with Cluster(address) as cluster, pytest.raises(ClusterError, match=r"1 pictures left.*nowhere\.npz"):
        list(cluster.detect([(0, pictures / "00.png")], load_model(model), proposals_file=tmp_path / "nowhere.npz"))
