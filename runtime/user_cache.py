"""The cache folders of the user."""

from pathlib import Path

from platformdirs import user_cache_path


def user_cache(name: str) -> Path:
    """Returns the folder of the cache `name`; the folder may not exist yet.

    The folder is `~/.cache/inception_rcnn/<name>` on Linux, where the environment variable XDG_CACHE_HOME replaces
    `~/.cache`. `platformdirs` chooses the folder on macOS and Windows. Users may delete the folder at any time.
    """
    return user_cache_path("inception_rcnn", appauthor=False) / name
