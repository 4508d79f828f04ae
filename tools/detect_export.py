"""`detect-export`: write the networks of a model for other programs."""

from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..runtime.interruption import end_on_signals, say_when_interrupted
from .error_messages import errors_as_messages, message_of
from .help import INPUT, OUTPUT, Command
from .outputs import check_folder
from .progress import StageProgress

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
console = Console(stderr=True, emoji=False)


class Format(str, Enum):
    """The names in `export.Format`."""

    onnx = "onnx"
    openvino = "openvino"


EXAMPLES = """\
detect-export default --out exported/
# OpenVINO's files, with 8-bit convolutions:
detect-export default --out exported-int8/ --format openvino --int8"""


@app.command(cls=Command, epilog=EXAMPLES)
def detect_export(
    model: Annotated[
        str,
        typer.Argument(
            help="Detector: a model folder or the name of a shipped model (default).", rich_help_panel=INPUT
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder to write: networks, classes.json and README.md.", rich_help_panel=OUTPUT
        ),
    ],
    kind: Annotated[
        Format,
        typer.Option(
            "--format", help="onnx: one .onnx file a network; openvino: .xml and .bin files.", rich_help_panel=OUTPUT
        ),
    ] = Format.onnx,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Give the convolutions 8 bits, with the input ranges that training measured: a quarter of the size, "
            "and faster on CPUs with VNNI or similar instructions. MultiBox stays in float32.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> None:
    """Write the networks of a detector as files that other programs run without this package.

    The networks take pixels and return probabilities. MultiBox returns boxes and confidences.
    """
    check_folder(out, "--out")
    missing = [package for package in ("onnx", "onnxscript") if find_spec(package) is None]
    if kind is Format.onnx and missing:
        raise typer.BadParameter(
            f"needs the package {missing[0]}: pip install 'inception-rcnn[onnx]'", param_hint="--format"
        )
    from ..detection.export import check_export_folder, export_model
    from ..detection.model_files import find_model, load_model

    try:
        check_export_folder(out)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(message_of(error), param_hint="--out") from error
    say_when_interrupted(lambda: f"{out} is not complete; the same command writes it again")
    with errors_as_messages(console, resumes=False), StageProgress(console) as progress:
        loaded = load_model(model)
        export_model(
            loaded,
            out,
            find_model(model).resolve().name,
            kind=kind.value,
            int8=int8,
            report=lambda done, total: progress.report("networks", done, total, {}),
        )
    console.print(f"the networks are in {escape(str(out))}; README.md there shows how to run them", soft_wrap=True)


def main() -> None:
    """The command `detect-export`."""
    end_on_signals()
    app()


if __name__ == "__main__":
    main()
