"""Checkpoint files: damage of every kind, and the checkpoint before the last."""

import contextlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inception_rcnn.detection.training.checkpoint import Checkpoint
from inception_rcnn.detection.training.errors import TrainingError

NAME = "checkpoint.safetensors"


def training(step: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network of known weights with an optimiser that has done a step."""
    torch.manual_seed(step)
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimiser = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    return network, optimiser


def saved(folder: Path, *steps: int) -> Path:
    checkpoint = Checkpoint(folder / NAME, {"a": 1})
    for step in steps:
        checkpoint.save(*training(step), step)
    return folder / NAME


def loaded(file: Path) -> tuple[int, dict[str, torch.Tensor]]:
    network, optimiser = training(99)
    return Checkpoint(file, {"a": 1}).load(network, optimiser), network.state_dict()


def edited(edit: Callable[[dict[str, Any], bytearray], None], *, hashed: bool = True) -> Callable[[Path], None]:
    """Changes the header and the data of a safetensors file."""

    def damage(file: Path) -> None:
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
        edit(header, data)
        if not hashed:
            header["__metadata__"].pop("sha256", None)
        new = json.dumps(header).encode()
        file.write_bytes(struct.pack("<Q", len(new)) + new + data)

    return damage


def fill(header: dict[str, Any], data: bytearray) -> None:
    first, end = header["weight.0.weight"]["data_offsets"]
    data[first:end] = b"\xff" * (end - first)


def flip(header: dict[str, Any], data: bytearray) -> None:
    data[header["weight.0.weight"]["data_offsets"][0]] ^= 1


def metadata(**changes: str) -> Callable[[dict[str, Any], bytearray], None]:
    return lambda header, data: header["__metadata__"].update(changes)


def rename(old: str, new: str) -> Callable[[dict[str, Any], bytearray], None]:
    return lambda header, data: header.__setitem__(new, header.pop(old))


def reshape(name: str) -> Callable[[dict[str, Any], bytearray], None]:
    return lambda header, data: header[name].__setitem__("shape", [6])


EDITS = {
    "a weight is missing": rename("weight.0.weight", "other"),
    "a weight of another shape": reshape("weight.0.weight"),
    "an unknown weight": rename("optimiser.0.bias.momentum_buffer", "weight.none"),
    "state of no parameter": rename("optimiser.0.bias.momentum_buffer", "optimiser.none.momentum_buffer"),
    "state of another shape": reshape("optimiser.0.weight.momentum_buffer"),
    "run is null": metadata(run="null"),
    "run is nested": metadata(run="[" * 100_000),
    "run is no JSON": metadata(run="{"),
    "no run": lambda header, data: header["__metadata__"].pop("run"),
    "no metadata": lambda header, data: header.pop("__metadata__") and header.update(__metadata__={}),
    "step -1": metadata(step="-1"),
    "step 0": metadata(step="0"),
    "step of letters": metadata(step="x"),
    "weights of NaN": fill,
}
DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "nonsense": lambda file: file.write_bytes(b"nonsense" * 100),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "another step": edited(metadata(step="8")),
    "a changed bit": edited(flip),
    **{name: edited(edit) for name, edit in EDITS.items()},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_with_none_before_it_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = saved(tmp_path, 7)
    damage(file)
    with pytest.raises(TrainingError, match=NAME) as error:
        loaded(file)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_damaged_checkpoint_of_an_earlier_version_without_hash_is_named(tmp_path: Path, edit) -> None:
    file = saved(tmp_path, 7)
    edited(edit, hashed=False)(file)
    with pytest.raises(TrainingError, match=NAME):
        loaded(file)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before_it(tmp_path: Path, damage, caplog) -> None:
    file = saved(tmp_path, 3, 5, 7)
    damage(file)
    step, weights = loaded(file)
    assert step == Checkpoint(file, {"a": 1}).step() == 5
    assert torch.equal(weights["0.weight"], training(5)[0].state_dict()["0.weight"])
    assert f"{file}: damaged" in caplog.text


def test_a_damaged_checkpoint_does_not_replace_the_good_one_before_it(tmp_path: Path) -> None:
    file = saved(tmp_path, 3, 5)
    file.write_bytes(b"")
    network, optimiser = training(99)
    checkpoint = Checkpoint(file, {"a": 1})
    assert checkpoint.load(network, optimiser) == 3
    checkpoint.save(*training(5), 5)
    file.write_bytes(b"")
    assert loaded(file)[0] == 3


def test_a_checkpoint_without_hash_of_an_earlier_version_is_loaded(tmp_path: Path) -> None:
    file = saved(tmp_path, 7)
    save_file(load_file(file), file, {"step": "7", "run": json.dumps({"a": 1})})
    step, weights = loaded(file)
    assert step == 7
    assert torch.equal(weights["0.weight"], training(7)[0].state_dict()["0.weight"])


def test_weights_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path: Path) -> None:
    file = saved(tmp_path, 1)
    network, optimiser = training(2)
    with torch.no_grad():
        network[0].weight[0, 0] = torch.inf
    with pytest.raises(TrainingError, match=r"weight\.0\.weight is not finite after step 2, .* the training diverges"):
        Checkpoint(file, {"a": 1}).save(network, optimiser, 2)
    assert loaded(file)[0] == 1


def test_a_deleted_checkpoint_starts_the_training_again(tmp_path: Path) -> None:
    file = saved(tmp_path, 3, 5)
    file.unlink()
    assert loaded(file)[0] == 0


class Killed(BaseException):
    """Ends the program, as far as `save` can tell."""


def kill_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets `calls` calls that flush, link, rename or delete a file succeed. Every later call ends the program."""
    done: list[str] = []

    def patch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if len(done) == calls:
                raise Killed
            done.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, call)

    for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")):
        patch(owner, name)
    return done


def test_a_kill_at_any_call_while_saving_leaves_the_old_or_the_new_checkpoint(tmp_path: Path, monkeypatch) -> None:
    steps = []
    for calls in range(20):
        file = saved(tmp_path / str(calls), 3, 5)
        with monkeypatch.context() as patch:
            done = kill_after(calls, patch)
            with contextlib.suppress(Killed):
                Checkpoint(file, {"a": 1}).save(*training(7), 7)
        steps.append(loaded(file)[0])
        file.rename(tmp_path / "elsewhere")
        file.write_bytes(b"")
        assert loaded(file)[0] in (3, 5)
        if len(done) < calls:
            break
    assert list(dict.fromkeys(steps)) == [5, 7]


def test_the_checkpoint_before_is_copied_where_files_cannot_be_linked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "link", lambda *arguments: (_ for _ in ()).throw(OSError(1, "not permitted")))
    file = saved(tmp_path, 3, 5)
    file.write_bytes(b"")
    assert loaded(file)[0] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.safetensors", NAME]


def test_another_training_is_told_apart_in_a_short_message(tmp_path: Path) -> None:
    file = tmp_path / NAME
    Checkpoint(file, {"a": "x" * 100_000}).save(*training(3), 3)
    with pytest.raises(TrainingError, match="belongs to another training") as error:
        loaded(file)
    assert len(str(error.value)) < 1000
