"""The folders are layers: imports go down only, and form no cycle. A wheel holds every file of the package.

An sdist holds every file of the repository.

All tests of imports count every import statement, including imports inside functions and under `TYPE_CHECKING`. No
import of the package needs an exception, and a cycle through a deferred import is as confusing as any other cycle.
Only `import_module(...)`, with which the package's `__init__` loads its public names, is not counted.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import inception_rcnn

ROOT = Path(__file__).parents[1]
PACKAGE = "inception_rcnn"
CODE_FOLDERS = ("data", "detection", "proposals", "runtime", "tools")
DETECTION_FOLDERS = ("networks", "warping", "engines", "training", "evaluation")

# From the bottom to the top. A folder may import itself and the folders before it. "" is the package's `__init__`,
# which lists the public names. "detection" is the files directly in `detection/`.
LAYERS = (
    "runtime",
    "data",
    "proposals",
    "detection.networks",
    "detection.warping",
    "detection.engines",
    "detection",
    "detection.training",
    "",
    "tools",
)
EVALUATION = "detection.evaluation"  # not a layer: the two sets below say what it imports, and what imports it
EVALUATION_MAY_IMPORT = {EVALUATION, "data", "runtime"}
MAY_IMPORT_EVALUATION = {EVALUATION, "detection.training", "", "tools"}

Graph = dict[str, set[str]]


def module_files(root: Path) -> dict[str, Path]:
    """The modules of the package by dotted name relative to the package; "" is its `__init__`."""
    files = [root / "__init__.py"]
    for folder in CODE_FOLDERS:
        files += sorted((root / folder).rglob("*.py"))
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix("__init__").rstrip("."): file
        for file in files
    }


def imported_modules(name: str, source: str, is_package: bool, known: set[str]) -> Iterator[str]:
    """Yields the modules of the package that a module imports, wherever in its source the import statement is.

    Args:
        name: the dotted name of the importing module, relative to the package.
        source: the source code of the importing module.
        is_package: whether the importing module is an `__init__`.
        known: the names of all modules, which tells `from . import module` from `from .module import name`.
    """
    parents = name.split(".") if name else []
    if not is_package:
        parents = parents[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            prefix = [PACKAGE, *base] if node.level else []
            module = ".".join([*prefix, *([node.module] if node.module else [])])
            targets = [(module, alias.name) for alias in node.names]
        else:
            continue
        for module, attribute in targets:
            if module.split(".")[0] != PACKAGE:
                continue
            module = module[len(PACKAGE) + 1 :]
            member = f"{module}.{attribute}".lstrip(".")
            yield member if attribute and member in known else module


def module_graph(root: Path) -> Graph:
    """The modules that each module imports."""
    files = module_files(root)
    graph: Graph = {}
    for name, file in files.items():
        is_package = file.name == "__init__.py"
        graph[name] = set(imported_modules(name, file.read_text(encoding="utf-8"), is_package, set(files))) - {name}
    return graph


def folder_of(module: str) -> str:
    """The folder of `LAYERS`, or `EVALUATION`, that a module belongs to."""
    parts = module.split(".")
    if parts[0] == "detection" and len(parts) > 1 and parts[1] in DETECTION_FOLDERS:
        return ".".join(parts[:2])
    return parts[0]


def folder_graph(modules: Graph) -> Graph:
    """The folders that the modules of each folder import, other than the folder itself."""
    graph: Graph = {}
    for module, targets in modules.items():
        folder = folder_of(module)
        graph.setdefault(folder, set()).update({folder_of(target) for target in targets} - {folder})
    return graph


def circle(graph: Graph) -> list[str] | None:
    """The nodes of a cycle in the graph, or None if the graph has no cycle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


@pytest.fixture(scope="module")
def modules() -> Graph:
    return module_graph(ROOT)


def upward_imports(modules: Graph) -> list[str]:
    """The imports that the order of the folders forbids, as "importing module imports imported module"."""
    height = {folder: number for number, folder in enumerate(LAYERS)}
    upward = []
    for module, targets in modules.items():
        for target in targets:
            importer, imported = folder_of(module), folder_of(target)
            if importer == EVALUATION:
                allowed = imported in EVALUATION_MAY_IMPORT
            elif imported == EVALUATION:
                allowed = importer in MAY_IMPORT_EVALUATION
            else:
                allowed = height[imported] <= height[importer]
            if not allowed:
                upward.append(f"{module} imports {target}")
    return sorted(upward)


def test_no_import_goes_up(modules: Graph) -> None:
    assert upward_imports(modules) == []


def test_the_imports_among_folders_form_no_circle(modules: Graph) -> None:
    assert circle(folder_graph(modules)) is None


def test_the_imports_among_modules_form_no_circle(modules: Graph) -> None:
    assert circle(modules) is None


def test_every_folder_has_its_place_in_the_order(modules: Graph) -> None:
    assert {folder_of(module) for module in modules} == {*LAYERS, EVALUATION}
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} == set(CODE_FOLDERS)
    below_detection = {file.parent.name for file in (ROOT / "detection").glob("*/*.py")}
    assert below_detection == set(DETECTION_FOLDERS)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from ..engines.engine import Engine", ["detection.engines.engine"]),
        ("from ..engines import engine, choice", ["detection.engines.engine", "detection.engines"]),
        ("from ... import __version__", [""]),
        ("from ...data import boxes", ["data.boxes"]),
        ("from . import warp", ["detection.warping.warp"]),
        ("import inception_rcnn.data.boxes as boxes, numpy", ["data.boxes"]),
        ("from inception_rcnn.data import boxes", ["data.boxes"]),
        ("from numpy import data", []),
        ("def f():\n    from ...tools.detect import main", ["tools.detect"]),
        ("if TYPE_CHECKING:\n    from ...tools import detect", ["tools.detect"]),
    ],
)
def test_import_statements_are_resolved_to_modules(source: str, expected: list[str]) -> None:
    known = {"", "data", "data.boxes", "detection.engines", "detection.engines.engine", "detection.warping.warp"}
    known |= {"tools", "tools.detect"}
    assert list(imported_modules("detection.warping.kernels", source, is_package=False, known=known)) == expected


def test_upward_imports_and_circles_are_reported() -> None:
    graph = {
        "data.boxes": {"proposals.ranking"},
        "proposals.ranking": {"data.boxes"},
        "detection.evaluation.voc": {"detection.suppression"},
        "detection.suppression": {"detection.training.errors"},
        "detection.training.errors": set(),
    }
    assert upward_imports(graph) == [
        "data.boxes imports proposals.ranking",
        "detection.evaluation.voc imports detection.suppression",
        "detection.suppression imports detection.training.errors",
    ]
    assert set(circle(graph) or ()) == {"data.boxes", "proposals.ranking"}
    assert set(circle(folder_graph(graph)) or ()) == {"data", "proposals"}


def repository_files(root: Path) -> list[Path]:
    """The files that git tracks. Without a git checkout, all files except those made by builds and tests."""
    listed = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=False)
    if listed.returncode == 0 and (root / ".git").exists():
        files = [root / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
        return [file for file in files if file.is_file()]
    products = ("build", "dist", "venv", "demo", "__pycache__")
    return [
        file
        for file in root.rglob("*")
        if file.is_file()
        and not any(
            part in products or part.startswith(".") or part.endswith(".egg-info")
            for part in file.relative_to(root).parts
        )
    ]


@pytest.fixture(scope="module")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, with the files of a fresh clone."""
    copy = tmp_path_factory.mktemp("clone") / PACKAGE
    for file in repository_files(ROOT):
        target = copy / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    return copy


def require_build_tools(*modules: str) -> None:
    """Skips the test unless the modules are installed, and setuptools in a version that reads this pyproject.toml."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module} to build without a network; it is not installed")
    version = importlib.metadata.version("setuptools")
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"needs setuptools 77 or later; {version} is installed")


@pytest.fixture(scope="module")
def wheel(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy in which an interrupted build of an older version has left a module.

    setuptools copies `build/lib` to `build/bdist.<platform>/wheel`, without emptying it first, and packs the latter.
    """
    require_build_tools("setuptools", "pip")
    for stale in ("build/lib", f"build/bdist.{sysconfig.get_platform()}/wheel"):
        folder = clean_copy / stale / PACKAGE
        folder.mkdir(parents=True)
        (folder / "old_module.py").write_text("raise ImportError('of an older version')\n")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(clean_copy)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_package_and_only_those(wheel: Path) -> None:
    expected = {f"{PACKAGE}/__init__.py", f"{PACKAGE}/py.typed"}
    for file in repository_files(ROOT):
        path = file.relative_to(ROOT)
        if path.parts[0] in CODE_FOLDERS:
            expected.add(f"{PACKAGE}/{path.as_posix()}")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed - expected == set(), "in the wheel but not in the repository"
    assert expected - packed == set(), "in the repository but not in the wheel"


@pytest.mark.slow
def test_an_sdist_holds_every_file_of_the_repository(clean_copy: Path, tmp_path: Path) -> None:
    """So that tests, manual and benchmarks run from it, and a wheel can be built from it."""
    require_build_tools("setuptools")
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    run = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)], cwd=clean_copy, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (file,) = tmp_path.glob("*.tar.gz")
    assert file.name == f"inception_rcnn-{inception_rcnn.__version__}.tar.gz"
    with tarfile.open(file) as archive:
        packed = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in packed if name in ("PKG-INFO", "setup.cfg") or name.startswith("inception_rcnn.egg-info/")}
    expected = {path.relative_to(ROOT).as_posix() for path in repository_files(ROOT)} - {".gitignore"}
    assert packed - made - expected == set(), "in the sdist but not in the repository"
    assert expected - packed == set(), "in the repository but not in the sdist"


IMPORT_ALL = """
import importlib, sys
from pathlib import Path

unpacked = Path(sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert Path(module.__file__).is_relative_to(unpacked), f"{name} comes from {module.__file__}"
"""


@pytest.mark.slow
def test_every_module_of_the_wheel_can_be_imported(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "unpacked")
        files = [Path(name) for name in archive.namelist() if name.endswith(".py")]
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    assert len(names) == len(module_files(ROOT))
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(tmp_path / "unpacked"), *names],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
