"""Checkpoints: the weights and the optimiser's state after a step, from which a training resumes exactly."""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...runtime.atomic_write import atomic_write
from .errors import TrainingError

# A checkpoint is due after this many steps, or after this much time where steps are slow: a step that trains a whole
# network on a CPU can take half a minute.
STEPS_BETWEEN = 200
SECONDS_BETWEEN = 600


_logger = logging.getLogger(__name__.split(".")[0])


class Checkpoint:
    """The checkpoint file of one training.

    The safetensors file has the tensors `weight.<name>` and `optimiser.<parameter>.<state>`, and in its metadata the
    number of steps, the identity of the training, and a hash of all of these. The checkpoint before it stays beside it,
    as `<name>.previous.safetensors`, and replaces it with a warning if it is damaged. If the file is deleted, the
    training starts again.

    Args:
        file: the file; `save` replaces it.
        identity: settings and data of the training, by name. `step` refuses a checkpoint with another identity.
    """

    def __init__(self, file: Path, identity: dict[str, Any]):
        self._file = file
        self._previous = file.with_suffix(f".previous{file.suffix}")
        self._damaged = False
        self._identity = identity
        self._saved = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save a checkpoint after `step` steps."""
        return step % STEPS_BETWEEN == 0 or time.monotonic() - self._saved > SECONDS_BETWEEN

    def step(self) -> int:
        """The number of steps done by the training in the file; 0 if there is no file.

        Raises:
            TrainingError: the file is damaged and there is no checkpoint before it, or the file belongs to another
                training.
        """
        return self._read()[0]

    def load(self, weights: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Restore weights and optimiser if the file exists, and return the number of steps done.

        Raises:
            TrainingError: see `step`; or the file is a checkpoint of another network.
        """
        step, tensors = self._read()
        if step:
            expected = {f"weight.{name}": value for name, value in weights.state_dict().items()}
            parameters = dict(weights.named_parameters())
            unknown = [name for name in tensors if name.startswith("weight.") and name not in expected]
            for name, value in expected.items():
                if name not in tensors or tensors[name].shape != value.shape:
                    unknown.append(name)
            restored: list[tuple[nn.Parameter, str, Tensor]] = []
            for entry, value in tensors.items():
                kind, _, rest = entry.partition(".")
                if kind == "optimiser":
                    name, _, key = rest.rpartition(".")
                    if name not in parameters or (value.dim() and value.shape != parameters[name].shape):
                        unknown.append(entry)
                    else:
                        restored.append((parameters[name], key, value))
            if unknown:
                raise TrainingError(
                    f"{self._file}: a checkpoint of another network: {len(unknown)} tensors do not fit (first: "
                    f"{unknown[0][:200]}); use another --out folder, or delete the checkpoint to start again"
                )
            weights.load_state_dict({name: tensors[f"weight.{name}"] for name in weights.state_dict()})
            for parameter, key, value in restored:
                # Optimisers keep their step counters, which are scalars, on the CPU.
                optimiser.state[parameter][key] = value.to(parameter.device) if value.dim() else value
        return step

    def save(self, weights: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Write the state after `step` steps to the file.

        Raises:
            TrainingError: a number is not finite. The older checkpoint stays.
            OSError: the file cannot be written.
        """
        tensors: dict[str, Tensor] = {}
        for name, value in weights.state_dict().items():
            tensors[f"weight.{name}"] = value.cpu().contiguous()
        for name, parameter in weights.named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}.{key}"] = value.cpu().contiguous()
        if (broken := _not_finite(tensors)) is not None:
            raise TrainingError(
                f"{broken} is not finite after step {step}, so {self._file} is not written: the training diverges; "
                "start again in another --out with a lower --learning-rate"
            )
        about = {"step": str(step), "run": json.dumps(self._identity)}
        with atomic_write(self._file) as partial:
            save_file(tensors, partial, {**about, "sha256": _hash(about, tensors)})
            if self._file.exists() and not self._damaged:
                _keep(self._file, self._previous)
        self._damaged = False
        self._saved = time.monotonic()

    def _read(self) -> tuple[int, dict[str, Tensor]]:
        """The number of steps and the tensors of the file, or of the checkpoint before it if the file is damaged."""
        if not self._file.exists():
            return 0, {}
        try:
            identity, step, tensors = _read_verified(self._file)
        except _Damaged as error:
            try:
                identity, step, tensors = _read_verified(self._previous)
            except _Damaged:
                raise TrainingError(f"{self._file}: not a checkpoint ({error}); delete it to start again") from error
            self._damaged = True
            _logger.warning(
                "%s: damaged (%s); the training goes on from the checkpoint before it, of step %d",
                self._file, error, step,
            )  # fmt: skip
        # Checkpoints of earlier versions lack some names, which are not compared.
        changed = [name for name, value in self._identity.items() if name in identity and identity[name] != value]
        if changed:
            difference = ", ".join(
                f"{name} was {str(identity[name])[:200]}, is {str(self._identity[name])[:200]}" for name in changed
            )
            raise TrainingError(
                f"{self._file} belongs to another training ({difference}): use the same data and settings, "
                "another --out folder, or delete the checkpoint to start again"
            )
        return step, tensors


class _Damaged(Exception):
    """A file is not a whole checkpoint. The message says what is wrong."""


def _read_verified(file: Path) -> tuple[dict[str, Any], int, dict[str, Tensor]]:
    """The identity, the number of steps and the tensors of a checkpoint.

    Raises:
        _Damaged: the file cannot be read, its hash is wrong, or a number is not finite.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        identity, step = json.loads(metadata["run"]), int(metadata["step"])
        tensors = load_file(file)
    except KeyError as error:
        raise _Damaged(f"{error} is missing") from error
    except (SafetensorError, OSError, TypeError, ValueError, RecursionError) as error:
        raise _Damaged(str(error)[:200]) from error
    if not isinstance(identity, dict) or step < 1:
        raise _Damaged(f"the step is {step}, and the run is a {type(identity).__name__}")
    about = {"step": metadata["step"], "run": metadata["run"]}
    # Checkpoints of earlier versions have no hash.
    if "sha256" in metadata and metadata["sha256"] != _hash(about, tensors):
        raise _Damaged("the content does not match its hash")
    if (name := _not_finite(tensors)) is not None:
        raise _Damaged(f"{name[:200]} is not finite")
    return identity, step, tensors


def _not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor with a number that is not finite; None if there is none."""
    return next((name for name, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()), None)


def _hash(about: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a checkpoint's metadata and tensors."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _keep(file: Path, previous: Path) -> None:
    """Keep `file` as `previous`. `file` itself stays where it is until it is replaced."""
    if previous.exists() and previous.samefile(file):
        return
    partial = previous.with_name(f"{previous.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(file, partial)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, partial)
    partial.replace(previous)
