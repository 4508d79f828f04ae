"""The cache of compiled networks: a network is compiled once on a machine, and later processes load the result.

The files lie in `user_cache("networks")`. A file's name is a hash of everything that the compiled network depends on.
The first 32 bytes of a file are a hash of the rest. Damaged files are deleted, and their networks are compiled again.
If the folder cannot be written, nothing is cached.
"""

import hashlib
import inspect
import os
import time
from pathlib import Path

from torch import nn

from ...runtime.atomic_write import atomic_write
from ...runtime.user_cache import user_cache

# A GoogLeNet takes 24 MB in bfloat16. The least recently used files are deleted.
_MAX_FILES = 40

# Writing a network takes seconds: an older partial file was left by a killed process.
_PARTIAL_FILE_SECONDS = 3600


def cache_key(network: nn.Module, *facts: object) -> str:
    """Name of a compiled network in the cache.

    Args:
        network: the source files of its classes, its printed layers, its parameters and its buffers enter the key.
        facts: everything else that decides the result, such as versions, machine, batch size and precision. Their
            `repr` enters the key.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((facts, repr(network))).encode())
    package = Path(__file__).parents[2]
    for file in sorted({inspect.getfile(type(module)) for module in network.modules()}):
        if package in Path(file).parents:  # for files of libraries, `facts` contains the library's version
            digest.update(Path(file).read_bytes())
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_compiled(key: str) -> bytes | None:
    """The compiled network that `store_compiled` stored under `key`; None if there is none or its file is damaged."""
    file = user_cache("networks") / key
    try:
        content = file.read_bytes()
        # OpenVINO loads a file with wrong bytes in its middle without an error and computes nonsense with it.
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            file.unlink()
            return None
        os.utime(file)  # now the most recently used file
    except OSError:
        return None
    return content[32:]


def store_compiled(key: str, compiled: bytes) -> None:
    """Store a compiled network under `key`, unless the folder cannot be written."""
    file = user_cache("networks") / key
    try:
        with atomic_write(file, shared=True) as partial:
            partial.write_bytes(hashlib.sha256(compiled).digest() + compiled)
        _delete_old_files(file.parent)
    except OSError:
        return


def _delete_old_files(folder: Path) -> None:
    """Keep the `_MAX_FILES` most recently used networks. Delete partial files that killed processes left."""
    networks = []
    for path in folder.iterdir():
        used = path.stat().st_mtime
        if path.suffix != ".partial":
            networks.append((used, path))
        elif time.time() - used > _PARTIAL_FILE_SECONDS:
            path.unlink()
    for _, path in sorted(networks)[:-_MAX_FILES]:
        path.unlink()


def forget_compiled(key: str) -> None:
    """Delete the compiled network that is stored under `key`, if there is one."""
    (user_cache("networks") / key).unlink(missing_ok=True)
