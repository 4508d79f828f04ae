"""Checkpoints: the weights and the optimiser's state after a step, from which a training resumes exactly."""

import json
import time
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


class Checkpoint:
    """The checkpoint file of one training.

    The safetensors file has the tensors `weight.<name>` and `optimiser.<parameter>.<state>`, and in its metadata the
    number of steps and the identity of the training.

    Args:
        file: the file; `save` replaces it.
        identity: settings and data of the training, by name. `step` refuses a checkpoint with another identity.
    """

    def __init__(self, file: Path, identity: dict[str, Any]):
        self._file = file
        self._identity = identity
        self._saved = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether to save a checkpoint after `step` steps."""
        return step % STEPS_BETWEEN == 0 or time.monotonic() - self._saved > SECONDS_BETWEEN

    def step(self) -> int:
        """The number of steps done by the training in the file; 0 if there is no file.

        Raises:
            TrainingError: the file is damaged, or belongs to another training.
        """
        if not self._file.exists():
            return 0
        try:
            with safe_open(self._file, framework="pt") as file:
                metadata = file.metadata()
            before, step = json.loads(metadata["run"]), int(metadata["step"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{self._file}: not a checkpoint ({error}); delete it to start again") from error
        # Checkpoints of earlier versions lack some names, which are not compared.
        changed = [name for name, value in self._identity.items() if name in before and before[name] != value]
        if changed:
            difference = ", ".join(f"{name} was {before[name]}, is {self._identity[name]}" for name in changed)
            raise TrainingError(
                f"{self._file} belongs to another training ({difference}): use the same data and settings, "
                "another --out folder, or delete the checkpoint to start again"
            )
        return step

    def load(self, weights: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Restore weights and optimiser if the file exists, and return the number of steps done.

        Raises:
            TrainingError: see `step`.
        """
        step = self.step()
        if step:
            tensors = load_file(self._file)
            weights.load_state_dict({name: tensors[f"weight.{name}"] for name in weights.state_dict()})
            parameters = dict(weights.named_parameters())
            for entry, value in tensors.items():
                kind, _, rest = entry.partition(".")
                if kind == "optimiser":
                    name, _, key = rest.rpartition(".")
                    # Optimisers keep their step counters, which are scalars, on the CPU.
                    optimiser.state[parameters[name]][key] = value.to(parameters[name].device) if value.dim() else value
        return step

    def save(self, weights: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Write the state after `step` steps to the file."""
        tensors: dict[str, Tensor] = {}
        for name, value in weights.state_dict().items():
            tensors[f"weight.{name}"] = value.cpu().contiguous()
        for name, parameter in weights.named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}.{key}"] = value.cpu().contiguous()
        with atomic_write(self._file) as partial:
            save_file(tensors, partial, {"step": str(step), "run": json.dumps(self._identity)})
        self._saved = time.monotonic()
