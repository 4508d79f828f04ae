"""`detect-train-classifier`: train GoogLeNet on pictures of one thing each, for detectors to start from.

detect-train-classifier IMAGENET/ --out my-classifier/
torchrun --nproc-per-node 8 -m inception_rcnn.tools.detect_train_classifier IMAGENET/ --out my-classifier/
detect-train DATASET --init my-classifier/classifier.safetensors --out my-model/
"""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..data.image_folders import open_image_folders
from .training_errors import errors_as_messages

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True)


@app.command(
    epilog="Example: [bold]detect-train-classifier IMAGENET/ --out my-classifier/[/bold], then [bold]detect-train "
    "DATASET --init my-classifier/classifier.safetensors --out my-model/[/bold]. On several GPUs: [bold]torchrun "
    "--nproc-per-node N -m inception_rcnn.tools.detect_train_classifier ...[/bold]. Interrupted, the same command goes "
    "on where it was."
)
def detect_train_classifier(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Folder with a folder of pictures for each class, or with such folders in train/ and val/."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for classifier.safetensors and, while it runs, the checkpoint.")],
    epochs: Annotated[int, typer.Option(min=1, help="Times that every picture is seen.")] = 60,
    batch: Annotated[int, typer.Option(min=1, help="Pictures of a mini-batch, over all processes.")] = 256,
    learning_rate: Annotated[float, typer.Option(min=0, help="At the start; 4 % less every 8 epochs.")] = 0.01,
    separable: Annotated[
        bool, typer.Option("--separable", help="The stem that Table 1 counts, in place of the plain 7x7 convolution.")
    ] = False,
    batch_norm: Annotated[
        bool, typer.Option("--batch-norm", help="Not in the paper: batch normalisation, with which it learns sooner.")
    ] = False,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures ahead, for each of ours.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
) -> None:
    """Train GoogLeNet to classify pictures, by the paper's recipe: random-area crops, both auxiliary heads, SGD with
    momentum, averaged weights."""
    from dataclasses import asdict

    import torch
    from torch import distributed

    from ..detection.model_files import save_classifier
    from ..detection.networks.googlenet import GoogLeNet
    from ..detection.training.pretrain import PretrainSettings, accuracy, train_classifier, untrained

    settings = PretrainSettings(epochs=epochs, batch=batch, learning_rate=learning_rate, seed=seed)
    together = "WORLD_SIZE" in os.environ  # torchrun's
    if together and device == "auto" and torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    try:
        with errors_as_messages(console):
            images = open_image_folders(dataset / "train" if (dataset / "train").is_dir() else dataset)
            tests = open_image_folders(dataset / "val", images.classes) if (dataset / "val").is_dir() else None
            if together:
                distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            first = not together or distributed.get_rank() == 0
            torch.manual_seed(seed)
            network = untrained(len(images.classes), separable=separable, batch_norm=batch_norm)
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("loss {task.fields[loss]:.3f}"),
            )
            with Progress(*columns, console=console, disable=not first) as progress:
                task = progress.add_task("", total=None, loss=float("nan"))
                average = train_classifier(
                    network,
                    images,
                    settings,
                    out / "training",
                    device=device,
                    workers=workers,
                    report=lambda step, total, loss: progress.update(task, completed=step, total=total, loss=loss),
                )
            if first:
                assert isinstance(average, GoogLeNet)
                card = {"data": dataset.name, "pictures": len(images), "settings": asdict(settings)}
                if tests is not None:
                    card["top1"], card["top5"] = accuracy(average, tests, device=device)
                    console.print(f"top-1 {card['top1']:.2%}, top-5 {card['top5']:.2%} on {len(tests)} pictures")
                save_classifier(average, images.classes, out / "classifier.safetensors", card)
                console.print(f"{len(images.classes)} classes; written: {out / 'classifier.safetensors'}")
    finally:
        if together and distributed.is_initialized():
            distributed.destroy_process_group()


def main() -> None:
    """The command `detect-train-classifier`."""
    app()


if __name__ == "__main__":
    main()
