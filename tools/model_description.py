"""Describes a model on the terminal: `detect --describe`."""

from collections.abc import Collection, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from ..detection.model_files import Model

# Smallest AP of a class that counts as good and as fair, and smallest number of objects for a meaningful AP.
_GOOD, _FAIR = 0.5, 0.25
_ENOUGH = 10

# A wide terminal shows tables side by side, with this many spaces between them, if each gets this many rows.
_BETWEEN = 2
_FEWEST_ROWS = 10


def describe(name: str, model: Model, console: Console) -> None:
    """Print a model's networks and training data, and the AP of each class.

    Args:
        name: name of the model, for the heading.
        model: the model to describe.
        console: where to print.
    """
    card = model.card
    kind = "network" if len(model.members) == 1 else "networks"
    console.print(f"[bold]{escape(name)}[/bold]: {len(model.members)} {kind}, {len(model.categories)} classes")
    parts = []
    if model.cascade is not None:
        parts.append(
            f"a cascade (only the first network scores regions with an object probability below {model.cascade:.3f})"
        )
    parts += ["MultiBox proposals"] * (model.multibox is not None)
    if model.screen is not None:
        least = model.screen.thresholds.score
        parts.append(f"a screen (the networks score only the regions to which it gives at least {least:g})")
    parts += ["calibrated scores"] * (model.calibration is not None)
    parts += ["box regression"] * (model.regressor is not None)
    console.print("with " + (", ".join(parts) or "no other parts"), soft_wrap=True)
    regions = model.regions
    console.print(
        f"regions: selective search with superpixel scale {regions.superpixel_scale:g}, sides of at least "
        f"{regions.min_side:g} pixels, {regions.connectivity}-connected; "
        f"{'warped' if regions.warp_mode == 'warp' else 'cropped as squares'} with {regions.padding} pixels of context",
        soft_wrap=True,
    )
    if "data" in card:
        console.print(
            escape(f"trained on {card.get('pictures', '?')} pictures of {card['data']}, from {card.get('init', '?')}"),
            soft_wrap=True,
        )
    figures = card.get("evaluation", {})
    if figures:
        low, high = figures["interval"]
        console.print(
            escape(
                f"mAP {figures['mAP']:.3f} ({low:.3f} to {high:.3f}) on {figures['pictures']} pictures of "
                f"{figures['data']}, protocol {figures['protocol']}; 95 % bootstrap intervals over pictures"
            ),
            soft_wrap=True,
        )
    else:
        console.print("mAP has not been measured")
    taught = set(card.get("taught", ()))
    rows = _rows(model, figures.get("classes", {}), card.get("objects", {}), taught)
    width = Measurement.get(console, console.options.update(max_width=1000), _table(rows)).maximum
    if not console.is_terminal:  # a file or a pipe takes lines of any length
        console.width = max(console.width, width)
    tables = max(1, min((console.width + _BETWEEN) // (width + _BETWEEN), -(-len(rows) // _FEWEST_ROWS)))
    length = -(-len(rows) // tables)
    console.print(
        Columns([_table(rows[start : start + length]) for start in range(0, len(rows), length)], padding=(0, _BETWEEN))
    )
    console.print(
        f"trust: good from AP {_GOOD}, fair from AP {_FAIR}, else poor; unsure with fewer than {_ENOUGH} objects",
        soft_wrap=True,
    )


def _rows(
    model: Model, figures: dict[str, Any], boxes: dict[str, int], taught: Collection[str]
) -> list[tuple[str, ...]]:
    """The cells of each class, best class first. `taught` are the classes that a teacher taught."""
    rows: list[tuple[str, ...]] = []
    names = [category.name for category in model.categories]
    for name in sorted(names, key=lambda name: (-figures.get(name, {"AP": -1})["AP"], name)):
        trained = f"{boxes[name]:,}" if name in boxes else "?"
        trained += " + teacher" * (name in taught)
        if name not in figures:
            rows.append((escape(name), trained, "-", "-", "0", "not measured"))
            continue
        measured = figures[name]
        low, high = measured["interval"]
        interval, objects = f"{low:.2f} to {high:.2f}", str(measured["objects"])
        rows.append((escape(name), trained, f"{measured['AP']:.3f}", interval, objects, _trust(measured)))
    return rows


def _table(rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table("class")
    for column in ("training boxes", "AP", "95 % interval", "objects measured"):
        table.add_column(column, justify="right")
    table.add_column("trust")
    for row in rows:
        table.add_row(*row)
    return table


def _trust(figures: dict[str, Any]) -> str:
    if figures["objects"] < _ENOUGH:
        return "unsure"
    return "good" if figures["AP"] >= _GOOD else "fair" if figures["AP"] >= _FAIR else "poor"
