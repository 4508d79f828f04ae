"""Compiled networks on disk: a network is compiled once for a machine, and later processes load what came of it.

Compiled files lie in `~/.cache/inception_rcnn/networks` (`$XDG_CACHE_HOME` in place of `~/.cache` where it is set), and
can be deleted at any time. A file's name is a hash of all that went into it. A file that is damaged is deleted and made
anew; a folder that cannot be written means that nothing is kept.
"""

import hashlib
import inspect
import os
import tempfile
from pathlib import Path

from torch import nn

# Of 24 MB each in bfloat16; the least recently used ones go.
_MOST_FILES = 40


def cache_folder() -> Path:
    """Where this user's compiled networks lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inception_rcnn" / "networks"


def cache_key(network: nn.Module, *facts: object) -> str:
    """A name for what comes of compiling `network`: other weights, layers, code or `facts` have another.

    Args:
        network: its classes' source, its layers as printed, parameters and buffers go into the key.
        facts: what else decides the result: versions, machine, batch size, precision; by their `repr`.
    """
    digest = hashlib.sha256(repr((facts, repr(network))).encode())
    package = Path(__file__).parents[2]
    for file in sorted({inspect.getfile(type(module)) for module in network.modules()}):
        if package in Path(file).parents:  # libraries are known by their version, which is for `facts`
            digest.update(Path(file).read_bytes())
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_compiled(key: str) -> bytes | None:
    """What `store_compiled` kept under `key`; None if there is nothing, or it is damaged."""
    file = cache_folder() / key
    try:
        content = file.read_bytes()
        # Asked of us, since OpenVINO takes a file with wrong bytes in its middle for good and computes nonsense.
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            file.unlink()
            return None
        os.utime(file)
    except OSError:
        return None
    return content[32:]


def store_compiled(key: str, compiled: bytes) -> None:
    """Keep `compiled` under `key`; does nothing where the folder cannot be written."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(compiled).digest() + compiled)
            os.replace(temporary, folder / key)
        except OSError:
            os.unlink(temporary)
            raise
        by_age = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for stale in by_age[:-_MOST_FILES]:
            stale.unlink()
    except OSError:
        return


def forget_compiled(key: str) -> None:
    """Delete what is kept under `key`."""
    (cache_folder() / key).unlink(missing_ok=True)
