"""`detect-train`: train a detector on pictures of your own.

detect-train ILSVRC_ROOT --out MODEL/
detect photos/ --model MODEL/
"""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ..data.categories import read_categories
from ..data.layouts import open_dataset, open_validation
from .training_errors import errors_as_messages

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True)


class OutsideBoxes(str, Enum):
    """The names of `dataset_checks.OutsidePolicy`, known before the slow imports."""

    clip = "clip"
    drop = "drop"


@app.command(
    epilog="Example: [bold]detect-train ILSVRC/ --init bvlc_googlenet.caffemodel --out my-model/[/bold], then "
    "[bold]detect photos/ --model my-model/[/bold]. Interrupted, the same command goes on where it was."
)
def detect_train(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Data set: a folder in the ILSVRC DET, VOC or COCO layout, a folder of pictures with VOC's XML files, "
            "or a COCO annotation file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    split: Annotated[
        str | None, typer.Option(help="List of pictures to train on; by default train, or trainval.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Your own class list, a name a line. If left out, the 200 DET classes in the ILSVRC layout, else the "
            "data set's."
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            help="Network to start from: a .caffemodel file, a .safetensors file of detect-train-classifier, a model "
            "folder or a shipped model's name, 'torchvision', or 'scratch'."
        ),
    ] = "default",
    freeze_below: Annotated[
        str,
        typer.Option(help="Train this block (inception_5a, inception_4c ...) and those above it; 'none' trains all."),
    ] = "inception_4e",
    freeze_trunk: Annotated[
        bool,
        typer.Option(
            "--freeze-trunk",
            help="Train the classifier alone, on pooled features: minutes, for few pictures and no GPU. The same as "
            "--freeze-below classifier.",
        ),
    ] = False,
    members: Annotated[
        int,
        typer.Option(
            min=0,
            help="Networks that are averaged; the paper's entry has 6. Repeated with more members, the command trains "
            "those that are missing. 0: the networks of the model folder --init are taken as they are, and only what "
            "comes after them is made.",
        ),
    ] = 1,
    iterations: Annotated[
        int, typer.Option(min=1, help="Mini-batches of 32 positive and 96 background windows.")
    ] = 3000,
    learning_rate: Annotated[float, typer.Option(min=0, help="At the start; it falls along a cosine.")] = 0.002,
    pool: Annotated[
        int, typer.Option(min=2, help="Windows kept on disk when blocks are frozen, 0.2 MB each below inception_4e.")
    ] = 72_000,
    multibox_iterations: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Mini-batches of 24 views for the network that proposes regions beside selective search. By default "
            "that of --init is kept, or where it has none one is trained with 2000; 0: none is trained in any case.",
        ),
    ] = None,
    box_regression: Annotated[
        bool, typer.Option(help="Fit a box regression, and keep it if it brings boxes closer to objects.")
    ] = True,
    validation: Annotated[
        str | None,
        typer.Option(help="List of pictures to measure the detector on at the end; by default val, if there is one."),
    ] = None,
    measured: Annotated[
        int, typer.Option(min=0, help="Measure on so many of them, drawn at random; 0: do not measure.")
    ] = 100,
    outside_boxes: Annotated[
        OutsideBoxes, typer.Option(help="Cut boxes off that reach beyond their picture, or leave them out.")
    ] = OutsideBoxes.clip,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Train a detector on annotated pictures, by fine-tuning a pretrained network.

    The networks, the network that proposes regions, the box regression, the cascade of an ensemble and the figures on
    pictures of a validation list are made one after the other; what is finished is not made again.
    """
    from ..detection.training.finetune import FineTuneSettings
    from ..detection.training.initial_network import initial_multibox
    from ..detection.training.multibox import MultiBoxSettings
    from ..detection.training.train import train_detector

    lowest = "classifier" if freeze_trunk else freeze_below
    settings = FineTuneSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        freeze_below=None if lowest == "none" else lowest,
        pool=pool,
        seed=seed,
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    tasks: dict[str, TaskID] = {}
    with errors_as_messages(console):
        names = read_categories(classes) if classes else None
        samples = open_dataset(dataset, split, names)
        if multibox_iterations is None:
            multibox_iterations = 0 if initial_multibox(init)[0] else MultiBoxSettings.iterations
        with Progress(*columns, console=console) as progress:

            def warn(warning: str) -> None:
                progress.console.print(f"[yellow]warning:[/yellow] {escape(warning)}", soft_wrap=True)

            def report(stage: str, done: int, total: int, note: str) -> None:
                if stage not in tasks:
                    tasks[stage] = progress.add_task(stage, total=total, note="")
                progress.update(tasks[stage], completed=done, note=note)

            model = train_detector(
                samples,
                out,
                init=init,
                members=members,
                settings=settings,
                multibox=MultiBoxSettings(iterations=multibox_iterations, seed=seed) if multibox_iterations else None,
                regression=box_regression,
                validation=open_validation(dataset, validation, names, samples) if measured else None,
                measured=measured,
                device=device,
                outside=outside_boxes.value,
                warn=warn,
                report=report,
            )
    found = model.card.get("evaluation")
    if found:
        low, high = found["interval"]
        spread = f"{found['mAP']:.3f} ({low:.3f} to {high:.3f})"
        console.print(f"mAP {spread} on {found['pictures']} pictures of {found['data']}")
    console.print(f"{len(model.categories)} classes; the model is in {out}: detect PICTURES --model {out}")


def main() -> None:
    """The command `detect-train`."""
    app()


if __name__ == "__main__":
    main()
