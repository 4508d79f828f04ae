"""The state of a training between steps, on disk."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .windows import TrainingError


class Checkpoint:
    """Trained weights and momenta after some step, in one safetensors file that is replaced atomically.

    Args:
        file: where it is kept.
        identity: what the run is; a checkpoint of another run is refused, naming what differs.
    """

    def __init__(self, file: Path, identity: dict[str, Any]):
        self._file = file
        self._identity = identity

    def step(self) -> int:
        """The number of steps done; 0 where there is no checkpoint."""
        if not self._file.exists():
            return 0
        try:
            with safe_open(self._file, framework="pt") as file:
                metadata = file.metadata()
            before, step = json.loads(metadata["run"]), int(metadata["step"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{self._file}: not a checkpoint ({error}); delete it to start anew") from error
        changed = [name for name, value in self._identity.items() if before.get(name) != value]
        if changed:
            difference = ", ".join(f"{name} was {before.get(name)}, is {self._identity[name]}" for name in changed)
            raise TrainingError(
                f"{self._file} belongs to another training ({difference}): use the same data and settings, "
                "another --out folder, or delete the checkpoint to start anew"
            )
        return step

    def load(self, learned: nn.Module, optimiser: torch.optim.SGD) -> int:
        """Restore weights and momenta, if there is a checkpoint, and return the number of steps done."""
        step = self.step()
        if step:
            tensors = load_file(self._file)
            learned.load_state_dict({name: tensors[f"weight.{name}"] for name in learned.state_dict()})
            for name, parameter in learned.named_parameters():
                momentum = tensors[f"momentum.{name}"].to(parameter.device)
                optimiser.state[parameter]["momentum_buffer"] = momentum
        return step

    def save(self, learned: nn.Module, optimiser: torch.optim.SGD, step: int) -> None:
        """Replace the checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, value in learned.state_dict().items():
            tensors[f"weight.{name}"] = value.cpu().contiguous()
        for name, parameter in learned.named_parameters():
            tensors[f"momentum.{name}"] = optimiser.state[parameter]["momentum_buffer"].cpu().contiguous()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".partial")
        save_file(tensors, temporary, {"step": str(step), "run": json.dumps(self._identity)})
        temporary.replace(self._file)
