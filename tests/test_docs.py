"""The words of the manual: commands parse, options exist, Python blocks run, links have targets.

The pages are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md. A block that is indented by four spaces, or fenced
without a language, may hold shell commands. A block fenced with ```python holds Python.
"""

import ast
import importlib
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import typer
from PIL import Image

import inception_rcnn
from inception_rcnn import Detector, GoogLeNet
from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import Category
from inception_rcnn.data.coco import DetectionsWriter
from inception_rcnn.data.picture_detections import PictureDetections
from inception_rcnn.detection.model_files import Model

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
PYTHON = [block for block in BLOCKS if block.kind == "python" and "--8<--" not in block.text]


def commands_of(text: str) -> Iterator[list[str]]:
    """Yields the words of each command in lines of the shell; lines that the shell cannot split are passed over."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:
            continue
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


def parser_of(command: str) -> typer.core.TyperCommand:
    return typer.main.get_command(importlib.import_module(f"inception_rcnn.tools.{command.replace('-', '_')}").app)


def options_of(command: str) -> set[str]:
    """The options that the help of a command shows."""
    shown = [one for one in parser_of(command).params if not getattr(one, "hidden", False)]
    return {name for one in shown for name in (*one.opts, *one.secondary_opts)} | {"--help"}


def test_every_command_of_the_manual_parses() -> None:
    parsed: set[str] = set()
    wrong = []
    for block in BLOCKS:
        for words in commands_of(block.text) if block.kind == "shell" else ():
            found = as_command(words)
            if found is None:
                continue
            command, arguments = found
            if command not in COMMANDS:
                wrong.append(f"{block.place}: there is no command {command}")
                continue
            try:
                parser_of(command).make_context(command, arguments)
            except (typer.BadParameter, Exception) as error:
                wrong.append(f"{block.place}: {shlex.join(words)}: {error}")
            parsed.add(command)
    assert wrong == []
    assert parsed == set(COMMANDS), "the manual has an example of every command"


def test_every_script_of_the_manual_exists_and_has_the_options() -> None:
    scripts = set()
    for block in BLOCKS:
        for words in commands_of(block.text) if block.kind == "shell" else ():
            if words[0] not in ("python", "python3") or len(words) < 2 or not words[1].endswith(".py"):
                continue
            source = (ROOT / words[1]).read_text(encoding="utf-8")
            scripts.add(words[1])
            for option in (word for word in words[2:] if word.startswith("--")):
                assert f'"{option}"' in source, f"{block.place}: {words[1]} has no option {option}"
    assert len(scripts) > 5


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


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_googlenet: None, uncompiled_networks: None) -> Path:
    """The working folder of the examples: the files that they name, and a small detector as the model "default"."""
    monkeypatch.chdir(tmp_path)
    picture = np.full((60, 80, 3), 90, np.uint8)
    picture[10:40, 20:60] = (200, 60, 30)
    (tmp_path / "photos").mkdir()
    for name in ("dog.jpg", "photos/a.jpg"):
        Image.fromarray(picture).save(tmp_path / name)

    for kind in ("Annotations", "Data"):
        (tmp_path / "ILSVRC" / kind / "DET" / "val").mkdir(parents=True)
    lists = tmp_path / "ILSVRC" / "ImageSets" / "DET"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("one 1\n")
    dog = AnnotatedObject("n02084071", (11, 11, 60, 60))
    write_annotation(tmp_path / "ILSVRC" / "Annotations" / "DET" / "val" / "one.xml", Annotation("one", 80, 60, (dog,)))
    Image.fromarray(picture).save(tmp_path / "ILSVRC" / "Data" / "DET" / "val" / "one.JPEG")
    (tmp_path / "predictions.txt").write_text("1 58 0.9 11 11 60 60\n")
    (tmp_path / "blacklist.txt").write_text("1 n00007846\n")
    (tmp_path / "out").mkdir()
    with DetectionsWriter(tmp_path / "out" / "detections.json", [Category(58, "n02084071", "dog")]) as writer:
        writer.add(
            PictureDetections(
                "one.JPEG", 80, 60, np.array([[10, 10, 60, 60]], np.float32), np.array([0.9]), np.array([58])
            )
        )

    (tmp_path / "my-data").mkdir()
    Image.fromarray(picture).save(tmp_path / "my-data" / "one.jpg")
    write_annotation(tmp_path / "my-data" / "one.xml", Annotation("one", 80, 60, (dog,)))

    torch.manual_seed(0)
    network = GoogLeNet(2, auxiliary=False).eval()
    with torch.no_grad():  # random features are large, and all probabilities would be 0 or 1
        network.classifier.weight.mul_(0.01)
    model = Model([network], (Category(1, "n1", "dog"),))
    monkeypatch.setattr(Detector, "load", lambda name, **options: Detector(model, device="cpu", **options))
    return tmp_path


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"{block.page.stem}-{block.line}")
def test_every_python_block_runs(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training has tests of its own; here its arguments are only bound to its signature."""
    signature = inspect.signature(inception_rcnn.train_detector)
    monkeypatch.setattr(
        inception_rcnn, "train_detector", lambda *one, **two: signature.bind(*one, **two), raising=False
    )
    names: dict[str, object] = {}
    exec(compile(block.text, block.place, "exec"), names)
    assert names.keys() > {"__builtins__"}, f"{block.place}: the block defines nothing"
