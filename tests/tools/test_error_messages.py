"""Errors of a training become messages with an exit code."""

import sqlite3

import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from inception_rcnn.detection.training.errors import TrainingError
from inception_rcnn.tools.error_messages import errors_as_messages, message_of


def exit_of(error: Exception, resumes: bool = True) -> tuple[int, str]:
    """The exit code and the output of a command that raises `error`."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def command() -> None:
        with errors_as_messages(Console(stderr=True), resumes=resumes):
            raise error

    result = CliRunner().invoke(app, env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_an_error_in_data_or_settings_has_exit_code_2():
    code, output = exit_of(TrainingError("no block is called 'x'"))
    assert code == 2
    assert "no block is called 'x'" in output


@pytest.mark.parametrize("error", [OSError("disk [full]"), sqlite3.OperationalError("disk [full]")])
@pytest.mark.parametrize(("resumes", "then"), [(True, "finished work is kept"), (False, "it starts again")])
def test_an_error_of_the_disk_has_exit_code_1_and_the_remedy(error, resumes, then):
    code, output = exit_of(error, resumes)
    assert code == 1
    assert "stopped: disk [full]" in output
    assert f"repeat the command: {then}" in output


def test_other_errors_are_not_caught():
    with pytest.raises(ZeroDivisionError), errors_as_messages(Console(stderr=True), resumes=True):
        raise ZeroDivisionError


def test_a_gpu_without_memory_has_exit_code_1():
    code, output = exit_of(torch.OutOfMemoryError("CUDA out of memory"))
    assert code == 1
    assert "stopped: CUDA out of memory" in output


def test_the_middle_of_a_long_message_is_left_out():
    message = message_of(ValueError(f"list.txt, line 7: {'x' * 300_000}; expected a number"))
    assert len(message) < 2100
    assert message.startswith("list.txt, line 7: xxx")
    assert message.endswith("xxx; expected a number")
    assert message_of(ValueError("short")) == "short"
