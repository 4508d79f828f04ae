"""What people name on the command line to the pictures that they mean."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from inception_rcnn.data.listing import ListingError, find_images


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with pictures, other files, hidden ones and sub-folders."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.JPG", "a.png", "Käse 1.jpeg", "notes.md", "list.csv", ".hidden.jpg",
        "deep/c.webp", "deep/er/d.tiff", "deep/er/e.doc", ".cache/thumb.jpg", "other/f.gif",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "album.jpg").mkdir()
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(paths: list[Path]) -> list[str]:
    return [path.as_posix() for path in paths]


def test_a_folder_gives_its_pictures_sorted_and_no_hidden_ones(folder: Path) -> None:
    assert find_images([folder]) == [folder / "Käse 1.jpeg", folder / "a.png", folder / "b.JPG"]


def test_sub_folders_only_on_demand(folder: Path) -> None:
    found = find_images(["."], recursive=True)
    assert names(found) == ["Käse 1.jpeg", "a.png", "b.JPG", "deep/c.webp", "deep/er/d.tiff", "other/f.gif"]


def test_inputs_keep_their_order_and_pictures_come_once(folder: Path) -> None:
    found = find_images(["b.JPG", "deep", "./b.JPG", folder / "b.JPG", ".", "a.png"])
    assert names(found) == ["b.JPG", "deep/c.webp", "Käse 1.jpeg", "a.png"]


def test_named_files_are_taken_whatever_their_suffix(folder: Path) -> None:
    assert names(find_images(["notes.md", "deep/er/e.doc", ".hidden.jpg"])) == [
        "notes.md",
        "deep/er/e.doc",
        ".hidden.jpg",
    ]


def test_one_name_need_not_be_a_sequence(folder: Path) -> None:
    assert find_images("a.png") == find_images(Path("a.png")) == [Path("a.png")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpeg", ["Käse 1.jpeg"]),
        ("*", ["Käse 1.jpeg", "a.png", "b.JPG"]),  # neither notes nor the folder called album.jpg
        ("deep/?.*", ["deep/c.webp"]),
        ("[ab].*", ["a.png", "b.JPG"]),
        ("deep/**/*.tiff", ["deep/er/d.tiff"]),
    ],
)
def test_patterns_that_the_shell_left_alone(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(find_images([pattern])) == expected


def test_a_file_that_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "x[1].jpg").touch()
    assert names(find_images(["x[1].jpg"])) == ["x[1].jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_links_are_followed_to_files_but_not_in_circles(folder: Path) -> None:
    (folder / "other" / "back").symlink_to(folder, target_is_directory=True)
    (folder / "other" / "a.png").symlink_to(folder / "a.png")
    (folder / "other" / "dangling.png").symlink_to(folder / "nowhere.png")
    found = names(find_images(["other"], recursive=True))
    assert found == ["other/a.png", "other/dangling.png", "other/f.gif"]  # the dangling one is to be reported


def layout(folder: Path, split: str, lines: str, pictures: list[str], pictures_split: str) -> Path:
    for name in pictures:
        path = folder / "ROOT" / "Data" / "DET" / pictures_split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = folder / "ROOT" / "ImageSets" / "DET" / f"{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("split", "pictures_split", "lines"),
    [
        ("val", "val", "b 1\na 2\n"),
        ("val2", "val", "b 1\na 2\n"),
        ("test", "test", "b\na\n"),
        ("train_58", "train", "b 1\na -1\n"),
        ("train_pos_58", "train", "b\na\nb\n"),
        ("val", "val", "b 1 -1\na 2 1\n"),
    ],
)
def test_ilsvrc_lists_lead_to_the_pictures_of_their_split(
    folder: Path, split: str, pictures_split: str, lines: str
) -> None:
    path = layout(folder, split, lines, ["a.JPEG", "b.JPEG"], pictures_split)
    data = folder / "ROOT" / "Data" / "DET" / pictures_split
    assert find_images([path]) == [data / "b.JPEG", data / "a.JPEG"]
    relative = Path(os.path.relpath(path, folder))
    assert [found.resolve() for found in find_images([relative])] == [data / "b.JPEG", data / "a.JPEG"]


def test_a_list_of_paths_starts_from_its_own_folder_or_the_working_one(folder: Path) -> None:
    (folder / "deep" / "list.txt").write_text("c.webp\ner/d.tiff\n")
    assert names(find_images(["deep/list.txt"])) == ["deep/c.webp", "deep/er/d.tiff"]
    (folder / "deep" / "list.txt").write_text(f"deep/c.webp\nKäse 1.jpeg\n{folder / 'a.png'}\n", encoding="utf-8")
    assert names(find_images(["deep/list.txt"])) == ["deep/c.webp", "Käse 1.jpeg", (folder / "a.png").as_posix()]


def test_missing_pictures_of_a_list_are_kept_to_be_reported(folder: Path) -> None:
    (folder / "list.txt").write_text("a 1\nlost 2\n")
    assert names(find_images(["list.txt"])) == ["a.png", "lost.JPEG"]


def test_an_empty_folder_beside_others_does_no_harm(folder: Path) -> None:
    assert names(find_images(["empty", "deep"])) == ["deep/c.webp"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no files or folders were named"),
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["a.png", "nowhere"], "nowhere: no such file or folder"),
        (["empty"], "folder empty holds no files with a suffix of pictures (.bmp, .gif,"),
        (["empty", "album.jpg"], "folder empty holds no files"),
        (["*.xyz"], "*.xyz: nothing matches this pattern"),
        (["*.md"], "*.md: matches 1 files or folders, but no picture (.bmp, .gif,"),
    ],
)
def test_nothing_found_says_why(folder: Path, inputs: list[str], message: str) -> None:
    with pytest.raises(ListingError) as caught:
        find_images(inputs)
    assert message in str(caught.value)


def test_pictures_in_sub_folders_get_the_remedy(folder: Path) -> None:
    for name in ("a.png", "b.JPG", "Käse 1.jpeg"):
        (folder / name).unlink()
    with pytest.raises(ListingError, match=r"folder \. holds 3 pictures in sub-folders: use --recursive"):
        find_images(["."])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "the list is empty"),
        ("lost 1\ngone 2\n", "none of its 2 pictures exists; expected the first at lost.JPEG"),
        ("a 1\nb\n", "expected 'image_id index' in all"),
    ],
)
def test_useless_lists_are_refused(folder: Path, lines: str, message: str) -> None:
    (folder / "list.txt").write_text(lines)
    with pytest.raises(ListingError) as caught:
        find_images(["list.txt"])
    assert "list.txt" in str(caught.value)
    assert message in str(caught.value)


def test_an_ilsvrc_list_without_its_pictures_says_where_they_were_expected(folder: Path) -> None:
    path = layout(folder, "val", "a 1\n", [], "val")
    with pytest.raises(ListingError) as caught:
        find_images([path])
    assert str(folder / "ROOT" / "Data" / "DET" / "val" / "a.JPEG") in str(caught.value)
