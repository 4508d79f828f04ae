"""Picture files are found from the arguments of a command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fsspec
import pytest

from inception_rcnn.data.listing import ListingError, find_images, find_images_and_urls, picture_numbers


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures, other files, hidden files and sub-folders."""
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


def test_a_folder_gives_its_sorted_pictures_without_hidden_files(folder: Path) -> None:
    assert find_images([folder]) == [folder / "Käse 1.jpeg", folder / "a.png", folder / "b.JPG"]


def test_recursive_includes_sub_folders(folder: Path) -> None:
    found = find_images(["."], recursive=True)
    assert names(found) == ["Käse 1.jpeg", "a.png", "b.JPG", "deep/c.webp", "deep/er/d.tiff", "other/f.gif"]


def test_inputs_keep_their_order_without_duplicates(folder: Path) -> None:
    found = find_images(["b.JPG", "deep", "./b.JPG", folder / "b.JPG", ".", "a.png"])
    assert names(found) == ["b.JPG", "deep/c.webp", "Käse 1.jpeg", "a.png"]


def test_pictures_that_cannot_be_read_are_listed_so_that_their_failure_is(folder: Path) -> None:
    for name in ("deep/a.HEIC", "deep/b.avif", "deep/c.CR2", "deep/d.jp2", "deep/._c.webp"):
        (folder / name).touch()
    expected = ["a.HEIC", "b.avif", "c.CR2", "c.webp", "d.jp2"]
    assert [path.name for path in find_images("deep")] == expected


def test_names_that_are_not_utf_8_are_found(folder: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    (folder / "deep" / name).touch()
    (folder / "list.txt").write_bytes(b"deep/caf\xe9.png\n")
    assert find_images("deep") == [Path("deep") / "c.webp", Path("deep") / name]
    assert find_images("list.txt") == [Path("deep") / name]


def test_numbers_and_quotes_at_the_ends_of_names_in_a_list(folder: Path) -> None:
    for name in ("Screen 101112.JPG", "my photo.png"):
        (folder / "deep" / name).touch()
    (folder / "list.txt").write_text('deep/Screen 101112\n"deep/my photo.png"\n')
    assert names(find_images("list.txt")) == ["deep/Screen 101112.JPG", "deep/my photo.png"]


def test_named_files_may_have_any_suffix(folder: Path) -> None:
    assert names(find_images(["notes.md", "deep/er/e.doc", ".hidden.jpg"])) == [
        "notes.md",
        "deep/er/e.doc",
        ".hidden.jpg",
    ]


def test_a_single_input_need_not_be_a_sequence(folder: Path) -> None:
    assert find_images("a.png") == find_images(Path("a.png")) == [Path("a.png")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpeg", ["Käse 1.jpeg"]),
        ("*", ["Käse 1.jpeg", "a.png", "b.JPG"]),  # without notes.md and the folder album.jpg
        ("deep/?.*", ["deep/c.webp"]),
        ("[ab].*", ["a.png", "b.JPG"]),
        ("deep/**/*.tiff", ["deep/er/d.tiff"]),
    ],
)
def test_patterns_are_expanded(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(find_images([pattern])) == expected


def test_a_file_that_looks_like_a_pattern_is_a_file(folder: Path) -> None:
    (folder / "x[1].jpg").touch()
    assert names(find_images(["x[1].jpg"])) == ["x[1].jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="creating links requires a privilege on Windows")
def test_links_to_files_are_followed_and_links_to_folders_are_not(folder: Path) -> None:
    (folder / "other" / "back").symlink_to(folder, target_is_directory=True)
    (folder / "other" / "a.png").symlink_to(folder / "a.png")
    (folder / "other" / "dangling.png").symlink_to(folder / "nowhere.png")
    found = names(find_images(["other"], recursive=True))
    assert found == ["other/a.png", "other/dangling.png", "other/f.gif"]  # reading the dangling link reports an error


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
def test_an_ilsvrc_list_gives_the_pictures_of_its_split(
    folder: Path, split: str, pictures_split: str, lines: str
) -> None:
    path = layout(folder, split, lines, ["a.JPEG", "b.JPEG"], pictures_split)
    data = folder / "ROOT" / "Data" / "DET" / pictures_split
    assert find_images([path]) == [data / "b.JPEG", data / "a.JPEG"]
    relative = Path(os.path.relpath(path, folder))
    assert [found.resolve() for found in find_images([relative])] == [data / "b.JPEG", data / "a.JPEG"]


def test_paths_in_a_list_are_relative_to_its_folder_or_to_the_working_directory(folder: Path) -> None:
    (folder / "deep" / "list.txt").write_text("c.webp\ner/d.tiff\n")
    assert names(find_images(["deep/list.txt"])) == ["deep/c.webp", "deep/er/d.tiff"]
    (folder / "deep" / "list.txt").write_text(f"deep/c.webp\nKäse 1.jpeg\n{folder / 'a.png'}\n", encoding="utf-8")
    assert names(find_images(["deep/list.txt"])) == ["deep/c.webp", "Käse 1.jpeg", (folder / "a.png").as_posix()]


def test_missing_pictures_of_a_list_are_kept(folder: Path) -> None:
    (folder / "list.txt").write_text("a 1\nlost 2\n")
    assert names(find_images(["list.txt"])) == ["a.png", "lost.JPEG"]


def test_an_empty_folder_is_ignored_if_other_inputs_have_pictures(folder: Path) -> None:
    assert names(find_images(["empty", "deep"])) == ["deep/c.webp"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no files or folders were named"),
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["a.png", "nowhere"], "nowhere: no such file or folder"),
        (["empty"], "folder empty contains no files with a picture suffix (.avif, .bmp,"),
        (["empty", "album.jpg"], "folder empty contains no files"),
        (["*.xyz"], "*.xyz: no file matches this pattern"),
        (["*.md"], "*.md: matches 1 files or folders, but no picture (.avif, .bmp,"),
    ],
)
def test_the_error_for_no_pictures_names_the_reason(folder: Path, inputs: list[str], message: str) -> None:
    with pytest.raises(ListingError) as caught:
        find_images(inputs)
    assert message in str(caught.value)


def test_the_error_for_pictures_in_sub_folders_names_the_remedy(folder: Path) -> None:
    for name in ("a.png", "b.JPG", "Käse 1.jpeg"):
        (folder / name).unlink()
    with pytest.raises(ListingError, match=r"folder \. contains 3 pictures in sub-folders: use --recursive"):
        find_images(["."])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "the list is empty"),
        ("lost 1\ngone 2\n", "none of its 2 pictures exists; expected the first picture at lost.JPEG"),
        ("a 1\nb\n", "expected 'image_id index' in all"),
    ],
)
def test_lists_without_pictures_are_refused(folder: Path, lines: str, message: str) -> None:
    (folder / "list.txt").write_text(lines)
    with pytest.raises(ListingError) as caught:
        find_images(["list.txt"])
    assert "list.txt" in str(caught.value)
    assert message in str(caught.value)


def test_the_error_for_an_ilsvrc_list_without_pictures_names_their_folder(folder: Path) -> None:
    path = layout(folder, "val", "a 1\n", [], "val")
    with pytest.raises(ListingError) as caught:
        find_images([path])
    assert str(folder / "ROOT" / "Data" / "DET" / "val" / "a.JPEG") in str(caught.value)


def test_pictures_in_remote_folders_and_patterns_are_found(bucket: str) -> None:
    assert find_images_and_urls([bucket]) == [f"memory:///bucket/{name}" for name in ("a.JPG", "b.png", "red.png")]
    assert "memory:///bucket/deep/c.png" in find_images_and_urls([bucket], recursive=True)
    assert find_images_and_urls([f"{bucket}/*e*.png"]) == ["memory:///bucket/red.png"]


def test_files_come_before_urls_and_duplicates_are_removed(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    urls = [f"{bucket}/missing.png", f"{bucket}/b.png"]
    assert find_images_and_urls([*urls, str(tmp_path), urls[0]]) == [tmp_path / "x.png", *urls]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/deep/", "contains no files"),
        ("memory://bucket/*.gif", "contains no files"),
        ("gopher://a/", "cannot be listed"),
    ],
)
def test_the_error_for_a_url_without_pictures_names_the_reason(bucket: str, url: str, message: str) -> None:
    fsspec.filesystem("memory").rm("/bucket/deep/c.png")
    with pytest.raises(ListingError, match=message):
        find_images_and_urls([url])


def test_no_inputs_are_an_error() -> None:
    with pytest.raises(ListingError, match="no pictures"):
        find_images_and_urls([])


@pytest.mark.parametrize(
    ("inputs", "lists", "expected"),
    [
        (["list.txt"], {"list.txt": "a 7\nb 3\n"}, [7, 3]),
        (["list.txt"], {"list.txt": "a.png\nb\n"}, [1, 2]),
        (["one.txt", "two.txt"], {"one.txt": "a 7\n", "two.txt": "b 9\n"}, [7, 9]),
        (["one.txt", "two.txt"], {"one.txt": "a 1\n", "two.txt": "b 1\n"}, [1, 2]),  # the same number
        (["list.txt", "deep/c.webp"], {"list.txt": "a 7\nb 3\n"}, [1, 2, 3]),  # a picture that no list names
        (["."], {}, [1, 2, 3]),
    ],
)
def test_the_numbers_of_pictures_are_those_of_the_lists(
    folder: Path, inputs: list[str], lists: dict[str, str], expected: list[int]
) -> None:
    for name, content in lists.items():
        (folder / name).write_text(content)
    assert picture_numbers(inputs, find_images_and_urls(inputs)) == expected
