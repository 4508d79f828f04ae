"""Evaluating needs neither torch nor a detector: it starts in a second, on machines without either."""

from __future__ import annotations

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
from inception_rcnn.detection import evaluation

names = [module.name for module in pkgutil.iter_modules(evaluation.__path__, evaluation.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(*sorted(names))
print(*sorted(sys.modules))
"""


def test_evaluation_imports_neither_torch_nor_an_engine_nor_the_rest_of_detection() -> None:
    run = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True)
    imported, loaded = (line.split() for line in run.stdout.splitlines())
    assert "inception_rcnn.detection.evaluation.ilsvrc" in imported
    assert not {"torch", "torchvision", "openvino", "numba"} & {name.split(".")[0] for name in loaded}
    of_detection = {name for name in loaded if name.startswith("inception_rcnn.detection.")}
    assert of_detection == {"inception_rcnn.detection.evaluation", *imported}


def test_drawing_imports_no_torch() -> None:
    command = "import sys, inception_rcnn.detection.drawing; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
