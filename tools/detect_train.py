"""`detect-train`: train a detector on your own pictures.

detect-train my-data/ --out my-model/
detect photos/ --model my-model/
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
from ..data.dataset import Dataset
from ..data.layouts import FoundData, open_datasets, open_validation
from ..runtime.interruption import end_on_signals, say_when_interrupted
from .error_messages import errors_as_messages, message_of
from .help import INPUT, MODEL, OUTPUT, RUN, Command
from .options import Device, Seed, TensorBoard, none_or_text
from .outputs import check_folder
from .progress import StageProgress, working
from .training_log import TrainingLog

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class OutsideBoxes(str, Enum):
    """The values of `dataset_checks.OutsidePolicy`, which takes long to import."""

    clip = "clip"
    drop = "drop"


@app.command(
    cls=Command,
    epilog="""\
# Train on your own pictures, and look at new ones with the result
detect-train my-data/ --out my-model/
detect photos/ --model my-model/
# A folder without splits: measure on a fifth of its pictures
detect-train my-data/ --hold-out 0.2 --out measured-model/
# Few pictures and no GPU: only the last layer, in minutes
detect-train my-data/ --freeze-trunk --no-multibox --out small-model/
# As the paper: six networks
detect-train ILSVRC/ --init bvlc_googlenet.caffemodel --members 6 \\
    --out ensemble/

If it is stopped, the same command goes on where it was.""",
)
def detect_train(
    datasets: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATASET",
            help="Data sets, merged by class names: folders in the ILSVRC DET, VOC, COCO, YOLO, Roboflow, CVAT, "
            "labelme or Label Studio layout, folders of pictures with VOC XML files, or annotation files (.json of "
            "COCO and Label Studio, .yaml of YOLO, .xml of CVAT).",
            rich_help_panel=INPUT,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Model folder to write.", rich_help_panel=OUTPUT)],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="List of pictures to train on; train or trainval by default.", rich_help_panel=INPUT
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
    outside_boxes: Annotated[
        OutsideBoxes,
        typer.Option(help="Clip boxes that reach beyond their picture, or drop them.", rich_help_panel=INPUT),
    ] = OutsideBoxes.clip,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="List of pictures to measure the detector on at the end; val by default, if it exists. none measures "
            "nothing.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    hold_out: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Train on a part of the pictures and measure on the rest, this share of them, drawn at random. For "
            "data sets without a list val.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    measured: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Largest number of pictures to measure on, drawn at random.",
            rich_help_panel=INPUT,
        ),
    ] = 100,
    tensorboard: TensorBoard = None,
    init: Annotated[
        str,
        typer.Option(
            metavar="NETWORK",
            help="Initial network: a .caffemodel file, a .safetensors file of detect-train-classifier, a model folder, "
            "the name of a shipped model, torchvision or scratch.",
            rich_help_panel=MODEL,
        ),
    ] = "default",
    members: Annotated[
        int,
        typer.Option(
            min=0,  # 0 is the old name of --keep-members
            metavar="N",
            help="Number of networks in the ensemble; the paper's entry has 6. Repeat the command with more members to "
            "train the missing ones.",
            rich_help_panel=MODEL,
        ),
    ] = 1,
    keep_members: Annotated[
        bool,
        typer.Option(
            "--keep-members",
            help="Keep the networks of the model --init, and make only the other parts.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    freeze_below: Annotated[
        str,
        typer.Option(
            metavar="BLOCK",
            help="Lowest block to train (inception_5a, inception_4c ...); none trains all blocks.",
            rich_help_panel=MODEL,
        ),
    ] = "inception_4e",
    freeze_trunk: Annotated[
        bool,
        typer.Option(
            "--freeze-trunk",
            help="Train only the classifier, on pooled features: takes minutes, for few pictures and no GPU. The same "
            "as --freeze-below classifier.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    multibox: Annotated[
        bool,
        typer.Option(
            " /--no-multibox",
            help="Train no MultiBox network, which proposes regions beside selective search. If --init has one, it is "
            "kept; otherwise one is trained by default.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    multibox_iterations: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Train a MultiBox network with N batches of 24 views, also if --init has one; 2000 by default.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    screen: Annotated[
        bool,
        typer.Option(
            " /--no-screen",
            help="Train no screen, which chooses the regions that the networks score: detection then takes ten times "
            "as long. A screen needs MultiBox, and during the training 1.7 MB of disk space for each picture.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    box_regression: Annotated[
        bool,
        typer.Option(
            " /--no-box-regression",
            help="Fit no box regression. Otherwise it is fitted, and kept if it moves boxes closer to objects.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Classifier of ImageNet's 1,000 classes that also teaches the classes without boxes: a .caffemodel "
            "file, or torchvision.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    teacher_classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table with tabs that says which class each class of --teacher belongs to: WNID, number, class name.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    iterations: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of batches of 32 positive and 96 background windows.",
            rich_help_panel=RUN,
        ),
    ] = 3000,
    learning_rate: Annotated[
        float,
        typer.Option(min=0, max=1000, metavar="X", help="Largest; it falls to 0 along a cosine.", rich_help_panel=RUN),
    ] = 0.002,
    pool: Annotated[
        int,
        typer.Option(
            min=2,
            metavar="N",
            help="Windows whose features are stored when blocks are frozen: 0.2 MB each below inception_4e.",
            rich_help_panel=RUN,
        ),
    ] = 72_000,
    device: Device = "auto",
    seed: Seed = 0,
) -> None:
    """Train a detector on annotated pictures, by fine-tuning a pretrained network.

    The steps: MultiBox, the screen, the networks, the box regression, the cascade of an ensemble without a screen, the
    calibration, and the measurement on validation pictures. Finished steps are not repeated. OUT/training/log.csv has
    the loss of each step.
    """
    check_folder(out, "--out")
    check_folder(tensorboard, "--tensorboard")
    if (teacher is None) != (teacher_classes is None):
        raise typer.BadParameter("a teacher needs both --teacher and --teacher-classes", param_hint="--teacher")
    if hold_out is not None and validation is not None:
        raise typer.BadParameter("expected either --hold-out or --validation", param_hint="--hold-out")
    if hold_out is not None and not 0 < hold_out < 1:
        raise typer.BadParameter(f"expected a share above 0 and below 1, got {hold_out}", param_hint="--hold-out")
    if multibox_iterations and not multibox:
        raise typer.BadParameter("--no-multibox trains no MultiBox network", param_hint="--multibox-iterations")
    say_when_interrupted(
        lambda: f"finished stages and the latest checkpoint are kept in {out / 'training'}; the same command goes on"
    )
    with working(console, "loading the program"):
        from ..detection.engines.choice import resolve_device
        from ..detection.training.finetune import FineTuneSettings
        from ..detection.training.initial_network import check_initial_network, initial_multibox, initial_network
        from ..detection.training.multibox import MultiBoxSettings
        from ..detection.training.screen import ScreenSettings
        from ..detection.training.teacher import read_teacher
        from ..detection.training.train_detector import train_detector

    settings = FineTuneSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        freeze_below=none_or_text("classifier" if freeze_trunk else freeze_below),
        pool=pool,
        seed=seed,
    )
    with errors_as_messages(console, resumes=True), TrainingLog(out / "training" / "log.csv", tensorboard) as log:
        resolve_device(device)
        check_initial_network(init)
        with working(console, "reading the annotations"):
            names = read_categories(classes) if classes else None
            samples, found = open_datasets(datasets, split, names)
            trained = [one.name for one in found] or [samples.name]
            measured_on = None
            if hold_out is not None:
                samples, measured_on = _held_out(samples, hold_out, seed)
            elif validation != "none":
                measured_on = open_validation(datasets, validation, names, trained)
        if found:
            console.print(_found_table(found))
        taught = None
        if teacher is not None and teacher_classes is not None:
            taught = read_teacher(initial_network(teacher), teacher_classes, samples.categories)
        trains_multibox = multibox and (multibox_iterations is not None or initial_multibox(init)[0] is None)
        recipe = MultiBoxSettings(iterations=multibox_iterations or MultiBoxSettings.iterations, seed=seed)
        with StageProgress(console) as progress:

            def report(stage: str, done: int, total: int, figures: dict[str, float]) -> None:
                progress.report(stage, done, total, figures)
                log.report(stage, done, total, figures)

            model = train_detector(
                samples,
                out,
                init=init,
                members=0 if keep_members else members,
                teacher=taught,
                settings=settings,
                multibox=recipe if trains_multibox else None,
                screen=ScreenSettings(seed=seed) if screen else None,
                regression=box_regression,
                validation=measured_on,
                measured=measured,
                device=device,
                outside=outside_boxes.value,
                warn=progress.warn,
                report=report,
                say=progress.print,
            )
    figures = model.card.get("evaluation")
    if figures:
        low, high = figures["interval"]
        console.print(
            f"measured: mAP {figures['mAP']:.3f} ({low:.3f} to {high:.3f}) on {figures['pictures']} pictures of "
            f"{escape(str(figures['data']))}",
            soft_wrap=True,
        )
    elif validation == "none":
        console.print("not measured: --validation none")
    elif measured_on is None:
        console.print(
            "not measured: no val list; --hold-out 0.2 would measure on a fifth of the pictures, and train on the rest"
        )
    where = escape(str(out))
    count = len(model.categories)
    console.print(f"{count} {'class' if count == 1 else 'classes'}; written: {where}", soft_wrap=True)
    console.print(f"use it: detect PICTURES --model {where}", soft_wrap=True)


def _held_out(samples: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The pictures to train on and the pictures to measure on."""
    try:
        return samples.hold_out(share, seed)
    except ValueError as error:
        raise typer.BadParameter(message_of(error), param_hint="--hold-out") from error


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
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
