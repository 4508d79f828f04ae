"""`detect-train-multibox`: train a MultiBox network, which proposes regions beside selective search, for a detector.

detect-train-multibox my-data/ --model my-model/ --out my-model-2/
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..data.categories import read_categories
from ..data.layouts import open_dataset, open_validation
from ..runtime.interruption import end_on_signals, say_when_interrupted
from .error_messages import errors_as_messages
from .help import INPUT, MODEL, OUTPUT, RUN, Command
from .options import Device, ModelName, Seed, TensorBoard, none_or_text
from .outputs import check_folder
from .progress import StageProgress, working
from .training_log import TrainingLog

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


@app.command(
    cls=Command,
    epilog="""\
# Add a MultiBox network to a detector, and use it
detect-train-multibox my-data/ --model my-model/ --out my-model-2/
detect photos/ --model my-model-2/
# Curves in TensorBoard
detect-train-multibox my-data/ --model my-model/ --out my-model-2/ \\
    --tensorboard curves/

If it is stopped, the same command goes on where it was.""",
)
def detect_train_multibox(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            help="Data set: a folder in the ILSVRC DET, VOC, COCO, YOLO, Roboflow, CVAT, labelme or Label Studio "
            "layout, a folder of pictures with VOC XML files, or an annotation file (.json of COCO and Label Studio, "
            ".yaml of YOLO, .xml of CVAT).",
            rich_help_panel=INPUT,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Model folder to write: the detector of --model with the new network.",
            rich_help_panel=OUTPUT,
        ),
    ],
    model: ModelName = "default",
    init: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Initial network: a .caffemodel file, a model folder, torchvision or scratch. By default, the first "
            "network of --model.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="List of pictures to train on; train or trainval by default.", rich_help_panel=INPUT
        ),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="List of pictures to measure recall on after each epoch; val by default, if it exists. none measures "
            "nothing.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with your own class names, one on each line. By default, the 200 DET classes in the ILSVRC "
            "layout, and the classes of the data set in other layouts.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    freeze_below: Annotated[
        str,
        typer.Option(
            metavar="BLOCK",
            help="Lowest block to train (inception_4e, inception_4c ...); none trains all blocks.",
            rich_help_panel=MODEL,
        ),
    ] = "inception_4e",
    size: Annotated[
        int,
        typer.Option(
            min=64,
            metavar="PIXELS",
            help="Side of the network's input in pixels, a multiple of 32.",
            rich_help_panel=MODEL,
        ),
    ] = 448,
    iterations: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of batches of 24 views.", rich_help_panel=RUN)
    ] = 2000,
    learning_rate: Annotated[
        float,
        typer.Option(min=0, max=1000, metavar="X", help="Largest; it falls to 0 along a cosine.", rich_help_panel=RUN),
    ] = 3e-4,
    views: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Views of each picture; their features take 0.8 MB each below inception_4e.",
            rich_help_panel=RUN,
        ),
    ] = 5,
    device: Device = "auto",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
) -> None:
    """Train a MultiBox network, which proposes 200 regions of a picture beside those of selective search."""
    check_folder(out, "--out")
    check_folder(tensorboard, "--tensorboard")
    if size % 32:
        raise typer.BadParameter(f"expected a multiple of 32, got {size}", param_hint="--size")
    say_when_interrupted(lambda: f"the latest checkpoint is kept in {out / 'training'}; the same command goes on")
    with working(console, "loading the program"):
        from ..detection.training.multibox import MultiBoxSettings, add_multibox

    settings = MultiBoxSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        freeze_below=none_or_text(freeze_below),
        views=views,
        size=size,
        seed=seed,
    )
    with errors_as_messages(console, resumes=True), TrainingLog(out / "training" / "log.csv", tensorboard) as log:
        names = read_categories(classes) if classes else None
        samples = open_dataset(dataset, split, names)
        measured = None
        if validation != "none":
            measured = open_validation([dataset], validation, names, [samples.name])
        with StageProgress(console) as progress:

            def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
                if "recall" in figures:
                    progress.print(f"step {done}: recall {figures['recall']:.3f}")
                else:
                    progress.report(stage, done, total, figures)
                log.report(stage, done, total, figures)

            add_multibox(
                model,
                samples,
                out,
                init=init,
                settings=settings,
                validation=measured,
                device=device,
                warn=progress.warn,
                report=report,
            )
    where = escape(str(out))
    console.print(f"the model is in {where}: detect PICTURES --model {where}")


def main() -> None:
    """The command `detect-train-multibox`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
