"""Reading weights from a .caffemodel: the few fields of Caffe's protobuf schema that hold them, and no Caffe.

The schema is caffe.proto (BVLC/caffe); protobuf's wire format is https://protobuf.dev/programming-guides/encoding.
A file is data and nothing else: whatever it holds, reading it runs no code, and a damaged one gives a
`CaffeModelError` that names the file and the byte.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

# Field numbers of caffe.proto.
_NET_LAYER, _NET_V1_LAYER = 100, 2
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_LAYER_NAME, _V1_LAYER_BLOBS = 4, 6
_BLOB_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_BLOB_DATA, _BLOB_SHAPE = 5, 7
_SHAPE_DIM = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class CaffeModelError(ValueError):
    """The file is not a readable .caffemodel; the message says where it stops making sense."""


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(buffer) or shift > 63:
            raise CaffeModelError(f"broken varint at byte {position}")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _fields(buffer: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value (an int, or the bytes of a nested message, string or packed array) of a message."""
    position = 0
    while position < len(buffer):
        key, position = _varint(buffer, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(buffer, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _varint(buffer, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise CaffeModelError(f"unknown wire type {kind} at byte {position}")
        if position + length > len(buffer):
            raise CaffeModelError(f"field {number} wants {length} bytes at byte {position}, {len(buffer)} are there")
        yield number, buffer[position : position + length]
        position += length


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise CaffeModelError("a number where a message was expected")
    return value


def _blob(buffer: memoryview) -> np.ndarray:
    data: list[np.ndarray] = []
    shape: list[int] = []
    legacy: dict[int, int] = {}
    for number, value in _fields(buffer):
        if number == _BLOB_DATA:  # packed, or one field a number
            data.append(np.frombuffer(_bytes(value), dtype="<f4"))
        elif number == _BLOB_SHAPE:
            for inner, dims in _fields(_bytes(value)):
                if inner != _SHAPE_DIM:
                    continue
                if isinstance(dims, int):
                    shape.append(dims)
                    continue
                position = 0
                while position < len(dims):
                    dim, position = _varint(dims, position)
                    shape.append(dim)
        elif number in _BLOB_LEGACY_SHAPE and isinstance(value, int):
            legacy[number] = value
    if not shape and legacy:
        shape = [legacy.get(number, 1) for number in _BLOB_LEGACY_SHAPE]
    values = np.concatenate(data) if data else np.zeros(0, np.float32)
    if int(np.prod(shape)) != values.size:
        raise CaffeModelError(f"a blob of shape {shape} holds {values.size} numbers")
    return values.reshape(shape).astype(np.float32)


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """The blobs of each layer that has any: layer name -> [weights, biases, ...], float32.

    Reads the current format and the older `V1LayerParameter` one.

    Raises:
        CaffeModelError: the file is damaged or is no caffemodel.
    """
    path = Path(path)
    layers: dict[str, list[np.ndarray]] = {}
    try:
        for number, value in _fields(memoryview(path.read_bytes())):
            if number not in (_NET_LAYER, _NET_V1_LAYER):
                continue
            name_field, blobs_field = (
                (_LAYER_NAME, _LAYER_BLOBS) if number == _NET_LAYER else (_V1_LAYER_NAME, _V1_LAYER_BLOBS)
            )
            name, blobs = "", []
            for inner, content in _fields(_bytes(value)):
                if inner == name_field:
                    name = bytes(_bytes(content)).decode("utf-8", "replace")
                elif inner == blobs_field:
                    blobs.append(_blob(_bytes(content)))
            if blobs:
                layers[name] = blobs
    except CaffeModelError as error:
        raise CaffeModelError(f"{path}: not a readable .caffemodel: {error}") from None
    if not layers:
        raise CaffeModelError(f"{path}: not a .caffemodel: no layer with weights in it")
    return layers
