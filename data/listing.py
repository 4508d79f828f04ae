"""Finds the picture files that the arguments of a command name: files, folders, lists, patterns and URLs."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ..runtime.remote import is_url, list_remote
from .ilsvrc import LayoutError, listed_pictures, split_folder
from .images import IMAGE_SUFFIXES, UNREADABLE_SUFFIXES


class ListingError(ValueError):
    """The inputs contain no pictures; the message names the expected files and the remedy."""


def find_images(inputs: str | Path | Sequence[str | Path], recursive: bool = False) -> list[Path]:
    """Returns the picture files that one or several inputs name, in order, without duplicates. Opens only lists.

    An input is one of the following:

    - a folder: its files with a suffix of `IMAGE_SUFFIXES` or `UNREADABLE_SUFFIXES`, sorted, without hidden files;
    - a list (`.txt`) with an image id or a path in each line; an index may follow. The pictures of the list
      `ROOT/ImageSets/DET/<split>.txt` are in `ROOT/Data/DET/<split>`. The pictures of another list are in the folder
      of the list or in the working directory;
    - another file with any suffix: returned as it is, so that reading it reports an error if it is not a picture;
    - a pattern (`photos/*.jpg`, `photos/**/*.jpg`) that the shell did not expand: its pictures, sorted.

    Args:
        recursive: include the sub-folders of folders, except hidden sub-folders.

    Raises:
        ListingError: an input does not exist, no picture of a pattern or list exists, or the folders contain no
            pictures.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    found: dict[str, Path] = {}
    problems = []
    for name in inputs:
        path = Path(name)
        if os.path.isdir(path):
            pictures = _folder_pictures(path, recursive)
            if not pictures:
                problems.append(_empty_folder_message(path, recursive))
        elif os.path.exists(path):
            pictures = _list_pictures(path) if path.suffix.lower() == ".txt" else [path]
        elif glob.has_magic(str(name)):
            pictures = _pattern_pictures(str(name))
        else:
            raise ListingError(f"{name}: no such file or folder")
        for picture in pictures:
            found.setdefault(os.path.normcase(os.path.abspath(picture)), picture)
    if not found:
        raise ListingError("no pictures found: " + ("; ".join(problems) or "no files or folders were named"))
    return list(found.values())


def visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Returns the files in a folder that have one of these suffixes, in small letters or capitals, sorted.

    Hidden files are left out: macOS puts "._a.jpg" beside "a.jpg".

    Args:
        suffixes: in lower case. The folder may be missing.
    """
    if not os.path.isdir(folder):
        return []
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in suffixes)


def find_images_and_urls(inputs: Sequence[str], recursive: bool = False) -> list[Path | str]:
    """Returns the picture files and URLs that the inputs name: first the files, then the URLs, without duplicates.

    An input is an input of `find_images`, or the URL of a picture, of a folder or of a pattern (with `*`). The function
    lists folders and patterns; it fetches no pictures.

    Args:
        recursive: include the sub-folders of folders.

    Raises:
        ListingError: see `find_images`; or a remote folder or pattern cannot be listed or contains no pictures.
    """
    urls = [name for name in inputs if is_url(name)]
    files = [name for name in inputs if not is_url(name)]
    remote = dict.fromkeys(picture for url in urls for picture in _url_pictures(url, recursive))
    return [*(find_images(files, recursive) if files or not urls else ()), *remote]


def picture_numbers(inputs: Sequence[str | Path], pictures: Sequence[Path | str]) -> list[int]:
    """Returns the number of each picture, for files that name pictures by number.

    If lists (`.txt`) among the inputs name all pictures, and with distinct indices, these are the numbers. Otherwise
    the pictures are numbered from 1 in their order.

    Args:
        inputs: the arguments of `find_images_and_urls`.
        pictures: what it returned.
    """
    indices: dict[str, int] = {}
    for name in inputs:
        path = Path(name)
        if path.suffix.lower() == ".txt" and os.path.isfile(path):
            for index, picture in _list_entries(path):
                indices.setdefault(os.path.abspath(picture), index)
    numbers = [indices.get(os.path.abspath(picture)) for picture in pictures]
    listed = [number for number in numbers if number is not None]
    return listed if len(set(listed)) == len(pictures) else list(range(1, len(pictures) + 1))


def _url_pictures(url: str, recursive: bool) -> list[str]:
    try:
        found = list_remote(url, recursive)
    except Exception as error:  # each protocol has its own types of errors
        raise ListingError(f"{url}: cannot be listed: {error or type(error).__name__}") from error
    if found == [url]:
        return found
    pictures = [name for name in found if _has_picture_suffix(name) and not name.rpartition("/")[2].startswith(".")]
    if not pictures:
        remedy = "" if recursive else "; --recursive includes its sub-folders"
        raise ListingError(f"{url}: contains no files with a picture suffix ({_suffixes()}){remedy}")
    return pictures


def _folder_pictures(folder: Path, recursive: bool) -> list[Path]:
    try:
        return list(_walk(folder, recursive))
    except OSError as error:
        raise ListingError(f"{error.filename}: cannot read this folder: {error.strerror}") from error


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        # Links to folders are not followed, because they may form a cycle.
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _walk(folder / entry.name, recursive)
        elif _has_picture_suffix(entry.name) and not entry.is_dir():
            yield folder / entry.name


def _list_pictures(path: Path) -> list[Path]:
    return [picture for _, picture in _list_entries(path)]


def _list_entries(path: Path) -> list[tuple[int, Path]]:
    """Returns the index and the path of each picture in a list."""
    absolute = path.absolute()
    in_layout = absolute.parent.name == "DET" and absolute.parent.parent.name == "ImageSets"
    folders = [split_folder(absolute.parents[2], "Data", path.stem)] if in_layout else [path.parent, Path()]
    try:
        entries = [listed_pictures(path, folder, folders) for folder in folders]
    except LayoutError as error:
        raise ListingError(str(error)) from error
    candidates = [[picture for _, _, picture in of_folder] for of_folder in entries]
    if not candidates[0]:
        raise ListingError(f"{path}: the list is empty; expected an image id or a path on each line")
    pictures = [next(filter(os.path.exists, paths), paths[0]) for paths in zip(*candidates, strict=True)]
    if any(map(os.path.exists, pictures)):
        # including missing files, so that the command reports them
        return [(index, picture) for (_, index, _), picture in zip(entries[0], pictures, strict=True)]
    expected = " or ".join(str(pictures[0]) for pictures in candidates)
    remedy = "" if in_layout else "; an ILSVRC list must be in ROOT/ImageSets/DET, with its pictures in ROOT/Data/DET"
    raise ListingError(
        f"{path}: none of its {len(candidates[0])} pictures exists; expected the first picture at {expected}{remedy}"
    )


def _pattern_pictures(pattern: str) -> list[Path]:
    matches = sorted(glob.glob(pattern, recursive=True))
    pictures = [Path(match) for match in matches if _has_picture_suffix(match) and not os.path.isdir(match)]
    if not pictures and matches:
        raise ListingError(f"{pattern}: matches {len(matches)} files or folders, but no picture ({_suffixes()})")
    if not pictures:
        raise ListingError(f"{pattern}: no file matches this pattern")
    return pictures


def _empty_folder_message(folder: Path, recursive: bool) -> str:
    if not recursive and (deeper := _folder_pictures(folder, recursive=True)):
        return f"folder {folder} contains {len(deeper)} pictures in sub-folders: use --recursive"
    return f"folder {folder} contains no files with a picture suffix ({_suffixes()})"


def _has_picture_suffix(name: str) -> bool:
    """Whether a file is listed as a picture. Pictures that cannot be read are listed too, so that their failure is."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES | UNREADABLE_SUFFIXES


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
