"""What a model is, on the terminal: `detect --describe`."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..detection.model_files import Model

# AP from which a class is called good, or fair; and objects from which AP says anything.
_GOOD, _FAIR = 0.5, 0.25
_ENOUGH = 10


def describe(name: str, model: Model, console: Console) -> None:
    """Print the networks of a model, what it was trained on, and how well it knows each class."""
    card = model.card
    kind = "network" if len(model.members) == 1 else "networks"
    console.print(f"[bold]{escape(name)}[/bold]: {len(model.members)} {kind}, {len(model.categories)} classes")
    further = []
    if model.cascade is not None:
        further.append(
            f"a cascade (only the first network looks at regions that it gives less than {model.cascade:.3f})"
        )
    further += ["MultiBox proposals"] * (model.multibox is not None)
    further += ["box regression"] * (model.regressor is not None)
    console.print("with " + (", ".join(further) or "nothing else"), soft_wrap=True)
    regions = model.regions
    console.print(
        f"regions: selective search with superpixels x {regions.superpixel_scale:g}, sides from {regions.min_side:g} "
        f"pixels, {regions.connectivity}-connected; {'warped' if regions.warp_mode == 'warp' else 'as squares'} with "
        f"{regions.padding} pixels around"
    )
    if "data" in card:
        console.print(
            escape(f"trained on {card.get('pictures', '?')} pictures of {card['data']}, from {card.get('init', '?')}")
        )
    figures = card.get("evaluation", {})
    if figures:
        low, high = figures["interval"]
        console.print(
            escape(
                f"mAP {figures['mAP']:.3f} ({low:.3f} to {high:.3f}) on {figures['pictures']} pictures of "
                f"{figures['data']}, protocol {figures['protocol']}; intervals hold the middle 95 % of pictures drawn "
                "again"
            ),
            soft_wrap=True,
        )
    else:
        console.print("how good it is has not been measured")
    console.print(_classes(model, figures.get("classes", {}), card.get("objects", {})))


def _classes(model: Model, figures: dict[str, Any], boxes: dict[str, int]) -> Table:
    table = Table("class", caption=f"trust: good from AP {_GOOD}, fair from {_FAIR}; unsure below {_ENOUGH} objects")
    for column in ("boxes trained on", "AP", "95 % interval", "objects measured on"):
        table.add_column(column, justify="right")
    table.add_column("trust")
    names = [category.name for category in model.categories]
    for name in sorted(names, key=lambda name: (-figures.get(name, {"AP": -1})["AP"], name)):
        trained = f"{boxes[name]:,}" if name in boxes else "?"
        if name not in figures:
            table.add_row(escape(name), trained, "-", "-", "0", "not measured")
            continue
        one = figures[name]
        low, high = one["interval"]
        ends = f"{low:.2f} to {high:.2f}"
        table.add_row(escape(name), trained, f"{one['AP']:.3f}", ends, str(one["objects"]), _trust(one))
    return table


def _trust(figures: dict[str, Any]) -> str:
    if figures["objects"] < _ENOUGH:
        return "unsure"
    return "good" if figures["AP"] >= _GOOD else "fair" if figures["AP"] >= _FAIR else "poor"
