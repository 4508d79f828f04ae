"""A command finds out before its work that its results cannot be written."""

import os
from pathlib import Path

import pytest
import typer

from inception_rcnn.tools.outputs import check_file, check_folder


def test_a_folder_that_can_be_written_passes_and_is_not_created(tmp_path):
    check_folder(None, "--out")
    check_folder(tmp_path, "--out")
    check_folder(tmp_path / "new" / "folder", "--out")
    check_file(None, "--json")
    check_file(tmp_path / "new" / "report.json", "--json")
    assert not list(tmp_path.iterdir())


def test_a_relative_folder_passes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("out", ".", "../out"):
        check_folder(Path(name), "--out")


def test_a_file_in_place_of_a_folder_is_refused_and_kept(tmp_path):
    file = tmp_path / "file"
    file.write_text("text")
    for folder in (file, file / "sub", file / "sub" / "sub"):
        with pytest.raises(typer.BadParameter, match="is not a folder") as refused:
            check_folder(folder, "--out")
        assert refused.value.param_hint == "--out"
        assert str(folder) in str(refused.value)
    assert file.read_text() == "text"


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="it is a folder, expected a file"):
        check_file(tmp_path, "--json")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux")
def test_a_folder_where_nothing_can_be_created_is_refused():
    with pytest.raises(typer.BadParameter, match="cannot write /proc/found: "):
        check_folder(Path("/proc/found"), "--out")


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(typer.BadParameter, match="is not a folder"):
        check_folder(tmp_path / "link", "--out")


def test_a_full_disk_is_noticed(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for check in (check_folder, check_file):
        with pytest.raises(typer.BadParameter, match=r"cannot write \S*new: No space left on device"):
            check(tmp_path / "new", "--out")


def test_a_device_passes():
    check_file(Path(os.devnull), "--json")


def test_a_name_that_is_too_long_is_refused(tmp_path):
    for check in (check_folder, check_file):
        with pytest.raises(typer.BadParameter, match="File name too long"):
            check(tmp_path / ("z" * 300), "--out")


def test_an_input_of_the_command_is_not_replaced(tmp_path):
    picture, link = tmp_path / "a.jpg", tmp_path / "b.npz"
    picture.touch()
    link.symlink_to(picture)
    for file in (picture, link, tmp_path / ".." / tmp_path.name / "a.jpg"):
        with pytest.raises(typer.BadParameter, match="is an input of the command"):
            check_file(file, "--out", [None, tmp_path / "missing", "s3://x/a.jpg", picture])
    check_file(picture, "--out", [tmp_path])
