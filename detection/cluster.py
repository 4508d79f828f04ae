"""The detector on a Ray cluster: pictures are dealt out by Ray Data to workers, one for a device.

A worker that dies is started again, and its pictures are detected again; every picture carries its place in the list,
by which results are told apart, so nothing is lost or counted twice. Needs the extra `[ray]`.

Every machine must have this package, and find local pictures and the proposals file under the same paths; the model
is sent to them.
"""

import logging
import os
import socket
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.images import MAX_PIXELS
from ..proposals.files import read_proposals
from ..runtime.remote import is_url
from .detector import Detector
from .model_files import Model
from .run_state import Result
from .suppression import Detections

if TYPE_CHECKING:
    import pyarrow as pa
    import ray

# Pictures of a task: the more, the longer the pipeline within a worker is full; the fewer, the less a dead one costs.
_MOST_PICTURES = 64
_TASKS_PER_WORKER = 4
# A picture that kills every worker that touches it must not do so for ever.
_RETRIES = 3


class ClusterError(RuntimeError):
    """The cluster cannot be joined or used, or gave up; the message says why and what to do."""


@dataclass(frozen=True)
class Workers:
    """How many workers a cluster holds, and what each takes of its machine.

    Attributes:
        count: workers.
        cpus: CPUs of each, 0 where a machine has fewer CPUs than GPUs.
        gpus: GPUs of each, 0 or 1.
    """

    count: int
    cpus: int
    gpus: int

    def __str__(self) -> str:
        each = "a GPU" if self.gpus else f"{self.cpus} CPU" + "s" * (self.cpus != 1)
        return f"{self.count} worker{'s' * (self.count != 1)} of a Ray cluster, {each} each"


def plan_workers(machines: Iterable[Mapping[str, float]], device: str) -> Workers:
    """A worker for each GPU; where there is none, for each machine.

    Workers are alike, so where machines differ each takes what the smallest has, and large ones hold several.

    Args:
        machines: "CPU" and "GPU" of each, as Ray counts them; either may be missing.
        device: "auto", "cpu" or "cuda".

    Raises:
        ClusterError: no machine has what is needed.
    """
    sizes = [(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in machines]
    with_gpus = [(cpus, gpus) for cpus, gpus in sizes if gpus] if device != "cpu" else []
    if with_gpus:
        return Workers(sum(gpus for _, gpus in with_gpus), min(cpus // gpus for cpus, gpus in with_gpus), 1)
    if device == "cuda":
        raise ClusterError("--device cuda was asked for, but no machine of the Ray cluster offers a GPU")
    cpus = [cpus for cpus, _ in sizes if cpus]
    if not cpus:
        raise ClusterError("no machine of the Ray cluster offers a CPU; start them with `ray start --num-cpus N`")
    return Workers(sum(count // min(cpus) for count in cpus), min(cpus), 0)


class Cluster:
    """A Ray cluster, joined until `close`.

        with Cluster("auto") as cluster:
            for result in cluster.detect([(0, "a.jpg"), (1, "s3://bucket/b.jpg")], load_model("default")):

    Args:
        address: of the cluster, as `ray.init` takes it ("10.0.0.1:6379", "ray://10.0.0.1:10001", "auto" for the one
            on this machine); "local" starts one here, for as long as it is joined.
        device: "auto" (GPUs, if the cluster has any), "cpu" or "cuda"; Ray chooses which GPU.

    Attributes:
        workers: what it holds.

    Raises:
        ClusterError: no such cluster or device.
    """

    def __init__(self, address: str, device: str = "auto"):
        if device not in ("auto", "cpu", "cuda"):
            raise ClusterError(f"device {device!r}: expected 'auto', 'cpu' or 'cuda'; on a cluster Ray chooses the GPU")
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise ClusterError(f"this needs Ray: pip install 'inception-rcnn[ray]' ({error})") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here reports to nobody
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        try:
            if colon:  # Ray itself would try for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            ray.init(
                address,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ClusterError(f"cannot join the Ray cluster at {address!r}: {reason}") from error
        try:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self.workers = plan_workers(machines, device)
        except BaseException:
            ray.shutdown()
            raise
        self._device = device if self.workers.gpus else "cpu"

    def detect(
        self,
        pictures: Sequence[tuple[int, str | Path]],
        model: Model,
        *,
        max_pixels: int = MAX_PIXELS,
        proposals_file: Path | None = None,
        members: int | None = None,
        **settings: Any,
    ) -> Generator[Result, None, None]:
        """Find objects in files, one result for each, in any order.

        Args:
            pictures: files or URLs that fsspec reads, each with the number that its result is to bear.
            model: what to detect with.
            max_pixels, proposals_file: as for `Detector.detect_files`.
            members, settings: as for `Detector`.

        Raises:
            ClusterError: a worker cannot start, or died again and again. The results before it are good.
        """
        import ray

        if not pictures:
            return
        count = min(self.workers.count, len(pictures))
        task = max(1, min(_MOST_PICTURES, len(pictures) // (_TASKS_PER_WORKER * count)))
        rows = [
            {"picture": number, "source": str(one) if is_url(one) else os.path.abspath(one)} for number, one in pictures
        ]
        proposals = proposals_file and (proposals_file, os.path.abspath(proposals_file))
        sent = ray.put(replace(model, members=model.first_members(members)))
        ray.data.DataContext.get_current().enable_progress_bars = False
        found = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // task)).map_batches(
            _Worker,
            batch_size=None,  # a block is a task
            batch_format="pyarrow",
            # A pool that may shrink gives room to a worker whose machine is gone, when others have nothing left to do.
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count),
            num_cpus=self.workers.cpus,
            num_gpus=self.workers.gpus,
            fn_constructor_args=[sent, self._device, max(1, self.workers.cpus), max_pixels, proposals, settings],
            ray_remote_args_fn=_remote_arguments,
        )
        left = {number for number, _ in pictures}
        try:
            tables: Iterable[Any] = found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
            for table in tables:
                for row in table.to_pylist():
                    if row["picture"] in left:  # else its worker died after it had been handed over
                        left.remove(row["picture"])
                        yield _result(row)
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the Ray cluster gave up with {len(left)} pictures left: {_cause(error)}") from error
        if left:
            raise ClusterError(f"the Ray cluster ended without a result for {len(left)} pictures")

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        import ray

        ray.shutdown()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """A detector in a process of its own, which Ray Data makes, feeds and replaces."""

    def __init__(
        self,
        model: "ray.ObjectRef[Model]",
        device: str,
        threads: int,
        max_pixels: int,
        proposals: tuple[Path, str] | None,
        settings: dict[str, Any],
    ):
        import ray

        self._detector = Detector(ray.get(model), device=device, threads=threads, **settings)
        self._max_pixels = max_pixels
        self._proposals = None
        if proposals:
            named, path = proposals
            self._proposals = read_proposals(path)
            self._proposals.file = named  # in messages, which are to be those of a run without a cluster

    def __call__(self, pictures: "pa.Table") -> "pa.Table":
        """Columns picture and source -> picture and `DETECTIONS`."""
        import pyarrow as pa

        from ..data.parquet import DETECTIONS

        sources = pictures["source"].to_pylist()
        rows = []
        results = self._detector.detect_files(sources, self._max_pixels, self._proposals)
        for picture, result in zip(pictures["picture"].to_pylist(), results, strict=True):
            row: dict[str, Any] = {"picture": picture}
            if result.image is None or result.detections is None:
                row["failure"] = result.error.reason if result.error else "not read"
            else:
                row["height"], row["width"] = result.image.shape[:2]
                for name in ("boxes", "scores", "labels"):
                    row[name] = getattr(result.detections, name).tolist()
            rows.append(row)
        return pa.Table.from_pylist(rows, pa.schema([pa.field("picture", pa.int64()), *DETECTIONS]))


def _remote_arguments() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


def _result(row: dict[str, Any]) -> Result:
    if row["boxes"] is None:
        return Result(row["picture"], 0, 0, None, row["failure"])
    found = Detections(
        np.array(row["boxes"], np.float32).reshape(-1, 4),
        np.array(row["scores"], np.float32),
        np.array(row["labels"], np.int64),
    )
    return Result(row["picture"], row["width"], row["height"], found, None)


def _cause(error: BaseException) -> str:
    """What went wrong at the bottom, in a line, without the traces of the machinery around it."""
    return str(error).strip().split("\n")[-1]
