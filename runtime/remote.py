"""Pictures that lie elsewhere: URLs of whatever fsspec reads (https://, s3://, gs://, hdfs://, file:// ...).

fsspec comes with torch; most protocols want a package of their own (s3fs, gcsfs, aiohttp ...), which errors name.
"""

import re
from pathlib import Path

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")


def is_url(name: str | Path) -> bool:
    """Whether a name is an URL. A `Path` never is: it would have made one slash of the two."""
    return isinstance(name, str) and _URL.match(name) is not None


def read_remote(url: str) -> bytes:
    """The content behind an URL.

    Raises:
        OSError: it is not there or cannot be had; FileNotFoundError in the first case.
        ImportError, ValueError: the protocol wants a package that is not installed, or is unknown.
    """
    import fsspec

    with fsspec.open(url, "rb") as stream:
        return stream.read()


def list_remote(url: str, recursive: bool = False) -> list[str]:
    """The URLs that one stands for, sorted: those that match a pattern (with `*`), or the files of a folder.

    Any other URL stands for itself, and nobody asks whether it is there. Over HTTP, which knows no folders, only an
    URL with a slash at its end is taken for one.

    Args:
        recursive: the files in the folders of a folder too.

    Raises:
        OSError, ImportError, ValueError: as `read_remote`.
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
