"""`detect-train-multibox`: train a MultiBox network, which proposes regions beside selective search, for a detector.

detect-train-multibox ILSVRC_ROOT --model MODEL/ --out MODEL_WITH_MULTIBOX/
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..data.categories import read_categories
from ..data.layouts import open_dataset, open_validation
from .error_messages import errors_as_messages
from .outputs import check_folder
from .progress import StageProgress

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


@app.command(
    epilog="Example: [bold]detect-train-multibox ILSVRC/ --model my-model/ --out my-model-2/[/bold], then "
    "[bold]detect photos/ --model my-model-2/[/bold]. If it is interrupted, the same command resumes it."
)
def detect_train_multibox(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Data set: a folder in the ILSVRC DET, VOC, COCO, YOLO, Roboflow, CVAT, labelme or Label Studio "
            "layout, a folder of pictures with VOC XML files, or an annotation file (.json of COCO and Label Studio, "
            ".yaml of YOLO, .xml of CVAT)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write: the detector of --model with the new network.")],
    model: Annotated[
        str, typer.Option(help="Detector to extend: a model folder or the name of a shipped model.")
    ] = "default",
    init: Annotated[
        str | None,
        typer.Option(
            help="Initial network: a .caffemodel file, a model folder, 'torchvision' or 'scratch'. By default, the "
            "first network of --model."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="List of pictures to train on; train or trainval by default.")
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            help="List of pictures to measure recall on after each epoch; val by default, if it exists. 'none' "
            "measures nothing."
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with your own class names, one on each line. By default, the 200 DET classes in the ILSVRC "
            "layout, and the classes of the data set in other layouts."
        ),
    ] = None,
    freeze_below: Annotated[
        str,
        typer.Option(help="Lowest block to train (inception_4e, inception_4c ...); 'none' trains all blocks."),
    ] = "inception_4e",
    iterations: Annotated[int, typer.Option(min=1, help="Number of batches of 24 views.")] = 2000,
    learning_rate: Annotated[float, typer.Option(min=0, help="Largest; it falls to 0 along a cosine.")] = 3e-4,
    views: Annotated[
        int, typer.Option(min=1, help="Views of each picture; their features take 0.8 MB each below inception_4e.")
    ] = 5,
    size: Annotated[int, typer.Option(min=64, help="Side of the network's input in pixels, a multiple of 32.")] = 448,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for the curves of TensorBoard.")
    ] = None,
) -> None:
    """Train a MultiBox network, which proposes 200 regions of a picture beside those of selective search."""
    check_folder(out, "--out")
    check_folder(tensorboard, "--tensorboard")
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
    writer = _summary_writer(tensorboard)
    try:
        with errors_as_messages(console):
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
                    for name, value in figures.items():
                        if writer is not None:
                            writer.add_scalar(name, value, done)

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
    finally:
        if writer is not None:
            writer.close()
    where = escape(str(out))
    console.print(f"the model is in {where}: detect PICTURES --model {where}")


def _summary_writer(folder: Path | None) -> Any:
    """TensorBoard's writer for the folder; None for None."""
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise typer.BadParameter(
            f"needs the package tensorboard ({error}): pip install 'inception-rcnn[train]'",
            param_hint="--tensorboard",
        ) from error
    return SummaryWriter(str(folder))


def main() -> None:
    """The command `detect-train-multibox`."""
    app()


if __name__ == "__main__":
    main()
