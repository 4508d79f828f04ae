"""Runs the detector on a Ray cluster. The workers that `plan_workers` plans get one task of pictures after the other.

Ray restarts a worker that dies, and the worker's pictures are detected again. This module needs the extra `[ray]`.

This package must be installed on every machine. Local pictures and the proposals file must have the same paths on every
machine. The model is sent to the machines.
"""

import logging
import os
import socket
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.images import MAX_PIXELS
from ..proposals.files import read_proposals
from ..runtime.remote import is_url
from .detector import Detector
from .model_files import Model
from .run_state import Result

_logger = logging.getLogger(__name__.split(".")[0])

# Largest number of pictures in a task. Large tasks keep a worker's pipeline full. Small tasks lose less when a worker
# dies.
_MOST_PICTURES = 64
# With few pictures, tasks get smaller, so that each worker gets about this many.
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
    """Plans the workers of a cluster: one for each GPU or, if no GPU is used, at least one for each machine.

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
        workers: the largest number of workers, and the resources of each; see `plan_workers`.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached, or it does not have the device.
    """

    def __init__(self, address: str, device: str = "auto"):
        if device not in ("auto", "cpu", "cuda"):
            raise ClusterError(f"device {device!r}: expected 'auto', 'cpu' or 'cuda'; Ray assigns GPUs to workers")
        try:
            import ray
        except ImportError as error:
            raise ClusterError(f"Ray is not installed: pip install 'inception-rcnn[ray]' ({error})") from error
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster sends no usage data
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        try:
            if colon:  # fail within 10 seconds; Ray itself tries for minutes
                socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray warns of its own deprecations
                ray.init(
                    address,
                    include_dashboard=False if address == "local" else None,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,  # errors reach the caller as exceptions
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
            ClusterError: a worker cannot start, or a task failed too often. Results that were yielded before are valid.
        """
        import ray

        if not pictures:
            return
        count = min(self.workers.count, len(pictures))
        size = max(1, min(_MOST_PICTURES, len(pictures) // (_TASKS_PER_WORKER * count)))
        named = [(number, source if is_url(source) else os.path.abspath(source)) for number, source in pictures]
        waiting = deque(_Task(named[start : start + size]) for start in range(0, len(named), size))
        left = len(pictures)
        proposals = proposals_file and (proposals_file, os.path.abspath(proposals_file))
        sent = ray.put(replace(model, members=model.first_members(members)))
        # Ray starts a worker again whenever it dies.
        remote = ray.remote(num_cpus=self.workers.cpus, num_gpus=self.workers.gpus, max_restarts=-1)(_Worker)
        workers: list[Any] = [
            remote.remote(self._device, max(1, self.workers.cpus), max_pixels, proposals, settings)
            for _ in range(count)
        ]
        # What each worker is doing: a task, or None while it starts. A worker whose machine was lost stays at None.
        running: dict[Any, tuple[Any, _Task | None]] = {_load(worker, sent): (worker, None) for worker in workers}
        idle: list[Any] = []
        try:
            while left:
                while idle and waiting:
                    worker, task = idle.pop(), waiting.popleft()
                    running[worker.detect.remote([sent], task.pictures)] = worker, task
                (ended,), _ = ray.wait(list(running))
                worker, given = running.pop(ended)
                try:
                    results = ray.get(ended)
                except ray.exceptions.RayActorError as error:
                    if given is None or given.deaths == _RETRIES:
                        raise
                    _logger.warning("a worker of the Ray cluster died and is started again: %s", _cause(error))
                    given.deaths += 1
                    waiting.appendleft(given)
                    running[_load(worker, sent)] = worker, None
                    continue
                idle.append(worker)
                if given is not None:
                    left -= len(results)
                    yield from results
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the Ray cluster failed with {left} pictures left: {_cause(error)}") from error
        finally:
            for worker in workers:
                ray.kill(worker)

    def close(self) -> None:
        """Leave the cluster. A cluster that was started by "local" stops."""
        import ray

        ray.shutdown()

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Task:
    """Pictures that a worker detects in together: pairs of a number and a source.

    Attributes:
        pictures: the pictures.
        deaths: number of workers that died with this task.
    """

    pictures: Sequence[tuple[int, str | Path]]
    deaths: int = 0


class _Worker:
    """A detector in its own process, which Ray starts and restarts.

    The model comes with the calls: Ray warns, on the console, of constructor arguments that live in its object store.
    """

    def __init__(
        self,
        device: str,
        threads: int,
        max_pixels: int,
        proposals: tuple[Path, str] | None,
        settings: dict[str, Any],
    ):
        self._detector: Detector | None = None
        self._settings = {"device": device, "threads": threads, **settings}
        self._max_pixels = max_pixels
        self._proposals = None
        if proposals:
            named, path = proposals
            self._proposals = read_proposals(path)
            self._proposals.file = named  # error messages name the path that the user gave

    def load(self, model: Sequence[Any]) -> None:
        """Load the detector, unless it is loaded. A worker that has restarted has to load it again.

        Args:
            model: the reference of a `Model` in Ray's object store, in a list, so that Ray does not fetch the model for
                a detector that is loaded.
        """
        if self._detector is None:
            import ray

            self._detector = Detector(ray.get(model[0]), **self._settings)

    def detect(self, model: Sequence[Any], pictures: Sequence[tuple[int, str | Path]]) -> list[Result]:
        """Detect objects in pictures: pairs of a number and a source -> results, which carry the numbers."""
        self.load(model)
        assert self._detector is not None
        files = self._detector.detect_files(
            [source for _, source in pictures], self._max_pixels, self._proposals, keep_image=False
        )
        results = []
        for (number, _), found in zip(pictures, files, strict=True):
            if found.size is None or found.detections is None:
                results.append(Result(number, 0, 0, None, found.error.reason if found.error else "not read"))
            else:
                width, height = found.size
                results.append(Result(number, width, height, found.detections, None))
        return results


def _load(worker: Any, model: Any) -> Any:
    """A reference that is ready when the worker has loaded the model, also if it dies and starts again meanwhile."""
    return worker.load.options(max_task_retries=-1).remote([model])


def _cause(error: BaseException) -> str:
    """The last line of an error: the original cause, without the stack traces of Ray."""
    return str(error).strip().split("\n")[-1]
