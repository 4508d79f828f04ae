"""`detect-train-multibox`: teach a detector to propose regions of its own beside selective search's.

detect-train-multibox ILSVRC_ROOT --model MODEL/ --out MODEL_WITH_MULTIBOX/
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..data.categories import read_categories
from ..data.layouts import open_dataset, open_validation
from .training_errors import errors_as_messages

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True)


@app.command(
    epilog="Example: [bold]detect-train-multibox ILSVRC/ --model my-model/ --out my-model-2/[/bold], then "
    "[bold]detect photos/ --model my-model-2/[/bold]. Interrupted, the same command goes on where it was."
)
def detect_train_multibox(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Data set: a folder in the ILSVRC DET, VOC or COCO layout, a folder of pictures with VOC's XML files, "
            "or a COCO annotation file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write: the detector of --model and the new network.")],
    model: Annotated[str, typer.Option(help="Detector that gets it: a model folder or a shipped model's name.")] = (
        "default"
    ),
    init: Annotated[
        str | None,
        typer.Option(
            help="Network to start from: a .caffemodel file, a model folder, 'torchvision' or 'scratch'; "
            "--model's first one if left out."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="List of pictures to train on; by default train, or trainval.")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="List of pictures to measure recall on after each epoch; by default val, if there is one; 'none' for "
            "none."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Your own class list, a name a line. If left out, the 200 DET classes in the ILSVRC layout, else the "
            "data set's."
        ),
    ] = None,
    freeze_below: Annotated[
        str, typer.Option(help="Train this block (inception_4e, inception_4c ...) and those above; 'none' trains all.")
    ] = "inception_4e",
    iterations: Annotated[int, typer.Option(min=1, help="Mini-batches of 24 views.")] = 2000,
    learning_rate: Annotated[float, typer.Option(min=0, help="At the start; it falls along a cosine.")] = 3e-4,
    views: Annotated[
        int, typer.Option(min=1, help="Crops of each picture, 0.8 MB each on disk below inception_4e.")
    ] = 5,
    size: Annotated[int, typer.Option(min=64, help="Side of the network's input in pixels, a multiple of 32.")] = 448,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write curves there, for TensorBoard.")
    ] = None,
) -> None:
    """Train a MultiBox network: 200 boxes from one look at a picture, proposed beside selective search's."""
    from ..detection.training.multibox import MultiBoxSettings, add_multibox

    if size % 32:
        raise typer.BadParameter(f"expected a multiple of 32, got {size}", param_hint="--size")
    settings = MultiBoxSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        freeze_below=None if freeze_below == "none" else freeze_below,
        views=views,
        size=size,
        seed=seed,
    )
    curves = _curves(tensorboard)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    try:
        with errors_as_messages(console):
            names = read_categories(classes) if classes else None
            samples = open_dataset(dataset, split, names)
            measured = None if validation == "none" else open_validation(dataset, validation, names, samples)
            with Progress(*columns, console=console) as progress:

                def warn(warning: str) -> None:
                    progress.console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)

                def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
                    if stage not in tasks:
                        tasks[stage] = progress.add_task(stage, total=total, note="")
                    note = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
                    if "recall" in figures:
                        progress.console.print(f"step {done}: {note}")
                    else:
                        progress.update(tasks[stage], completed=done, note=note)
                    for name, value in figures.items():
                        if curves is not None:
                            curves.add_scalar(name, value, done)

                add_multibox(
                    model,
                    samples,
                    out,
                    init=init,
                    settings=settings,
                    validation=measured,
                    device=device,
                    warn=warn,
                    report=report,
                )
    finally:
        if curves is not None:
            curves.close()
    console.print(f"the model is in {out}: detect PICTURES --model {out}")


def _curves(folder: Path | None) -> Any:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise typer.BadParameter(
            f"needs the package tensorboard ({error}): pip install 'inception-rcnn[train]'", param_hint="--tensorboard"
        ) from error
    return SummaryWriter(str(folder))


def main() -> None:
    """The command `detect-train-multibox`."""
    app()


if __name__ == "__main__":
    main()
