"""Checkpoints of a training: weights and the optimiser's state after some step, for going on exactly where it was."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .errors import TrainingError

# Steps can take half a minute where a whole network is trained on a CPU: no more than this much work is lost.
SECONDS_BETWEEN = 600


class Checkpoint:
    """Weights and an optimiser's state after some step, in one safetensors file that is replaced atomically.

    Args:
        file: where it is kept.
        identity: what the run is; a checkpoint of another run is refused, naming what differs.
    """

    def __init__(self, file: Path, identity: dict[str, Any]):
        self._file = file
        self._identity = identity
        self._saved = time.monotonic()

    def due(self, step: int, every: int) -> bool:
        """Whether to save after this step: every so many steps, and where they are slow by the clock."""
        return step % every == 0 or time.monotonic() - self._saved > SECONDS_BETWEEN

    def step(self) -> int:
        """The number of steps done; 0 where there is no checkpoint.

        Raises:
            TrainingError: the file is damaged or of another run.
        """
        if not self._file.exists():
            return 0
        try:
            with safe_open(self._file, framework="pt") as file:
                metadata = file.metadata()
            before, step = json.loads(metadata["run"]), int(metadata["step"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{self._file}: not a checkpoint ({error}); delete it to start anew") from error
        # what an earlier version of the program did not write down is left open
        changed = [name for name, value in self._identity.items() if name in before and before[name] != value]
        if changed:
            difference = ", ".join(f"{name} was {before[name]}, is {self._identity[name]}" for name in changed)
            raise TrainingError(
                f"{self._file} belongs to another training ({difference}): use the same data and settings, "
                "another --out folder, or delete the checkpoint to start anew"
            )
        return step

    def load(self, learned: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Restore weights and the optimiser's state, if there is a checkpoint, and return the number of steps done."""
        step = self.step()
        if step:
            tensors = load_file(self._file)
            learned.load_state_dict({name: tensors[f"weight.{name}"] for name in learned.state_dict()})
            parameters = dict(learned.named_parameters())
            for entry, value in tensors.items():
                kind, _, rest = entry.partition(".")
                if kind == "optimiser":
                    name, _, key = rest.rpartition(".")
                    # counters stay on the CPU, where optimisers keep them
                    optimiser.state[parameters[name]][key] = value.to(parameters[name].device) if value.dim() else value
        return step

    def save(self, learned: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
        """Replace the checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, value in learned.state_dict().items():
            tensors[f"weight.{name}"] = value.cpu().contiguous()
        for name, parameter in learned.named_parameters():
            for key, value in optimiser.state.get(parameter, {}).items():
                tensors[f"optimiser.{name}.{key}"] = value.cpu().contiguous()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".partial")
        save_file(tensors, temporary, {"step": str(step), "run": json.dumps(self._identity)})
        temporary.replace(self._file)
        self._saved = time.monotonic()
