"""Where this user's caches lie."""

from pathlib import Path

from platformdirs import user_cache_path


def user_cache(name: str) -> Path:
    """The folder of the cache `name`, which may not exist yet: `~/.cache/inception_rcnn/<name>` on Linux.

    `$XDG_CACHE_HOME` replaces `~/.cache`; macOS and Windows have folders of their own (`platformdirs`). Everything in
    these folders can be deleted at any time.
    """
    return user_cache_path("inception_rcnn", appauthor=False) / name
