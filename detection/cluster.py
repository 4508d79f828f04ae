"""Runs the detector on a Ray cluster: Ray Data distributes pictures to workers, one worker for each GPU or machine.

Ray restarts a worker that dies, and the worker's pictures are detected again. Each picture carries its number, so a
picture whose result has already arrived is not counted twice. This module needs the extra `[ray]`.

This package must be installed on every machine. Local pictures and the proposals file must have the same paths on every
machine. The model is sent to the machines.
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

# Pictures in a task. Large tasks keep the pipeline of a worker full; small tasks lose less when a worker dies.
_MOST_PICTURES = 64
_TASKS_PER_WORKER = 4
# Retries of a task whose worker died. Without a limit, a picture that kills its worker would be retried forever.
_RETRIES = 3


class ClusterError(RuntimeError):
    """The cluster cannot be joined or used, or a run on it failed; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class Workers:
    """The number of workers in a cluster, and the resources of each worker.

    Attributes:
        count: number of workers.
        cpus: CPUs of each worker; 0 if a machine has fewer CPUs than GPUs.
        gpus: GPUs of each worker, 0 or 1.
    """

    count: int
    cpus: int
    gpus: int

    def __str__(self) -> str:
        each = "a GPU" if self.gpus else f"{self.cpus} CPU" + "s" * (self.cpus != 1)
        return f"{self.count} worker{'s' * (self.count != 1)} of a Ray cluster with {each} each"


def plan_workers(machines: Iterable[Mapping[str, float]], device: str) -> Workers:
    """Plans one worker for each GPU of a cluster or, on a cluster without GPUs, for each machine.

    All workers get the same resources. Without GPUs, each worker gets as many CPUs as the smallest machine has, and a
    larger machine runs as many workers as fit.

    Args:
        machines: for each machine its number of "CPU" and "GPU", as Ray counts them; a missing key means 0.
        device: "auto" (GPUs if the cluster has any), "cpu" or "cuda".

    Raises:
        ClusterError: no machine has the device.
    """
    sizes = [(int(machine.get("CPU", 0)), int(machine.get("GPU", 0))) for machine in machines]
    with_gpus = [(cpus, gpus) for cpus, gpus in sizes if gpus] if device != "cpu" else []
    if with_gpus:
        return Workers(sum(gpus for _, gpus in with_gpus), min(cpus // gpus for cpus, gpus in with_gpus), 1)
    if device == "cuda":
        raise ClusterError("no machine of the Ray cluster offers a GPU, which --device cuda needs; use --device auto")
    cpus = [cpus for cpus, _ in sizes if cpus]
    if not cpus:
        raise ClusterError("no machine of the Ray cluster offers a CPU; start them with `ray start --num-cpus N`")
    return Workers(sum(count // min(cpus) for count in cpus), min(cpus), 0)


class Cluster:
    """A connection to a Ray cluster, open until `close`.

        with Cluster("auto") as cluster:
            for result in cluster.detect([(0, "a.jpg"), (1, "s3://bucket/b.jpg")], load_model("default")):

    Args:
        address: address of the cluster, as `ray.init` takes it: "10.0.0.1:6379", "ray://10.0.0.1:10001", or "auto" for
            the cluster that runs on this machine. "local" starts a cluster on this machine and stops it at `close`.
        device: "auto" (GPUs if the cluster has any), "cpu" or "cuda". Ray assigns the GPUs to workers.

    Attributes:
        workers: the workers that the cluster has room for.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached, or it does not have the device.
    """

    def __init__(self, address: str, device: str = "auto"):
        if device not in ("auto", "cpu", "cuda"):
            raise ClusterError(f"device {device!r}: expected 'auto', 'cpu' or 'cuda'; Ray assigns GPUs to workers")
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise ClusterError(f"Ray is not installed: pip install 'inception-rcnn[ray]' ({error})") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster sends no usage data
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        try:
            if colon:  # fail within 10 seconds; Ray itself tries for minutes
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
        """Find objects in picture files. Yields one result for each file, in any order.

        Args:
            pictures: pairs of a number, which the result carries as `picture`, and a file or a URL that fsspec reads.
            model: the detector's model.
            max_pixels: largest number of pixels in a picture, see `read_image`.
            proposals_file: file of the boxes to use as regions; None to propose regions.
            members, settings: arguments of `Detector`.

        Raises:
            ClusterError: a worker cannot start, or a task failed too often. The results yielded before are valid.
        """
        import ray

        if not pictures:
            return
        count = min(self.workers.count, len(pictures))
        task = max(1, min(_MOST_PICTURES, len(pictures) // (_TASKS_PER_WORKER * count)))
        rows = [
            {"picture": number, "source": str(source) if is_url(source) else os.path.abspath(source)}
            for number, source in pictures
        ]
        proposals = proposals_file and (proposals_file, os.path.abspath(proposals_file))
        sent = ray.put(replace(model, members=model.first_members(members)))
        ray.data.DataContext.get_current().enable_progress_bars = False
        found = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // task)).map_batches(
            _Worker,
            batch_size=None,  # a block is a task
            batch_format="pyarrow",
            # With a smaller minimum, idle workers are removed, which makes room for a worker whose machine is gone.
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
                    if row["picture"] in left:  # not a repeat of what a dead worker had delivered
                        left.remove(row["picture"])
                        yield _result(row)
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the Ray cluster failed with {len(left)} pictures left: {_cause(error)}") from error
        if left:
            raise ClusterError(f"the Ray cluster ended without a result for {len(left)} pictures")

    def close(self) -> None:
        """Leave the cluster. A cluster that was started by "local" stops."""
        import ray

        ray.shutdown()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """A detector in its own process, which Ray Data starts, supplies with pictures and restarts."""

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
            self._proposals.file = named  # error messages name the path that the user gave

    def __call__(self, pictures: "pa.Table") -> "pa.Table":
        """Detect in a table with columns picture and source; returns a table with columns picture and `DETECTIONS`."""
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
    """The last line of an error: the original cause, without the stack traces of Ray."""
    return str(error).strip().split("\n")[-1]
