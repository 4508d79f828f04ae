"""Signals end a process at once, with a message and without half-written files."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import hashlib, os, signal, sys, threading, time
from pathlib import Path
from inception_rcnn.runtime.atomic_write import atomic_write, temporary_folder
from inception_rcnn.runtime.interruption import end_on_signals, say_when_interrupted

folder, work = Path(sys.argv[1]), sys.argv[2]
end_on_signals()
if work != "silent":
    say_when_interrupted(lambda: f"3 of 5 pictures are kept in {folder}")

def write():
    with atomic_write(folder / "report.json") as partial, temporary_folder(folder) as temporary:
        partial.write_text("half")
        (temporary / "weights").write_text("half")
        print("ready", flush=True)
        if work == "computing":  # no bytecode for minutes, as in a compiler
            hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 500_000_000)
        elif work == "catching":
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        else:
            time.sleep(60)

if work == "child":  # a signal to a forked process ends that process only
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
if work == "thread":
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
else:
    write()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("work", ["waiting", "computing", "catching", "thread", "child", "silent"])
@pytest.mark.parametrize(("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_ends_the_process_wherever_it_is(
    tmp_path: Path, work: str, number: signal.Signals, code: int, name: str
) -> None:
    (tmp_path / "report.json").write_text("old")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), work],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code
    kept = (
        "the command has written nothing yet; repeat it to start again"
        if work == "silent"
        else f"3 of 5 pictures are kept in {tmp_path}"
    )
    assert messages == f"stopped by {name}: {kept}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    assert (tmp_path / "report.json").read_text() == "old"
