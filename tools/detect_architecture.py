"""`detect-architecture`: print what GoogLeNet costs, beside Table 1, and what dimension reduction saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ..runtime.interruption import end_on_signals
from .help import Command

if TYPE_CHECKING:
    from ..detection.networks.costs import ModuleForms
    from ..detection.networks.googlenet import GoogLeNet

# Inputs of a forward pass that is timed, and number of passes of each module.
_INPUTS = 4
_ROUNDS = 5

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
# A table in Markdown has no broken lines, whatever the width of the terminal.
console = Console(emoji=False, soft_wrap=True, width=250)


@app.command(cls=Command, epilog="detect-architecture")
def detect_architecture() -> None:
    """Print Table 1 of "Going Deeper with Convolutions" with the counts of this program's network beside it.

    A second table has each Inception module in both forms of the paper's Figure 2, naive and with dimension reduction:
    weights, multiply-adds, and times measured on a core of this machine.
    """
    from ..detection.networks.costs import module_forms
    from ..detection.networks.googlenet import GoogLeNet

    network = GoogLeNet(stem="separable", auxiliary=False).eval()
    forms = module_forms(network)
    _print_table_1(network)
    _print_branch(forms[0])
    _print_forms(forms)


def _table(*columns: str) -> Table:
    """A table in Markdown, with numbers at the right."""
    table = Table(columns[0], box=box.MARKDOWN)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _print_table_1(network: GoogLeNet) -> None:
    from ..detection.networks.costs import TABLE_1, table_1
    from ..detection.networks.googlenet import GoogLeNet

    table = _table("layer", "output", "weights", "the paper's, K", "multiply-adds, M", "the paper's, M")
    rows = table_1(network)
    for name, cost in rows.items():
        printed = TABLE_1[name]
        table.add_row(
            name,
            " x ".join(map(str, cost.output)),
            f"{cost.weights:,} = {cost.weights / 1024:,.1f} K",
            f"{printed.kilo_weights:,}",
            f"{cost.multiply_adds / 1e6:,.1f}",
            f"{printed.mega_multiply_adds:,}",
        )
    weights, multiply_adds = sum(row.weights for row in rows.values()), sum(row.multiply_adds for row in rows.values())
    table.add_row("all", "", f"{weights:,} = {weights / 1024:,.1f} K", "", f"{multiply_adds / 1e6:,.1f}", "")
    console.print("Table 1: weights without biases (K = 1024), multiply-adds for a picture of 224 x 224 pixels\n")
    console.print(table)
    plain = table_1(GoogLeNet(auxiliary=False))["conv1"]
    console.print(
        "conv1 is the separable convolution that Table 1 counts. The plain 7 x 7 convolution of the public weights has "
        f"{plain.weights:,} weights and {plain.multiply_adds / 1e6:,.1f} M multiply-adds.\n"
    )


def _print_branch(form: ModuleForms) -> None:
    """Print the cost of a module's 5x5 branch in both forms."""
    from ..detection.networks.costs import layer_costs

    naive = layer_costs(form.naive, *form.input_shape)["conv5x5.convolution"].multiply_adds
    reduced = layer_costs(form.reduced, *form.input_shape)
    one, five = (reduced[f"{name}.convolution"].multiply_adds for name in ("conv5x5_reduce", "conv5x5"))
    console.print(
        f"The 5x5 branch of {form.name}: {naive:,} multiply-adds without dimension reduction, "
        f"{one:,} + {five:,} = {one + five:,} with it.\n"
    )


def _print_forms(forms: list[ModuleForms]) -> None:
    import torch

    from ..detection.networks.costs import median_seconds, module_cost

    table = _table(
        "module", "weights (a)", "weights (b)", "multiply-adds (a), M", "multiply-adds (b), M", "(a) / (b)",
        "ms (a)", "ms (b)", "time (a) / (b)", "outputs (a)", "outputs (b)",
    )  # fmt: skip
    console.print(
        "Figure 2: the naive module (a) and the module with dimension reduction (b), on the inputs that they have in "
        f"GoogLeNet.\nTimes: milliseconds of one core for an input, plain torch in float32, batches of {_INPUTS}\n"
    )
    totals = [0.0] * 6
    for form in forms:
        naive, reduced = (module_cost(module, *form.input_shape) for module in (form.naive, form.reduced))
        seconds = median_seconds([form.naive, form.reduced], torch.rand(_INPUTS, *form.input_shape), _ROUNDS)
        values = [naive.weights, reduced.weights, naive.multiply_adds, reduced.multiply_adds, *seconds]
        totals = [total + value for total, value in zip(totals, values, strict=True)]
        table.add_row(form.name, *_cells(values), str(naive.output[0]), str(reduced.output[0]))
    table.add_row("all", *_cells(totals), "", "")
    console.print(table)
    stacked = sum(form.stacked.multiply_adds for form in forms)
    console.print(
        "In GoogLeNet a naive module passes its pooled inputs on, so the next module would have more inputs: "
        f"{', '.join(str(form.stacked_inputs) for form in forms)}, and {forms[-1].stacked.output[0]} after the last. "
        f"Nine naive modules, one on the other, need {stacked / 1e6:,.1f} M multiply-adds."
    )


def _cells(values: list[float]) -> list[str]:
    """The cells of weights, multiply-adds and seconds of both forms, with ratios."""
    naive_weights, weights, naive_adds, adds, naive_seconds, seconds = values
    return [
        f"{naive_weights:,.0f}",
        f"{weights:,.0f}",
        f"{naive_adds / 1e6:,.1f}",
        f"{adds / 1e6:,.1f}",
        f"{naive_adds / adds:.1f}",
        f"{1000 * naive_seconds / _INPUTS:.2f}",
        f"{1000 * seconds / _INPUTS:.2f}",
        f"{naive_seconds / seconds:.1f}",
    ]


def main() -> None:
    """The command `detect-architecture`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
