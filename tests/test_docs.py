"""The words of the manual: commands and Python blocks run, options exist, links have targets.

The pages are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md. A block that is indented by four spaces, or fenced
without a language, holds shell commands. A block fenced with ```python holds Python. Blocks of other languages, such as
```text, are not run.

The commands of a page run one after the other in the same folder, as a reader pastes them. The folder holds the files
that the examples name. The networks, the pictures and the number of steps are small.
"""

import ast
import functools
import importlib
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

import inception_rcnn
from inception_rcnn import GoogLeNet, Proposals
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.coco import DetectionsWriter
from inception_rcnn.data.picture_detections import PictureDetections
from inception_rcnn.detection import classification, model_files
from inception_rcnn.detection.model_files import Model, save_model
from inception_rcnn.detection.networks.backbones import headless
from inception_rcnn.detection.training import initial_network
from inception_rcnn.detection.training import multibox as multibox_training
from inception_rcnn.detection.training import screen as screen_training
from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.multibox import MultiBoxSettings
from inception_rcnn.detection.training.screen import ScreenSettings
from inception_rcnn.proposals.files import ProposalWriter
from inception_rcnn.proposals.multibox import MultiBox, PriorGrid
from inception_rcnn.proposals.screen import Screen, ScreenThresholds
from inception_rcnn.tools import detect

ROOT = Path(__file__).parents[1]
if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not part of this installation", allow_module_level=True)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(file.stem.replace("_", "-") for file in (ROOT / "tools").glob("detect*.py"))
MODULE = re.compile(r"inception_rcnn\.tools\.(detect\w*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# Programs of others, whose options are not checked.
OTHERS = {"curl", "mkdocs", "pip", "pytest", "python", "python3", "ray", "ruff", "torchrun", "uvicorn"}


class Block(NamedTuple):
    """A block of code of a page. `kind` is "python", "shell" or another language; `line` is where it begins."""

    page: Path
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    """Yields the blocks of code of a page."""
    kind, start, held = "", 0, list[str]()
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], 1):
        fence = line.strip().startswith("```")
        indented = line.startswith(("    ", "\t"))
        if kind in ("", "indented") and not fence:
            if indented:
                kind, start = "indented", start if held else number
                held.append(line.strip())
            elif held:
                yield Block(page, start, "shell", "\n".join(held))
                kind, held = "", []
        elif kind:
            if fence:
                yield Block(page, start, kind.removeprefix("fenced ") or "shell", "\n".join(held))
                kind, held = "", []
            else:
                held.append(line)
        else:
            kind, start, held = f"fenced {line.strip()[3:]}", number + 1, []


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SHELL = [block for block in BLOCKS if block.kind == "shell"]
PYTHON = [block for block in BLOCKS if block.kind == "python"]

# The script that another script runs in another environment.
PEER = "benchmarks/opencv_peer.py"
# The first words of commands of other programs that the tests run.
BY_THE_SHELL = ("awk", "ls")
# The first words of commands that the tests do not run, and the reason.
NOT_RUN = {
    **dict.fromkeys((".", "cd", "git", "python3"), "It prepares a working folder; .ci/run makes one."),
    **dict.fromkeys(("pip", "contrib/bin/pip"), "It installs packages; .ci/run installs this one."),
    "pytest": "It is this run.",
    "python": "A script that measures for minutes or hours. It made the figures of its page.",
    **dict.fromkeys(("uvicorn", "curl"), "test_docs_service.py sends pictures to the service."),
    "torchrun": "It starts processes; detection/training/test_pretrain.py trains in two processes.",
    "--ray": "It needs a cluster; detection/test_cluster.py starts one.",
}
# The only page whose exports run, because an export takes ten seconds.
EXPORTS = ROOT / "docs" / "export.md"
# Commands with these words run if the package, which belongs to an extra, is installed.
PACKAGES = {"--tensorboard": "tensorboard", "detect-export": "onnxscript"}


def lines_of(text: str) -> list[str]:
    """The lines of the shell; a line that ends with a backslash continues on the next line."""
    return text.replace("\\\n", " ").splitlines()


def commands_of(text: str) -> Iterator[list[str]]:
    """Yields the words of each command in lines of the shell."""
    for line in lines_of(text):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words = list(lexer)
        command: list[str] = []
        for word in [*words, ";"]:
            if re.fullmatch(r"[&|;<>]+", word):
                if command:
                    yield command
                command = []
            else:
                command.append(word)


def as_command(words: list[str]) -> tuple[str, list[str]] | None:
    """The command of this package and its arguments; None if the words are no command of this package."""
    if re.fullmatch(r"detect[\w-]*", words[0]):
        return words[0], words[1:]
    for number, word in enumerate(words):
        if found := MODULE.fullmatch(word):
            return found[1].replace("_", "-"), words[number + 1 :]
    return None


def app_of(command: str) -> typer.Typer:
    app: typer.Typer = importlib.import_module(f"inception_rcnn.tools.{command.replace('-', '_')}").app
    return app


def parser_of(command: str) -> typer.core.TyperCommand:
    return typer.main.get_command(app_of(command))


def options_of(command: str) -> set[str]:
    """The options that the help of a command shows."""
    shown = [one for one in parser_of(command).params if not getattr(one, "hidden", False)]
    return {name for one in shown for name in (*one.opts, *one.secondary_opts)} | {"--help"}


def test_every_command_of_the_manual_parses() -> None:
    parsed: set[str] = set()
    wrong = []
    for block in SHELL:
        for words in commands_of(block.text):
            found = as_command(words)
            if found is None:
                continue
            command, arguments = found
            if command not in COMMANDS:
                wrong.append(f"{block.place}: there is no command {command}")
                continue
            try:
                parser_of(command).make_context(command, arguments)
            except Exception as error:
                wrong.append(f"{block.place}: {shlex.join(words)}: {error}")
            parsed.add(command)
    assert wrong == []
    assert parsed == set(COMMANDS), "the manual has an example of every command"


def test_every_script_of_the_manual_exists_and_has_the_options() -> None:
    """Scripts in blocks, and those in the text, such as in the table of figures of CONTRIBUTING."""
    texts = [(block.place, block.text) for block in SHELL]
    texts += [(page.name, span) for page in PAGES for span in re.findall(r"`(python [^`]+)`", page.read_text("utf-8"))]
    scripts = set()
    for place, text in texts:
        for words in commands_of(text):
            if words[0] not in ("python", "python3") or len(words) < 2 or not words[1].endswith(".py"):
                continue
            source = (ROOT / words[1]).read_text(encoding="utf-8")
            scripts.add(words[1])
            for option in (word for word in words[2:] if word.startswith("--")):
                assert f'"{option}"' in source, f"{place}: {words[1]} has no option {option}"
    assert scripts > {f"benchmarks/{file.name}" for file in (ROOT / "benchmarks").glob("*.py")} - {PEER}


def test_every_extra_that_the_manual_installs_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set()
    for page in PAGES:
        extras |= set(re.findall(r"pip install (?:-e )?['\"]\.\[(\w+)\]", page.read_text(encoding="utf-8")))
    assert extras >= {"docs", "ray"}
    for extra in extras:
        assert re.search(rf"^{extra} = \[", project, re.M), extra


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    known = {option for command in COMMANDS for option in options_of(command)}
    for script in [
        *(ROOT / "benchmarks").glob("*.py"),
        ROOT / "docs" / "how_it_works.py",
        *ROOT.glob("tests/fuzz/*.py"),
    ]:
        known |= set(re.findall(r'"(--[a-z][\w-]*)"', script.read_text(encoding="utf-8")))
    text = re.sub(r"^( {4}|\t|```).*$", "", page.read_text(encoding="utf-8"), flags=re.M)
    for span in re.findall(r"`([^`]+)`", text):
        words = span.split()
        if words[0] in OTHERS or words[0].startswith(".ci/"):
            continue
        allowed = options_of(words[0]) if words[0] in COMMANDS else known
        assert set(OPTION.findall(span)) <= allowed, span


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_relative_link_points_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path = target.split("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            assert (page.parent / path).is_file(), target


def test_the_navigation_lists_every_page() -> None:
    listed = re.findall(r"(\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(page.name for page in PAGES if page.parent.name == "docs")


def test_messages_in_the_troubleshooting_page_are_those_of_the_program() -> None:
    """Each word sequence before a value (a number, a name in quotes) of a quoted message stands in the source."""
    folders = ("data", "detection", "proposals", "runtime", "tools")
    source = " ".join(file.read_text(encoding="utf-8") for one in folders for file in (ROOT / one).rglob("*.py"))
    source = re.sub(r'"\s+f?"', "", source)  # adjacent strings
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    checked = 0
    for row in re.findall(r"^\| (`.*?) \|", page, re.M):
        for message in re.findall(r"`([^`]+)`", row):
            for part in re.split(r"'[^']*'|\d[\d.]*|\.\.\.|: command not found", message):
                if len(part.split()) >= 3:
                    assert part.strip(" :;,") in source, message
                    checked += 1
    assert checked > 20


def test_the_citation_has_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {inception_rcnn.__version__}\n" in citation
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(inception_rcnn.__version__)}, \d{{4}}-\d\d-\d\d$", changes, re.M)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page.stem}-{block.line}")
def test_every_name_that_a_python_block_imports_exists(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("inception_rcnn"):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.place}: {alias.name}"


CATEGORIES = (Category(58, "n02084071", "dog"), Category(112, "n02129165", "lion"), Category(200, "n02391049", "zebra"))
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def objects_in(number: int, *, wnids: bool = False) -> tuple[AnnotatedObject, ...]:
    """The three objects in a picture of the examples, of other sizes in each picture."""
    sizes = ((20 + 2 * number, 30), (16, 12 + 2 * number), (10 + number, 10 + number))
    return tuple(
        AnnotatedObject(category.wnid if wnids else category.name, (1 + 26 * place, 5, 26 * place + width, 4 + height))
        for place, ((width, height), category) in enumerate(zip(sizes, CATEGORIES, strict=True))
    )


def draw(file: Path, number: int) -> None:
    """Draw a picture of 100 x 60 pixels with `objects_in(number)`."""
    picture = np.full((60, 100, 3), 90, np.uint8)
    for place, one in enumerate(objects_in(number)):
        x1, y1, x2, y2 = one.box
        picture[y1 - 1 : y2, x1 - 1 : x2] = (200, 60 * place, 20 * number)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)


def annotate(file: Path, number: int, *, wnids: bool = False) -> None:
    """Write the XML file of a picture. Classes are named by WNIDs, as in ILSVRC, or by their names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_annotation(file, Annotation(file.stem, 100, 60, objects_in(number, wnids=wnids)))


def make_det(root: Path, *splits: str) -> None:
    """Write a data set in the ILSVRC DET layout with eight pictures in each split."""
    for split in splits:
        for number, name in enumerate(NUMBERS):
            draw(root / "Data" / "DET" / split / f"{split}_{name}.JPEG", number)
            annotate(root / "Annotations" / "DET" / split / f"{split}_{name}.xml", number, wnids=True)
        lists = root / "ImageSets" / "DET"
        lists.mkdir(parents=True, exist_ok=True)
        names = [f"{split}_{name} {number}\n" for number, name in enumerate(NUMBERS, 1)]
        (lists / f"{split}.txt").write_text("".join(names))


def make_model(folder: Path) -> None:
    """Save a detector with a small network, MultiBox and a screen."""
    torch.manual_seed(0)
    network = GoogLeNet(1 + len(CATEGORIES), auxiliary=False).eval()
    trunk = headless(GoogLeNet(1, auxiliary=False))
    multibox = MultiBox(trunk, [PriorGrid(16, 1, ((20.0, 20.0), (40.0, 30.0)))], width=8, sizes=(64,)).eval()
    channels = multibox.lateral_fine.in_channels, multibox.lateral_coarse.in_channels
    screen = Screen(len(CATEGORIES), *channels).eval()
    with torch.no_grad():  # random features are large, and all probabilities would be 0 or 1
        network.classifier.weight.mul_(0.01)
        screen.classifier.weight.mul_(0.1)
        screen.quality.weight.mul_(0.1)
    screen.thresholds = ScreenThresholds(0.0, nms=0.2)  # few regions
    save_model(Model([network], CATEGORIES, multibox=multibox, screen=screen), folder)


def write_detections(folder: Path, pictures: Sequence[str]) -> None:
    """Write the detections.json of a run that found a dog in each picture."""
    folder.mkdir()
    with DetectionsWriter(folder / "detections.json", CATEGORIES) as writer:
        for picture in pictures:
            box = np.array([[0, 4, 20, 34]], np.float32)
            writer.add(PictureDetections(picture, 100, 60, box, np.array([0.9]), np.array([58])))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are faster with a single thread, above all while other programs run."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, tiny_googlenet_in_module: None) -> Path:
    """A folder with the files that the examples of the manual name."""
    root = tmp_path_factory.mktemp("examples")
    for number, name in enumerate(("dog.jpg", "dog.png", "photos/a.jpg", "photos/b.jpg")):
        draw(root / name, number)
    for folder in ("more-photos", "holiday"):
        draw(root / folder / "c.jpg", 4)
    for folder in ("my-data", "data-1", "data-2", "test-data"):
        for number, name in enumerate(NUMBERS):
            draw(root / folder / f"{name}.jpg", number)
            annotate(root / folder / f"{name}.xml", number)
    for name in ("default", "my-model"):
        make_model(root / "models" / name)

    make_det(root / "ILSVRC", "train", "val")
    make_det(root / "joined", "train", "val")
    make_det(root / "imagenet-val", "dev")
    synsets = [f"dev_{name} {wnid}\n" for name, wnid in zip(NUMBERS, ("n01440764", "n01443537") * 4, strict=True)]
    (root / "imagenet-val" / "dev_synsets.txt").write_text("".join(synsets))
    table = "n01440764\t1\tdog\nn01443537\t2\tlion\n"
    for name in ("table.tsv", "imagenet_to_det.tsv"):
        (root / name).write_text(table)
    (root / "bvlc_googlenet.caffemodel").write_bytes(b"replaced")

    for number, wnid in enumerate(("n01440764", "n01443537")):
        draw(root / "imagenet-samples" / f"{wnid}_fish.JPEG", number)
        for split in ("train", "val"):
            for name in NUMBERS[:2]:
                draw(root / "imagenet" / split / wnid / f"{name}.JPEG", number)
        draw(root / "val" / f"{wnid}.JPEG", number)
    (root / "val.txt").write_text("n01440764 n01440764\nn01443537 n01443537\n")

    voc = root / "VOCdevkit" / "VOC2007"
    for number, name in enumerate(NUMBERS):
        draw(voc / "JPEGImages" / f"{name}.jpg", number)
        annotate(voc / "Annotations" / f"{name}.xml", number)
        annotate(root / "xml" / f"{name}.xml", number)
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "test.txt").write_text("\n".join(NUMBERS))
    (root / "list.txt").write_text("".join(f"{name} {number}\n" for number, name in enumerate(NUMBERS, 1)))
    (root / "predictions.txt").write_text("1 58 0.9 1 5 20 34\n")
    (root / "blacklist.txt").write_text("1 n00007846\n")
    write_detections(root / "found", [f"{name}.jpg" for name in NUMBERS])
    write_detections(root / "out", [f"val_{name}.JPEG" for name in NUMBERS])
    draw(root / "val2017" / "000000000001.jpg", 0)
    coco = {
        "images": [{"id": 1, "file_name": "000000000001.jpg", "width": 100, "height": 60}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 18, "bbox": [0, 4, 20, 30], "area": 600, "iscrowd": 0}],
        "categories": [{"id": 18, "name": "dog"}],
    }
    (root / "instances_val2017.json").write_text(json.dumps(coco))
    result = {"image_id": 1, "category_id": 18, "bbox": [0, 4, 20, 30], "score": 0.9}
    (root / "results.json").write_text(json.dumps([result]))
    for file, picture in (("boxes.npz", "val_{}.JPEG"), ("theirs.npz", "{}.jpg")):  # of ILSVRC/ and of my-data/
        with ProposalWriter(root / file, {"method": "theirs"}) as writer:
            for name in NUMBERS:
                whole = Proposals(np.array([[0, 0, 100, 60]], np.float32), np.ones(1, np.float32))
                writer.add(picture.format(name), 100, 60, whole)
    return root


@dataclass(frozen=True)
class FewViews(MultiBoxSettings):
    iterations: int = 1
    batch: int = 2
    views: int = 1
    size: int = 64


@dataclass(frozen=True)
class FewSteps(ScreenSettings):
    iterations: int = 1


# Options that make a command short.
SHORT = {
    "detect-train": ("--iterations", "1", "--pool", "12"),
    "detect-train-multibox": ("--iterations", "1", "--views", "1", "--size", "64"),
    "detect-train-classifier": ("--epochs", "1", "--batch", "2", "--workers", "0"),
}


@pytest.fixture
def folder(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uncompiled_networks: None) -> Path:
    """The working folder of a reader: the files of `examples`, small networks, short trainings, and no GPU."""
    shutil.copytree(examples, tmp_path, dirs_exist_ok=True)
    shutil.move(tmp_path / "models" / "my-model", tmp_path / "my-model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model_files, "SHIPPED", tmp_path / "models")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(detect, "demo_images", lambda: [tmp_path / "dog.jpg"])  # .ci/run looks at the photographs
    for module in (classification, initial_network):
        monkeypatch.setattr(module, "load_caffemodel", lambda path: GoogLeNet(1000, auxiliary=False).eval())
    monkeypatch.setattr(multibox_training, "MultiBoxSettings", FewViews)
    monkeypatch.setattr(screen_training, "ScreenSettings", FewSteps)
    return tmp_path


def examples_of(command: str) -> str:
    """The examples in the help of a command. An empty line separates them from other words."""
    return (parser_of(command).epilog or "").split("\n\n")[0]


def lines_with_places(source: Path | str) -> list[tuple[str, str]]:
    """The lines of the shell of a page, or of the help of a command, each with its place."""
    if isinstance(source, Path):
        return [(block.place, line) for block in SHELL if block.page == source for line in lines_of(block.text)]
    return [(f"{source} --help", line) for line in lines_of(examples_of(source))]


def as_parameter(source: Path | str) -> Any:
    trains = any("detect-train" in line for _, line in lines_with_places(source))
    name = source.stem if isinstance(source, Path) else f"{source}-help"
    return pytest.param(source, id=name, marks=pytest.mark.slow if trains else ())


@pytest.mark.parametrize("source", [as_parameter(one) for one in (*PAGES, *COMMANDS) if lines_with_places(one)])
def test_every_command_of_a_page_and_of_a_help_runs(source: Path | str, folder: Path) -> None:
    lines = lines_with_places(source)
    for _, line in lines:  # the folders that the page makes do not exist before
        for words in commands_of(line):
            if as_command(words) and "--out" in words:
                out = folder / words[words.index("--out") + 1]
                if out.is_dir():
                    shutil.rmtree(out)
    for place, line in lines:
        commands = list(commands_of(line))
        if commands and commands[0][0] in BY_THE_SHELL:
            if shutil.which(commands[0][0]):
                subprocess.run(line, shell=True, check=True)
            continue
        for words in commands:
            if words[0] in NOT_RUN or "--ray" in words:
                continue
            if any(word in PACKAGES and find_spec(PACKAGES[word]) is None for word in words):
                continue
            if words[0] == "detect-export" and source != EXPORTS:
                continue
            found = as_command(words)
            assert found, f"{place}: {line}: neither a command of this package nor in NOT_RUN"
            command, arguments = found
            result = CliRunner().invoke(app_of(command), [*arguments, *SHORT.get(command, ())], prog_name=command)
            assert result.exit_code == 0, f"{place}: {line}\n{result.output}"


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page.stem}-{block.line}")
def test_every_python_block_runs(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = functools.partial(inception_rcnn.train_detector, settings=FineTuneSettings(iterations=1, pool=12))
    monkeypatch.setattr(inception_rcnn, "train_detector", short, raising=False)
    shutil.rmtree(folder / "my-model")
    names: dict[str, object] = {}
    exec(compile(block.text, block.place, "exec"), names)
    assert names.keys() > {"__builtins__"}, f"{block.place}: the block defines nothing"
