import struct

import numpy as np
import pytest

from inception_rcnn.detection.networks.caffemodel import CaffeModelError, read_caffemodel


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def blob(array: np.ndarray, *, legacy: bool = False, packed: bool = True) -> bytes:
    values = array.astype("<f4")
    if legacy:
        sizes = (1,) * (4 - array.ndim) + array.shape
        shape = b"".join(number_field(n, size) for n, size in enumerate(sizes, 1))
    else:
        shape = field(7, field(1, b"".join(varint(size) for size in array.shape)))
    if packed:
        return shape + field(5, values.tobytes())
    return shape + b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in values.ravel())


WEIGHTS = np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1) - 11.5
BIAS = np.array([0.25, -1.0, 3.0, 4.0], np.float32)


def network(*, v1: bool = False, **options: bool) -> bytes:
    name, blobs, layer = (4, 6, 2) if v1 else (1, 7, 100)
    first = field(name, b"conv") + field(blobs, blob(WEIGHTS, **options)) + field(blobs, blob(BIAS, **options))
    without_weights = field(name, b"relu")
    return field(1, b"net") + number_field(999, 7) + field(layer, first) + field(layer, without_weights)


@pytest.mark.parametrize("packed", [True, False])
def test_current_format_gives_weights_by_layer(tmp_path, packed):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(network(packed=packed))
    layers = read_caffemodel(file)
    assert list(layers) == ["conv"]
    np.testing.assert_array_equal(layers["conv"][0], WEIGHTS)
    np.testing.assert_array_equal(layers["conv"][1], BIAS)


def test_old_layer_format_with_four_sizes_is_read_too(tmp_path):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(network(v1=True, legacy=True))
    weights, bias = read_caffemodel(file)["conv"]
    np.testing.assert_array_equal(weights, WEIGHTS)
    np.testing.assert_array_equal(bias, BIAS.reshape(1, 1, 1, 4))


def test_a_file_cut_at_any_byte_is_an_error_that_names_it(tmp_path):
    whole = network()
    relu = len(field(100, field(1, b"relu")))
    file = tmp_path / "cut.caffemodel"
    for length in range(len(whole) - relu):
        file.write_bytes(whole[:length])
        with pytest.raises(CaffeModelError, match="cut"):
            read_caffemodel(file)


def test_random_bytes_are_an_error_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "noise.caffemodel"
    for size in (0, 1, 10, 1000):
        for _ in range(50):
            file.write_bytes(rng.bytes(size))
            with pytest.raises(CaffeModelError, match="noise"):
                read_caffemodel(file)


def test_a_blob_whose_shape_contradicts_its_data_is_an_error(tmp_path):
    wrong = field(7, field(1, varint(5))) + field(5, BIAS.astype("<f4").tobytes())
    file = tmp_path / "wrong.caffemodel"
    file.write_bytes(field(100, field(1, b"conv") + field(7, wrong)))
    with pytest.raises(CaffeModelError, match=r"shape \[5\] holds 4"):
        read_caffemodel(file)
