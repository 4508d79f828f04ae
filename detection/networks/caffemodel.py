"""Loads the public BVLC GoogLeNet from a .caffemodel file, without Caffe.

A .caffemodel is a protobuf message. Only the fields that hold weights are decoded. The schema is caffe.proto
(BVLC/caffe); https://protobuf.dev/programming-guides/encoding describes the wire format.

Reading a file never runs code from it. A damaged file raises a `CaffeModelError` that names the file.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .googlenet import GoogLeNet
from .weights import ModelError, network_with_weights

# Field numbers in caffe.proto.
_NET_LAYER, _NET_V1_LAYER = 100, 2
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_LAYER_NAME, _V1_LAYER_BLOBS = 4, 6
_BLOB_LEGACY_SHAPE = (1, 2, 3, 4)  # num, channels, height, width
_BLOB_DATA, _BLOB_SHAPE = 5, 7
_SHAPE_DIM = 1

# Limits of Caffe.
_MOST_DIMENSIONS, _LARGEST_DIMENSION = 32, 2**31 - 1

# Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Caffe's names of the convolutions in an Inception module -> the names in `Inception`.
_INCEPTION_LAYERS = {
    "1x1": "conv1x1",
    "3x3_reduce": "conv3x3_reduce",
    "3x3": "conv3x3",
    "5x5_reduce": "conv5x5_reduce",
    "5x5": "conv5x5",
    "pool_proj": "pool_projection",
}
# Caffe's names of the other layers with weights -> the names in `GoogLeNet`.
_OTHER_LAYERS = {
    "conv1/7x7_s2": "trunk.conv1.convolution",
    "conv2/3x3_reduce": "trunk.conv2_reduce.convolution",
    "conv2/3x3": "trunk.conv2.convolution",
    "loss3/classifier": "classifier",
    **{f"loss{i}/conv": f"auxiliary.auxiliary{i}.reduce.convolution" for i in (1, 2)},
    **{f"loss{i}/fc": f"auxiliary.auxiliary{i}.hidden" for i in (1, 2)},
    **{f"loss{i}/classifier": f"auxiliary.auxiliary{i}.classifier" for i in (1, 2)},
}


class CaffeModelError(ValueError):
    """The file is not a valid .caffemodel; the message says what is invalid in it."""


def load_caffemodel(path: str | Path) -> GoogLeNet:
    """Load a GoogLeNet from a .caffemodel, such as the public `bvlc_googlenet.caffemodel`.

    Caffe's networks take BGR pixels. The channels of the first convolution are reversed, because `GoogLeNet` takes
    RGB. The network has auxiliary heads if the file has them (the BVLC weights are published with and without).

    Returns:
        The network in evaluation mode, with as many outputs as the classifier in the file.

    Raises:
        ModelError: the file holds another network.
        CaffeModelError: the file is not a valid .caffemodel.
        OSError: the file cannot be read.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for layer, blobs in read_caffemodel(path).items():
        name = _parameter_name(layer)
        if name is None:
            raise ModelError(f"{path}: layer {layer!r:.80} does not belong to the BVLC GoogLeNet")
        if len(blobs) != 2:
            raise ModelError(f"{path}: layer {layer!r} has {len(blobs)} blobs, expected weights and biases")
        if blobs[0].ndim not in (2, 4) or blobs[0].size == 0:
            raise ModelError(
                f"{path}: layer {layer!r} has weights of shape {list(blobs[0].shape)}, expected two or four dimensions "
                "without 0"
            )
        weight, bias = (torch.from_numpy(blob.copy()) for blob in blobs)
        if name == "trunk.conv1.convolution" and weight.dim() == 4:
            weight = weight.flip(1)  # BGR -> RGB
        if weight.dim() == 4 and "convolution" not in name:  # the old format stores matrices as [1, 1, rows, columns]
            if weight.shape[:2] != (1, 1):
                raise ModelError(f"{path}: layer {layer!r} has weights of shape {list(weight.shape)}, not a matrix")
            weight = weight[0, 0]
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = bias.flatten()
    if "classifier.bias" not in tensors:
        raise ModelError(f"{path}: not the BVLC GoogLeNet: layer 'loss3/classifier' is missing")
    auxiliary = "auxiliary.auxiliary1.classifier.bias" in tensors
    outputs = len(tensors["classifier.bias"])
    declared = {"classifier.weight": (outputs, None)}
    return network_with_weights(lambda: GoogLeNet(outputs, auxiliary=auxiliary), tensors, path, declared).eval()


def _parameter_name(layer: str) -> str | None:
    """The name in `GoogLeNet` of the module that holds the weights of a Caffe layer; None for an unknown layer."""
    inception = re.fullmatch(r"(inception_\d[a-e])/(\w+)", layer)
    if inception and inception[2] in _INCEPTION_LAYERS:
        return f"trunk.{inception[1]}.{_INCEPTION_LAYERS[inception[2]]}.convolution"
    return _OTHER_LAYERS.get(layer)


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Read the weights of a .caffemodel, in the current format or in the older format `V1LayerParameter`.

    Returns:
        For each layer that has weights, by the layer's name: a list of float32 arrays, as a rule [weights, biases].

    Raises:
        CaffeModelError: the file is not a valid .caffemodel.
        OSError: the file cannot be read.
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
            if blobs and name in layers:
                raise CaffeModelError(f"two layers have the name {name!r:.80}")
            for blob in blobs:
                if not np.isfinite(blob).all():
                    raise CaffeModelError(f"a weight of layer {name!r:.80} is NaN or infinite; get the file again")
            if blobs:
                layers[name] = blobs
    except CaffeModelError as error:
        raise CaffeModelError(f"{path}: not a valid .caffemodel: {error}") from None
    if not layers:
        raise CaffeModelError(f"{path}: not a .caffemodel: no layer has weights")
    return layers


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """Decode the varint at `position`: its value, and the position after it."""
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
    """Yield the number and the value of each field in a message.

    The value is an int, or the bytes of a nested message, a string or a packed array.
    """
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
            raise CaffeModelError(f"field {number} needs {length} bytes, only {len(buffer) - position} are left")
        yield number, buffer[position : position + length]
        position += length


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise CaffeModelError("found a number, expected a message")
    return value


def _blob(buffer: memoryview) -> np.ndarray:
    """Decode a BlobProto message into a float32 array."""
    data = bytearray()
    shape: list[int] = []
    legacy: dict[int, int] = {}
    for number, value in _fields(buffer):
        if number == _BLOB_DATA:  # one field with all numbers, or one field for each number
            content = _bytes(value)
            if len(content) % 4:
                raise CaffeModelError(f"a blob of float32 numbers has {len(content)} bytes, expected a multiple of 4")
            data += content
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
    values = np.frombuffer(data, dtype="<f4")
    if len(shape) > _MOST_DIMENSIONS or math.prod(shape) != values.size or max(shape, default=0) > _LARGEST_DIMENSION:
        raise CaffeModelError(f"a blob of shape {shape[:_MOST_DIMENSIONS]} holds {values.size} numbers")
    return values.reshape(shape).astype(np.float32)
