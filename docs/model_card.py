"""A hook of mkdocs: fills the page model_card.md from the model.json of the shipped model."""

import json
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parents[1] / "detection" / "models" / "default" / "model.json"
PLACE = "<!-- the card -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces the mark in a page by the card; mkdocs calls this for every page."""
    return (
        markdown.replace(PLACE, card_of(json.loads(MODEL.read_text(encoding="utf-8"))))
        if PLACE in markdown
        else markdown
    )


def card_of(model: dict[str, Any]) -> str:
    """The card of a model as Markdown: its parts, its data, its figures, and a table of its classes.

    Args:
        model: the content of model.json. Fields of its card may be missing.
    """
    card = model.get("card", {})
    classes = [one["name"] for one in model["categories"]]
    parts = [f"{model['members']} networks" if model["members"] > 1 else "1 network"]
    for field, name in (
        ("cascade", "a cascade"),
        ("multibox", "MultiBox"),
        ("screen", "a screen"),
        ("calibration", "calibrated scores"),
        ("box_regression", "box regression"),
    ):
        parts += [name] * bool(model.get(field))
    lines = [f"The model has {', '.join(parts)}. It finds {len(classes)} classes.", ""]
    if model.get("subclasses"):
        lines += [f"- It tells {len(model['subclasses']):,} finer classes apart (`--finest-names`)."]
    if "data" in card:
        lines += [f"- Trained on {card.get('pictures', '?')} pictures of {card['data']}, from {card.get('init', '?')}."]
    figures = card.get("evaluation", {})
    measured = figures.get("classes", {})
    if figures:
        low, high = figures["interval"]
        lines += [
            f"- Mean AP over the {len(measured)} classes that occur in {figures['pictures']} pictures of "
            f"{figures['data']}, by the {figures['protocol']} rules: {figures['mAP']:.3f} (95 % interval {low:.3f} to "
            f"{high:.3f})."
        ]
    boxes, taught = card.get("objects", {}), set(card.get("taught", ()))
    lines += ["", "| class | training boxes | AP | 95 % interval | objects measured |", "|---|---|---|---|---|"]
    for name in sorted(classes, key=lambda one: (-measured.get(one, {}).get("AP", -1), -boxes.get(one, 0), one)):
        trained = f"{boxes[name]:,}" if name in boxes else "?"
        row = [name, trained + " + teacher" * (name in taught), "", "", ""]
        if name in measured:
            found = measured[name]
            row[2:] = [f"{found['AP']:.2f}", "{:.2f} to {:.2f}".format(*found["interval"]), str(found["objects"])]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)
