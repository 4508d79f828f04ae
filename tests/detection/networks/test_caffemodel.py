"""Reading .caffemodel files: files written here byte by byte, and the public BVLC weights."""

import struct

import cv2
import numpy as np
import pytest
import torch

from inception_rcnn import GoogLeNet
from inception_rcnn.detection.engines.engine import Engine
from inception_rcnn.detection.networks.caffemodel import CaffeModelError, load_caffemodel, read_caffemodel
from inception_rcnn.detection.networks.weights import ModelError


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
def test_the_current_format_gives_weights_by_layer(tmp_path, packed):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(network(packed=packed))
    layers = read_caffemodel(file)
    assert list(layers) == ["conv"]
    np.testing.assert_array_equal(layers["conv"][0], WEIGHTS)
    np.testing.assert_array_equal(layers["conv"][1], BIAS)


def test_the_old_format_with_shapes_of_four_sizes_is_read_too(tmp_path):
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


def test_a_blob_whose_bytes_are_not_whole_numbers_is_an_error(tmp_path):
    file = tmp_path / "odd.caffemodel"
    file.write_bytes(field(100, field(1, b"conv") + field(7, field(5, b"12345"))))
    with pytest.raises(CaffeModelError, match=r"odd\.caffemodel.* has 5 bytes, expected a multiple of 4"):
        read_caffemodel(file)


# The public BVLC weights


@pytest.fixture(scope="module")
def bvlc(shared) -> GoogLeNet:
    return load_caffemodel(shared / "weights" / "bvlc_googlenet.caffemodel")


@pytest.mark.slow
def test_the_loaded_network_gives_the_probabilities_of_opencvs_caffe_importer(bvlc):
    from skimage.data import chelsea

    image = cv2.resize(chelsea(), (224, 224), interpolation=cv2.INTER_LINEAR)
    expected = {285: 0.506, 282: 0.297, 281: 0.170, 287: 0.026}  # Egyptian cat, tiger cat, tabby, lynx
    with torch.no_grad():
        exact = torch.softmax(bvlc(torch.from_numpy(image).permute(2, 0, 1)[None].float()), 1)[0].numpy()
    fast = Engine(bvlc)(image[None])[0]
    for column, probability in expected.items():
        assert exact[column] == pytest.approx(probability, abs=0.001)
        assert fast[column] == pytest.approx(probability, abs=0.01)


@pytest.mark.slow
def test_the_loaded_network_has_the_published_accuracy_on_imagenet(bvlc, shared):
    classes = [line.split()[0] for line in (shared / "weights" / "synset_words.txt").read_text().splitlines()]
    files = sorted((shared / "data" / "imagenet-samples").glob("*.JPEG"))
    assert len(files) == 400
    crops = np.stack(
        [cv2.resize(cv2.imread(str(file))[..., ::-1], (256, 256), interpolation=cv2.INTER_LINEAR) for file in files]
    )[:, 16:240, 16:240]
    ranked = Engine(bvlc)(np.ascontiguousarray(crops)).argsort(axis=1)[:, ::-1]
    truth = np.array([classes.index(file.name.split("_")[0]) for file in files])
    assert (ranked[:, 0] == truth).mean() == pytest.approx(0.7875, abs=0.01)
    assert (ranked[:, :5] == truth[:, None]).any(axis=1).mean() == pytest.approx(0.945, abs=0.01)


def test_a_caffemodel_of_another_network_is_refused(tmp_path, shared):
    content = (shared / "weights" / "bvlc_googlenet.caffemodel").read_bytes()
    file = tmp_path / "other.caffemodel"
    file.write_bytes(content.replace(b"inception_3a/1x1", b"inception_9z/1x1"))
    with pytest.raises(ModelError, match="inception_9z/1x1"):
        load_caffemodel(file)


def layer(name: str, *blobs: bytes) -> bytes:
    return field(100, field(1, name.encode()) + b"".join(field(7, content) for content in blobs))


def shaped(dimensions: list[int], values: np.ndarray) -> bytes:
    """A blob whose shape need not be that of its values."""
    return field(7, field(1, b"".join(map(varint, dimensions)))) + field(5, values.astype("<f4").tobytes())


TWO = np.array([1.0, 2.0])


@pytest.mark.parametrize(
    "content",
    [
        layer("x", shaped([2**32, 2**32], TWO[:0])),
        layer("x", shaped([0, 2**40], TWO[:0])),
        layer("x", shaped([1] * 100 + [2], TWO)),
        layer("x", shaped([2], np.array([1, np.nan]))),
        layer("x", shaped([2], np.array([1, np.inf]))),
        layer("x", shaped([2], TWO)) * 2,
        layer("x" * 100_000, shaped([3], TWO)),
    ],
    ids=["2^64 numbers", "2^40 empty rows", "100 dimensions", "NaN", "infinity", "two of one name", "a long name"],
)
def test_weights_that_cannot_be_are_an_error_that_names_the_file(tmp_path, content):
    file = tmp_path / "wrong.caffemodel"
    file.write_bytes(content)
    with pytest.raises(CaffeModelError, match=r"wrong\.caffemodel") as error:
        read_caffemodel(file)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "content",
    [
        layer("conv1/7x7_s2", shaped([2], TWO), shaped([2], TWO)),
        layer("conv1/7x7_s2", shaped([2, 1], TWO), shaped([2], TWO)),
        layer("loss3/classifier", shaped([0, 1, 4, 5], TWO[:0]), shaped([2], TWO)),
        layer("loss3/classifier", shaped([2, 1, 1, 1], TWO), shaped([2], TWO)),
        layer("loss3/classifier", shaped([2, 1], TWO), shaped([2], TWO)),
        layer("loss3/classifier", shaped([2, 1], TWO)),
        layer("x" * 100_000, shaped([2], TWO)),
    ],
    ids=[
        "one dimension",
        "two dimensions",
        "no rows",
        "no matrix",
        "other layers are missing",
        "no bias",
        "a long name",
    ],
)
def test_layers_of_another_shape_are_an_error_that_names_the_file(tmp_path, content):
    file = tmp_path / "wrong.caffemodel"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"wrong\.caffemodel") as error:
        load_caffemodel(file)
    assert len(str(error.value)) < 800
