"""The help of all commands."""

import importlib
import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

COMMANDS = (
    "detect", "detect-architecture", "detect-classify", "detect-evaluate", "detect-export", "detect-propose",
    "detect-recall", "detect-train", "detect-train-classifier", "detect-train-multibox",
)  # fmt: skip


def app_of(command: str) -> typer.Typer:
    app: typer.Typer = importlib.import_module(f"inception_rcnn.tools.{command.replace('-', '_')}").app
    return app


def help_of(command: str, width: int = 80) -> str:
    result = CliRunner().invoke(app_of(command), ["--help"], env={"COLUMNS": str(width)}, prog_name=command)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_is_cut_at_80_columns(command: str) -> None:
    text = help_of(command)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for parameter in typer.main.get_command(app_of(command)).params:
        if parameter.param_type_name == "option" and not getattr(parameter, "hidden", False):
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert re.search(rf"(│ |, ){name}[ ,]", text), name
            assert parameter.help, parameter.name
            assert getattr(parameter, "rich_help_panel", None) in ("Input", "Output", "Model", "Run"), parameter.name


@pytest.mark.parametrize("command", COMMANDS)
def test_options_stand_in_panels_and_texts_have_room(command: str) -> None:
    lines = help_of(command).splitlines()
    titles = [line.split()[1] for line in lines if line.startswith("╭─ ")]
    assert titles == [title for title in ("Input", "Output", "Model", "Run", "Examples") if title in titles]
    assert "Examples" in titles
    starts = [len(match[0]) for line in lines if (match := re.match(r"│ {8,}(?=[^ │])", line))]
    assert max(starts, default=0) <= 30


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_commands_that_parse(command: str) -> None:
    text = help_of(command, 110)
    block = text[text.index("╭─ Examples") :]
    lines = [line[2:-2].rstrip() for line in block.splitlines() if line.startswith("│")]
    examples = "\n".join(lines).replace("\\\n", " ").splitlines()
    assert max(map(len, lines)) <= 76, "a line breaks at 80 columns, and can no longer be pasted"
    parsed = 0
    for example in examples:
        words = shlex.split(example.partition(" > ")[0], comments=True)
        if words and words[0] in COMMANDS:
            typer.main.get_command(app_of(words[0])).make_context(words[0], words[1:])
            parsed += 1
    assert parsed >= 1


def test_choices_are_listed_and_others_are_refused() -> None:
    text = " ".join(help_of("detect").replace("│", " ").split())
    assert "Choices: auto, openvino, openvino-int8, torch-compiled, torch." in text
    assert "--connectivity 4|8" in help_of("detect-propose")
    for command, option in (("detect", "--engine"), ("detect-propose", "--connectivity")):
        refused = CliRunner().invoke(app_of(command), ["a.jpg", "--out", "out", option, "5"])
        assert refused.exit_code == 2
        assert option in refused.output
