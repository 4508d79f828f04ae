"""After an interruption, a file has its old or its complete new content."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from inception_rcnn.runtime.atomic_write import atomic_write

# Ends the process at system call number N of atomic_write, as `kill -9` would do.
KILLED = """
import os, sys
from pathlib import Path
from inception_rcnn.runtime.atomic_write import atomic_write

step, file = int(sys.argv[1]), Path(sys.argv[2])
calls = 0

def dying(call):
    def die_or_call(*arguments, **keywords):
        global calls
        calls += 1
        if calls == step:
            os._exit(9)
        return call(*arguments, **keywords)
    return die_or_call

for name in ("fsync", "replace", "close", "chmod"):
    setattr(os, name, dying(getattr(os, name)))
Path.replace = lambda self, target: os.replace(self, target)
Path.chmod = lambda self, mode: os.chmod(self, mode)
with atomic_write(file) as partial:
    partial.write_text("new, and " + "longer " * 10_000)
    if step == 0:
        os._exit(9)
"""
NEW = "new, and " + "longer " * 10_000


@pytest.mark.parametrize("step", range(9))
def test_a_process_killed_at_any_step_leaves_the_old_file_or_the_new_one(tmp_path: Path, step: int) -> None:
    file = tmp_path / "report.json"
    file.write_text("old")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(step), str(file)], check=False)
    written = step > 5  # steps 1 to 5: close of the new file, chmod, fsync, close, replace; 6 and 7 flush the folder
    assert ended.returncode == (0 if step == 8 else 9)
    assert file.read_text() == (NEW if written else "old")
    with atomic_write(file) as partial:
        partial.write_text("after the restart")
    assert file.read_text() == "after the restart"
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("old")

    def stop_in_the_middle() -> None:
        with atomic_write(file) as partial:
            partial.write_text("half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        stop_in_the_middle()
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_folder_is_created_and_the_file_has_default_permissions(tmp_path: Path) -> None:
    default = tmp_path / "default"
    default.write_text("")
    with atomic_write(tmp_path / "new" / "folder" / "a.txt") as partial:
        partial.write_text("text")
    written = tmp_path / "new" / "folder" / "a.txt"
    assert written.read_text() == "text"
    assert written.stat().st_mode == default.stat().st_mode


def test_the_permissions_do_not_depend_on_the_writer(tmp_path: Path) -> None:
    default = tmp_path / "default"
    default.write_text("")
    with atomic_write(tmp_path / "weights") as partial:
        partial.unlink()
        partial.touch(mode=0o600)  # as safetensors does
    assert (tmp_path / "weights").stat().st_mode == default.stat().st_mode


def test_the_temporary_name_of_a_shared_file_contains_the_process_id(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "key", shared=True) as partial:
        partial.write_text("content")
        assert partial.name == f"key.{os.getpid()}.partial"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_full_disk_raises_an_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.json"
    file.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"), atomic_write(file) as partial:
        partial.write_text("new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with atomic_write(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with atomic_write(pipe) as path:
        path.write_text("text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    assert list(tmp_path.iterdir()) == [pipe]
