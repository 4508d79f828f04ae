"""The training loop, on a network with one weight whose training can be computed by hand."""

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from inception_rcnn.detection.training import checkpoint
from inception_rcnn.detection.training.checkpoint import Checkpoint
from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.detection.training.loop import (
    Training,
    cosine,
    moving_average,
    read_ahead,
    seed_dropout,
    train,
)
from inception_rcnn.detection.training.progress import no_report


class Weight(nn.Module):
    """One weight, initially 0, and a counter as buffer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.register_buffer("count", torch.zeros(()))


def one_weight_training(folder: Path, *, decay: float = 0.99, steps: int = 3, **changes) -> tuple[Training, Weight]:
    """A training whose loss is -w: with learning rate 1, SGD adds 1 to the weight at every step."""
    network = Weight()
    average = moving_average(network, decay)

    def loss(step: int, batch: float) -> tuple[Tensor, dict[str, float]]:
        network.count += 1
        return -batch * network.weight.sum(), {"size": 1.0}

    training = Training(
        stage="training",
        steps=steps,
        weights=nn.ModuleDict({"network": network, "average": average.module}),
        optimiser=torch.optim.SGD(network.parameters(), 99.0),
        checkpoint=Checkpoint(folder / "checkpoint.safetensors", {"seed": 0}),
        batches=lambda steps: (1.0 for _ in steps),
        loss=loss,
        learning_rate=lambda step: 1.0,
        failed_batch=lambda step, batch: ({"inputs": np.array([batch])}, [Path(f"{step}.jpg")]),
        failed_batch_file=folder / "failed_batch.safetensors",
        remedy="a lower --learning-rate",
        average=(network, average),
    )
    return replace(training, **changes), network


@pytest.mark.parametrize(
    ("decay", "expected"),
    # The weights are 1, 2, 3. With a large decay, the average keeps 1/10, 2/11 and 3/12 of itself:
    #   0.1 * 0 + 0.9 * 1 = 0.9, then (2 * 0.9 + 9 * 2) / 11 = 1.8, then 0.25 * 1.8 + 0.75 * 3 = 2.7
    # With a decay of 0.1: 0.9, then 0.1 * 0.9 + 0.9 * 2 = 1.89, then 0.1 * 1.89 + 0.9 * 3 = 2.889
    [(0.99, [0.9, 1.8, 2.7]), (0.1, [0.9, 1.89, 2.889])],
)
def test_the_average_keeps_little_of_the_first_weights_and_copies_buffers(tmp_path, decay, expected):
    training, network = one_weight_training(tmp_path, decay=decay)
    averages = []
    train(training, lambda *state: averages.append(training.weights["average"].weight.item()))
    assert network.weight.item() == 3
    assert averages == pytest.approx(expected)
    assert training.weights["average"].count.item() == 3


def test_a_factor_multiplies_the_learning_rate_of_its_parameters(tmp_path):
    training, network = one_weight_training(tmp_path, learning_rate=lambda step: 10.0**-step)
    training.optimiser.param_groups[0]["factor"] = 5.0
    train(training, no_report)
    assert network.weight.item() == pytest.approx(5 * 1.11)


def test_every_step_is_reported_with_its_figures(tmp_path):
    reports = []
    training, _ = one_weight_training(tmp_path, measure=lambda done: {"recall": 0.5} if done == 2 else {})
    train(training, lambda *state: reports.append(state))
    assert reports == [
        ("training", 1, 3, {"loss": 0.0, "size": 1.0, "learning rate": 1.0}),
        ("training", 2, 3, {"loss": -1.0, "size": 1.0, "learning rate": 1.0}),
        ("training", 2, 3, {"recall": 0.5}),
        ("training", 3, 3, {"loss": -2.0, "size": 1.0, "learning rate": 1.0}),
    ]


def adam_training(folder: Path) -> Training:
    """A training with dropout, AdamW and batches that differ."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    average = moving_average(network, 0.9)

    def batch(step: int) -> Tensor:
        return torch.from_numpy(np.random.default_rng(step).normal(size=(4, 3)).astype(np.float32))

    def loss(step: int, batch: Tensor) -> tuple[Tensor, dict[str, float]]:
        seed_dropout(0, step)
        return (network(batch) ** 2).mean(), {}

    return Training(
        stage="training",
        steps=6,
        weights=nn.ModuleDict({"network": network, "average": average.module}),
        optimiser=torch.optim.AdamW(network.parameters()),
        checkpoint=Checkpoint(folder / "checkpoint.safetensors", {"seed": 0}),
        batches=partial(read_ahead, batch),
        loss=loss,
        learning_rate=lambda step: 0.1 * cosine(step, 6),
        failed_batch=lambda step, batch: ({}, []),
        failed_batch_file=folder / "failed_batch.safetensors",
        remedy="",
        average=(network, average),
    )


class Stop(Exception):
    pass


def stop_after(step: int) -> Callable[..., None]:
    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if done == step:
            raise Stop

    return report


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = adam_training(tmp_path / "whole")
    train(whole, no_report)
    monkeypatch.setattr(checkpoint, "STEPS_BETWEEN", 2)
    with pytest.raises(Stop):
        train(adam_training(tmp_path / "parts"), stop_after(5))
    resumed, steps = adam_training(tmp_path / "parts"), []
    train(resumed, lambda stage, done, total, figures: steps.append(done))
    assert steps == [5, 6]
    for name, value in whole.weights.state_dict().items():
        assert torch.equal(resumed.weights.state_dict()[name], value), name
    train(adam_training(tmp_path / "parts"), stop_after(6))  # Nothing is left to do.


def test_the_tensors_of_a_checkpoint_keep_their_names_and_its_metadata_identifies_the_run(tmp_path):
    training, network = one_weight_training(tmp_path)
    training = replace(training, optimiser=torch.optim.SGD(network.parameters(), 1.0, momentum=0.5))
    train(training, no_report)
    file = tmp_path / "checkpoint.safetensors"
    assert set(load_file(file)) == {
        "weight.network.weight",
        "weight.network.count",
        "weight.average.weight",
        "weight.average.count",
        "optimiser.network.weight.momentum_buffer",
    }
    with safe_open(file, framework="pt") as opened:
        assert {"step": "3", "run": '{"seed": 0}'}.items() <= opened.metadata().items()


def saved_after(folder: Path, **changes) -> list[int]:
    """The steps after which the checkpoint file contains that step."""
    training, _ = one_weight_training(folder, steps=5, **changes)
    saved = []

    def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
        if training.checkpoint.step() == done:
            saved.append(done)

    train(training, report)
    return saved


def test_a_checkpoint_is_saved_after_a_number_of_steps_and_after_the_last_step(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "STEPS_BETWEEN", 2)
    assert saved_after(tmp_path / "first process") == [2, 4, 5]
    assert saved_after(tmp_path / "other process", saves=False) == []


def test_a_checkpoint_is_saved_after_each_step_that_is_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS_BETWEEN", 0)
    assert saved_after(tmp_path) == [1, 2, 3, 4, 5]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    train(one_weight_training(tmp_path)[0], no_report)
    other = Checkpoint(tmp_path / "checkpoint.safetensors", {"seed": 1, "new setting": 2})
    with pytest.raises(TrainingError, match=r"belongs to another training \(seed was 0, is 1\)"):
        train(one_weight_training(tmp_path, checkpoint=other)[0], no_report)


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"checkpoint\.safetensors: not a checkpoint"):
        train(one_weight_training(tmp_path)[0], no_report)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_remedy_and_the_batch(tmp_path, value):
    training, network = one_weight_training(
        tmp_path, batches=lambda steps: (1.0 if step < 2 else value for step in steps)
    )
    with pytest.raises(TrainingError, match=r"at step 3: start again in another --out with a lower --learning-rate"):
        train(training, no_report)
    assert network.weight.item() == 2
    file = tmp_path / "failed_batch.safetensors"
    np.testing.assert_array_equal(load_file(file)["inputs"].numpy(), [value])
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["pictures"]) == ["2.jpg"]


def test_the_next_batch_is_made_during_a_step_and_no_further_batch(tmp_path):
    made = []
    batches = read_ahead(lambda step: made.append(step) or step, range(5))
    assert next(batches) == 0
    assert next(batches) == 1
    batches.close()  # waits for the batch that is being made
    assert made == [0, 1, 2]


def test_batches_are_closed_when_a_step_fails(tmp_path):
    closed = []

    def batches(steps: range) -> Generator[float, None, None]:
        try:
            yield from (1.0 for _ in steps)
        finally:
            closed.append(True)

    with pytest.raises(Stop):
        train(one_weight_training(tmp_path, batches=batches)[0], stop_after(1))
    assert closed == [True]


def test_the_cosine_falls_from_1_to_0():
    assert [cosine(step, 6) for step in (0, 2, 3, 4, 6)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
