"""The help of the commands: a panel for each group of options, readable from 80 columns on."""

from collections import defaultdict
from collections.abc import Sequence
from enum import Enum
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

# The panels, in the order of the help. Each option names its panel as `rich_help_panel`.
INPUT, OUTPUT, MODEL, RUN = "Input", "Output", "Model", "Run"
_PANELS = (INPUT, OUTPUT, MODEL, RUN)

# Wider lines are hard to read. Longer names of options stand above their text, so that no name is cut.
_WIDEST = 110
_LONGEST_NAME = 26


class Command(TyperCommand):
    """A command whose help has the panels Input, Output, Model, Run and Examples.

        @app.command(cls=Command, epilog="detect photos/ --out found/")

    The epilog has an example in each line; a line that starts with "#" is a comment.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        console = Console(highlight=False, emoji=False, markup=False)
        console.width = min(console.width, _WIDEST)
        paragraphs = "\n\n".join(" ".join(part.split()) for part in (self.help or "").split("\n\n"))
        console.print(Text(self.get_usage(ctx), "bold"), Text(paragraphs), sep="\n\n", end="\n\n")
        panels: defaultdict[str, list[Any]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            if not getattr(parameter, "hidden", False):
                panels[getattr(parameter, "rich_help_panel", None) or RUN].append(parameter)
        for name in _PANELS:
            if panels[name]:
                console.print(Panel(_table(panels[name]), title=name, title_align="left", border_style="dim"))
        if self.epilog:
            examples = Text()
            for line in self.epilog.splitlines(keepends=True):
                examples.append(line, "dim" if line.startswith("#") else "bold")
            console.print(Panel(examples, title="Examples", title_align="left", border_style="dim"))


def _table(parameters: Sequence[Any]) -> Table:
    """Names beside texts; a name that is too long stands above its text."""
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    names = [_name(parameter) for parameter in parameters]
    width = max((len(name) for name in names if len(name) <= _LONGEST_NAME), default=0)
    table.add_column(min_width=width, max_width=width, no_wrap=True)
    table.add_column(ratio=1)
    for parameter, name in zip(parameters, names, strict=True):
        text = _text(parameter)
        if len(name) > _LONGEST_NAME:
            text, name = Text.assemble((name, "bold cyan"), "\n", text), ""
        table.add_row(Text(name, "bold cyan"), text)
    return table


def _name(parameter: Any) -> str:
    """The name as it is typed: "INPUT...", "--out FOLDER", "-r, --recursive", "--mode fast|quality"."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper()) + "..." * (parameter.nargs == -1)
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=len))
    if parameter.is_flag:
        return names
    choices = "|".join(_choices(parameter))
    return f"{names} {'NAME' if _are_long(parameter) else choices or parameter.metavar or 'VALUE'}"


def _choices(parameter: Any) -> list[str]:
    kind = getattr(parameter, "type_descriptor", None) or parameter.type  # since typer 0.29, and before it
    return [str(one.value if isinstance(one, Enum) else one) for one in getattr(kind, "choices", None) or ()]


def _are_long(parameter: Any) -> bool:
    """Whether the choices stand in the text, because they are too long for the name."""
    return len("|".join([*parameter.opts, *_choices(parameter)])) > _LONGEST_NAME and bool(_choices(parameter))


def _text(parameter: Any) -> Text:
    text = Text(parameter.help or "")
    if _are_long(parameter):
        text.append(f" Choices: {', '.join(_choices(parameter))}.")
    default = parameter.default
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, list):
        default = ", ".join(default)
    if parameter.required and parameter.param_type_name == "option":
        text.append(" [required]", "dim red")
    elif parameter.show_default and default is not None and not isinstance(default, bool) and not callable(default):
        text.append(f" [default: {default}]", "dim")
    return text
