"""What people name on the command line to the picture files that they mean."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..runtime.remote import is_url, list_remote
from .ilsvrc import LayoutError, listed_pictures, split_folder
from .images import IMAGE_SUFFIXES


class ListingError(ValueError):
    """Inputs in which there are no pictures; the message says what was looked for and what to do."""


def find_images(inputs: str | Path | Sequence[str | Path], recursive: bool = False) -> list[Path]:
    """The picture files that the inputs (or the one input) name, in order, each once. No file is opened, except lists.

    An input is one of these:

    - a folder: the files in it with a suffix of ``IMAGE_SUFFIXES``, sorted, without hidden ones;
    - a list (``.txt``): an image id or a path per line, with or without an index behind it. The pictures of the list
      ``ROOT/ImageSets/DET/<split>.txt`` lie in ``ROOT/Data/DET/<split>``, those of any other list in the list's own
      folder, or else in the working folder;
    - any other file: itself, whatever its suffix, so that whoever reads it can say what is wrong with it;
    - a pattern (``photos/*.jpg``, ``photos/**/*.jpg``) that the shell has left as it is: its pictures, sorted.

    Args:
        recursive: look into the sub-folders of folders too, except hidden ones.

    Raises:
        ListingError: an input that does not exist, a pattern or list none of whose pictures exists, or no picture in
            any of the folders.
    """
    if isinstance(inputs, str | Path):
        inputs = [inputs]
    found: dict[str, Path] = {}
    problems = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            pictures = _in_folder(path, recursive)
            if not pictures:
                problems.append(_nothing_in(path, recursive))
        elif path.exists():
            pictures = _in_list(path) if path.suffix.lower() == ".txt" else [path]
        elif glob.has_magic(str(name)):
            pictures = _matching(str(name))
        else:
            raise ListingError(f"{name}: no such file or folder")
        for picture in pictures:
            found.setdefault(os.path.normcase(os.path.abspath(picture)), picture)
    if not found:
        raise ListingError("no pictures found: " + ("; ".join(problems) or "no files or folders were named"))
    return list(found.values())


def find_images_and_urls(inputs: Sequence[str], recursive: bool = False) -> list[Path | str]:
    """As `find_images`, where an input may be an URL too: of a picture, of a folder, or a pattern (with ``*``).

    Files come first, then URLs, each in order and once. Nothing is fetched, only folders and patterns are looked into.

    Raises:
        ListingError: as `find_images`; or a folder or pattern behind an URL without pictures, or that cannot be listed.
    """
    urls = [name for name in inputs if is_url(name)]
    files = [name for name in inputs if not is_url(name)]
    remote = dict.fromkeys(picture for url in urls for picture in _behind_url(url, recursive))
    return [*(find_images(files, recursive) if files or not urls else ()), *remote]


def _behind_url(url: str, recursive: bool) -> list[str]:
    try:
        found = list_remote(url, recursive)
    except Exception as error:  # every protocol has errors of its own
        raise ListingError(f"{url}: cannot be listed: {error or type(error).__name__}") from error
    if found == [url]:
        return found
    pictures = [name for name in found if _has_picture_suffix(name) and not name.rpartition("/")[2].startswith(".")]
    if not pictures:
        remedy = "" if recursive else "; --recursive looks into its folders too"
        raise ListingError(f"{url}: holds no files with a suffix of pictures ({_suffixes()}){remedy}")
    return pictures


def _in_folder(folder: Path, recursive: bool) -> list[Path]:
    try:
        return list(_walk(folder, recursive))
    except OSError as error:
        raise ListingError(f"{error.filename}: cannot look into this folder: {error.strerror}") from error


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    with os.scandir(folder) as scan:
        entries = sorted((entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in entries:
        # A link to a folder may lead in a circle.
        if entry.is_dir(follow_symlinks=False):
            if recursive:
                yield from _walk(folder / entry.name, recursive)
        elif _has_picture_suffix(entry.name) and not entry.is_dir():
            yield folder / entry.name


def _in_list(path: Path) -> list[Path]:
    whole = path.absolute()
    in_layout = whole.parent.name == "DET" and whole.parent.parent.name == "ImageSets"
    folders = [split_folder(whole.parents[2], "Data", path.stem)] if in_layout else [path.parent, Path()]
    try:
        candidates = [listed_pictures(path, folder) for folder in folders]
    except LayoutError as error:
        raise ListingError(str(error)) from error
    if not candidates[0]:
        raise ListingError(f"{path}: the list is empty; expected an image id or a path on each line")
    pictures = [next((path for path in paths if path.exists()), paths[0]) for paths in zip(*candidates, strict=True)]
    if any(picture.exists() for picture in pictures):
        return pictures  # the missing ones too: they are to be reported, not passed over
    expected = " or ".join(str(pictures[0]) for pictures in candidates)
    remedy = "" if in_layout else "; an ILSVRC list belongs in ROOT/ImageSets/DET, beside ROOT/Data/DET"
    raise ListingError(
        f"{path}: none of its {len(candidates[0])} pictures exists; expected the first at {expected}{remedy}"
    )


def _matching(pattern: str) -> list[Path]:
    matches = sorted(glob.glob(pattern, recursive=True))
    pictures = [Path(match) for match in matches if _has_picture_suffix(match) and not os.path.isdir(match)]
    if not pictures and matches:
        raise ListingError(f"{pattern}: matches {len(matches)} files or folders, but no picture ({_suffixes()})")
    if not pictures:
        raise ListingError(f"{pattern}: nothing matches this pattern")
    return pictures


def _nothing_in(folder: Path, recursive: bool) -> str:
    if not recursive and (deeper := _in_folder(folder, recursive=True)):
        return f"folder {folder} holds {len(deeper)} pictures in sub-folders: use --recursive"
    return f"folder {folder} holds no files with a suffix of pictures ({_suffixes()})"


def _has_picture_suffix(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))
