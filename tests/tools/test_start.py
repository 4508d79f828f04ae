"""A command ends with all of its output, its exit code and the functions of atexit, although it frees no objects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import atexit, sys
from inception_rcnn.tools import start

class Witness:
    def __del__(self):
        print("freed")

witness = Witness()
atexit.register(print, "cleaned up")
sys.argv = ["detect-evaluate", *sys.argv[1:]]
start.detect_evaluate()
"""


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", COMMAND, *arguments], text=True, check=False, timeout=120, **options)


@pytest.mark.parametrize(("arguments", "code", "said"), [(["--help"], 0, "Measure detections"), (["--bad"], 2, "")])
def test_a_command_ends_with_its_output_and_its_exit_code(arguments, code, said):
    ended = run(*arguments, capture_output=True)
    assert ended.returncode == code
    assert said in ended.stdout
    assert ended.stdout.endswith("cleaned up\n")  # and not "freed"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w") as full:
        ended = run("--help", stdout=full, stderr=subprocess.PIPE)
    assert ended.returncode not in (0, 2)
    assert "No space left on device" in ended.stderr
