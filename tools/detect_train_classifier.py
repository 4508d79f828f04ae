"""`detect-train-classifier`: train GoogLeNet to classify pictures, as the initial network of a detector.

detect-train-classifier imagenet/ --out my-classifier/
torchrun --nproc-per-node 8 -m inception_rcnn.tools.detect_train_classifier imagenet/ --out my-classifier/
detect-train DATASET --init my-classifier/classifier.safetensors --out my-model/
"""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..data.image_folders import open_image_folders
from ..runtime.interruption import end_on_signals, say_when_interrupted
from .error_messages import errors_as_messages
from .help import INPUT, MODEL, OUTPUT, RUN, Command
from .options import Device, Seed, TensorBoard
from .outputs import check_folder
from .progress import StageProgress
from .training_log import TrainingLog

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


@app.command(
    cls=Command,
    epilog="""\
# Train a classifier, then a detector that starts from it
detect-train-classifier imagenet/ --out my-classifier/
detect-train my-data/ --init my-classifier/classifier.safetensors \\
    --out my-model/
# On several GPUs
torchrun --nproc-per-node 8 \\
    -m inception_rcnn.tools.detect_train_classifier imagenet/ \\
    --out my-classifier/

If it is stopped, the same command goes on where it was.""",
)
def detect_train_classifier(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder with a folder of pictures for each class, or with such folders in train/ and val/.",
            rich_help_panel=INPUT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder for classifier.safetensors and the checkpoint.", rich_help_panel=OUTPUT
        ),
    ],
    epochs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of times that each picture is shown.", rich_help_panel=RUN)
    ] = 60,
    batch: Annotated[
        int, typer.Option(min=1, metavar="N", help="Pictures in a batch, over all processes.", rich_help_panel=RUN)
    ] = 256,
    learning_rate: Annotated[
        float,
        typer.Option(
            min=0, max=1000, metavar="X", help="Largest; it falls by 4 % every 8 epochs.", rich_help_panel=RUN
        ),
    ] = 0.01,
    separable: Annotated[
        bool,
        typer.Option(
            "--separable",
            help="Use the separable stem of Table 1 in place of a 7x7 convolution.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    batch_norm: Annotated[
        bool,
        typer.Option(
            "--batch-norm", help="Use batch normalisation: faster, but not in the paper.", rich_help_panel=MODEL
        ),
    ] = False,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Reading processes for each training process; 0 reads in the training process.",
            rich_help_panel=RUN,
        ),
    ] = 4,
    device: Device = "auto",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    members: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Train N networks one after the other, with the same initial weights but other crops and another "
            "order of the pictures. The others are classifier_2.safetensors and so on.",
            rich_help_panel=MODEL,
        ),
    ] = 1,
) -> None:
    """Train GoogLeNet to classify pictures by the paper's recipe.

    The recipe: random-area crops, both auxiliary heads, SGD with momentum, averaged weights. `detect-classify --model
    OUT` averages all networks in OUT.
    """
    check_folder(out, "--out")
    check_folder(tensorboard, "--tensorboard")
    say_when_interrupted(lambda: f"the latest checkpoint is kept in {out}; the same command goes on")
    from dataclasses import asdict

    import torch
    from torch import distributed

    from ..detection.classification import classifier_file
    from ..detection.classifier_files import save_classifier
    from ..detection.engines.choice import resolve_device
    from ..detection.networks.googlenet import GoogLeNet
    from ..detection.training.pretrain import PretrainSettings, accuracy, member_seed, train_classifier, untrained

    distributed_run = "WORLD_SIZE" in os.environ  # torchrun sets it.
    try:
        with errors_as_messages(console, resumes=True):
            if distributed_run and device == "auto" and torch.cuda.is_available():
                device = f"cuda:{os.environ['LOCAL_RANK']}"
                torch.cuda.set_device(resolve_device(device))
            images = open_image_folders(dataset / "train" if os.path.isdir(dataset / "train") else dataset)
            tests = open_image_folders(dataset / "val", images.classes) if os.path.isdir(dataset / "val") else None
            if distributed_run:
                distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
            first_process = not distributed_run or distributed.get_rank() == 0
            with ExitStack() as stack:
                progress = stack.enter_context(StageProgress(console, disable=not first_process))
                log = None
                if first_process:
                    log = stack.enter_context(TrainingLog(out / "training" / "log.csv", tensorboard))
                for member in range(1, members + 1):
                    settings = PretrainSettings(
                        epochs=epochs, batch=batch, learning_rate=learning_rate, seed=member_seed(seed, member)
                    )
                    torch.manual_seed(seed)
                    network = untrained(len(images.classes), separable=separable, batch_norm=batch_norm)
                    of_member = f" member {member} of {members}" if members > 1 else ""

                    def report(
                        stage: str, done: int, total: int, figures: dict[str, float], of_member: str = of_member
                    ) -> None:
                        progress.report(f"{stage}{of_member}", done, total, figures)
                        if log is not None:
                            log.report(f"{stage}{of_member}", done, total, figures)

                    average = train_classifier(
                        network,
                        images,
                        settings,
                        out / ("training" if member == 1 else f"training_{member}"),
                        device=device,
                        workers=workers,
                        report=report,
                    )
                    if not first_process:
                        continue
                    assert isinstance(average, GoogLeNet)
                    card = {"data": dataset.name, "pictures": len(images), "settings": asdict(settings)}
                    if tests is not None:
                        card["top1"], card["top5"] = accuracy(average, tests, device=device)
                        progress.print(f"top-1 {card['top1']:.2%}, top-5 {card['top5']:.2%} on {len(tests)} pictures")
                    file = classifier_file(out, member)
                    save_classifier(average, images.classes, file, card)
                    progress.print(f"{len(images.classes)} classes; written: {file}")
    finally:
        if distributed_run and distributed.is_initialized():
            distributed.destroy_process_group()


def main() -> None:
    """The command `detect-train-classifier`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
