"""Reads and lists files behind URLs with fsspec (https://, s3://, gs://, hdfs://, file:// ...).

fsspec is a dependency of torch. Most protocols need another package (s3fs, gcsfs, aiohttp ...), which fsspec's error
messages name.
"""

import re
from pathlib import Path

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_url(name: str | Path) -> bool:
    """Whether a name is a URL. A `Path` is never a URL, because it merges double slashes."""
    return isinstance(name, str) and _URL.match(name) is not None


def read_remote(url: str) -> bytes:
    """Returns the content of the file behind a URL.

    Raises:
        FileNotFoundError: the file does not exist.
        OSError: the file cannot be fetched.
        ImportError: the protocol needs a package that is not installed.
        ValueError: the protocol is unknown.
    """
    import fsspec

    with fsspec.open(url, "rb") as stream:
        return stream.read()


def list_remote(url: str, recursive: bool = False) -> list[str]:
    """Returns the sorted URLs of the files that match a pattern (with `*`) or are in a folder.

    Any other URL is returned as it is, without a check that the file exists. HTTP has no folders, so an HTTP URL counts
    as a folder only if it ends with a slash.

    Args:
        recursive: include the files in sub-folders.

    Raises:
        OSError, ImportError, ValueError: see `read_remote`.
    """
    import fsspec

    files, path = fsspec.core.url_to_fs(url)
    if "*" in url:
        found = files.glob(path)
    elif url.endswith("/") or (not url.startswith("http") and files.isdir(path)):
        found = files.find(path, maxdepth=None if recursive else 1)
    else:
        return [url]
    return sorted(files.unstrip_protocol(name) for name in found)
