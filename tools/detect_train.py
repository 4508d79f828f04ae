"""`detect-train`: train a detector on your own pictures.

detect-train ILSVRC_ROOT --out MODEL/
detect photos/ --model MODEL/
"""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..data.categories import read_categories
from ..data.layouts import FoundData, open_datasets, open_validation
from .error_messages import errors_as_messages
from .outputs import check_folder
from .progress import StageProgress

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class OutsideBoxes(str, Enum):
    """The values of `dataset_checks.OutsidePolicy`, which takes long to import."""

    clip = "clip"
    drop = "drop"


@app.command(
    epilog="Example: [bold]detect-train ILSVRC/ --init bvlc_googlenet.caffemodel --out my-model/[/bold], then "
    "[bold]detect photos/ --model my-model/[/bold]. If it is interrupted, the same command resumes it."
)
def detect_train(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET...",
            help="Data sets, merged by class names: folders in the ILSVRC DET, VOC, COCO, YOLO, Roboflow, CVAT, "
            "labelme or Label Studio layout, folders of pictures with VOC XML files, or annotation files (.json of "
            "COCO and Label Studio, .yaml of YOLO, .xml of CVAT).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    split: Annotated[
        str | None, typer.Option(help="List of pictures to train on; train or trainval by default.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="File with your own class names, one on each line. By default, the 200 DET classes in the ILSVRC "
            "layout, and the classes of the data set in other layouts."
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            help="Initial network: a .caffemodel file, a .safetensors file of detect-train-classifier, a model folder, "
            "the name of a shipped model, 'torchvision' or 'scratch'."
        ),
    ] = "default",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Classifier of ImageNet's 1,000 classes that also teaches the classes without boxes: a .caffemodel "
            "file, or 'torchvision'.",
            show_default=False,
        ),
    ] = None,
    teacher_classes: Annotated[
        Path | None,
        typer.Option(
            help="Table with tabs that says which class each class of --teacher belongs to: WNID, number, class name."
        ),
    ] = None,
    freeze_below: Annotated[
        str,
        typer.Option(help="Lowest block to train (inception_5a, inception_4c ...); 'none' trains all blocks."),
    ] = "inception_4e",
    freeze_trunk: Annotated[
        bool,
        typer.Option(
            "--freeze-trunk",
            help="Train only the classifier, on pooled features: takes minutes, for few pictures and no GPU. The same "
            "as --freeze-below classifier.",
        ),
    ] = False,
    members: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of networks in the ensemble; the paper's entry has 6. Repeat the command with more members to "
            "train the missing ones. 0 keeps the networks of the model folder --init, and does the steps after them.",
        ),
    ] = 1,
    iterations: Annotated[
        int, typer.Option(min=1, help="Number of batches of 32 positive and 96 background windows.")
    ] = 3000,
    learning_rate: Annotated[float, typer.Option(min=0, help="Largest; it falls to 0 along a cosine.")] = 0.002,
    pool: Annotated[
        int,
        typer.Option(
            min=2,
            help="Windows whose features are stored when blocks are frozen: 0.2 MB each below inception_4e.",
        ),
    ] = 72_000,
    multibox_iterations: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Number of batches of 24 views for MultiBox, the network that proposes regions beside selective "
            "search. 0 trains none. By default, the MultiBox network of --init is kept; if it has none, one is trained "
            "with 2000 batches.",
        ),
    ] = None,
    screen: Annotated[
        bool,
        typer.Option(
            help="Train a screen, which chooses the regions that the networks score: detection takes a tenth of the "
            "time. Needs a MultiBox network. During the training, feature maps take 1.7 MB of disk space for each "
            "picture.",
        ),
    ] = True,
    box_regression: Annotated[
        bool, typer.Option(help="Fit a box regression, and keep it if it moves boxes closer to objects.")
    ] = True,
    validation: Annotated[
        str | None,
        typer.Option(help="List of pictures to measure the detector on at the end; val by default, if it exists."),
    ] = None,
    measured: Annotated[
        int, typer.Option(min=0, help="Number of these pictures to measure on, drawn at random; 0 measures nothing.")
    ] = 100,
    outside_boxes: Annotated[
        OutsideBoxes, typer.Option(help="Clip boxes that reach beyond their picture, or drop them.")
    ] = OutsideBoxes.clip,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
) -> None:
    """Train a detector on annotated pictures, by fine-tuning a pretrained network.

    The steps: the networks, MultiBox, the box regression, the cascade of an ensemble, the screen, and the measurement
    on validation pictures. Finished steps are not repeated.
    """
    check_folder(out, "--out")
    from ..detection.training.finetune import FineTuneSettings
    from ..detection.training.initial_network import initial_multibox, initial_network
    from ..detection.training.multibox import MultiBoxSettings
    from ..detection.training.screen import ScreenSettings
    from ..detection.training.teacher import read_teacher
    from ..detection.training.train_detector import train_detector

    if (teacher is None) != (teacher_classes is None):
        raise typer.BadParameter("a teacher needs both --teacher and --teacher-classes", param_hint="--teacher")
    lowest = "classifier" if freeze_trunk else freeze_below
    settings = FineTuneSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        freeze_below=None if lowest == "none" else lowest,
        pool=pool,
        seed=seed,
    )
    with errors_as_messages(console):
        names = read_categories(classes) if classes else None
        samples, found = open_datasets(datasets, split, names)
        if found:
            console.print(_found_table(found))
        trained = [one.name for one in found] or [samples.name]
        taught = None
        if teacher is not None and teacher_classes is not None:
            taught = read_teacher(initial_network(teacher), teacher_classes, samples.categories)
        if multibox_iterations is None:
            multibox_iterations = 0 if initial_multibox(init)[0] else MultiBoxSettings.iterations
        with StageProgress(console) as progress:
            model = train_detector(
                samples,
                out,
                init=init,
                members=members,
                teacher=taught,
                settings=settings,
                multibox=MultiBoxSettings(iterations=multibox_iterations, seed=seed) if multibox_iterations else None,
                screen=ScreenSettings(seed=seed) if screen else None,
                regression=box_regression,
                validation=open_validation(datasets, validation, names, trained) if measured else None,
                measured=measured,
                device=device,
                outside=outside_boxes.value,
                warn=progress.warn,
                report=progress.report,
            )
    figures = model.card.get("evaluation")
    if figures:
        low, high = figures["interval"]
        console.print(
            f"mAP {figures['mAP']:.3f} ({low:.3f} to {high:.3f}) on {figures['pictures']} pictures of "
            f"{escape(str(figures['data']))}"
        )
    where = escape(str(out))
    console.print(f"{len(model.categories)} classes; the model is in {where}: detect PICTURES --model {where}")


def _found_table(found: Sequence[FoundData]) -> Table:
    """A table of what each data set contributes, with a row for each class."""
    table = Table("class")
    for one in found:
        table.add_column(escape(f"{one.name} ({one.layout})"), justify="right")
    table.add_row("pictures", *(f"{one.pictures:,}" for one in found))
    classes = {name: sum(one.objects.get(name, 0) for one in found) for one in found for name in one.objects}
    for name in sorted(classes, key=lambda name: (-classes[name], name)):
        table.add_row(escape(name), *(f"{one.objects[name]:,}" if name in one.objects else "-" for one in found))
    return table


def main() -> None:
    """The command `detect-train`."""
    app()


if __name__ == "__main__":
    main()
