"""Pictures behind URLs: in fsspec's memory file system, and on a web server of the test's own."""

import functools
import http.server
import threading

import fsspec
import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.images import ImageError, read_image
from inception_rcnn.data.listing import ListingError, find_images_and_urls
from inception_rcnn.runtime.remote import is_url


@pytest.fixture
def bucket():
    files = fsspec.filesystem("memory")
    for number, name in enumerate(["b.png", "a.JPG", "notes.txt", ".hidden.png", "deep/c.png"]):
        files.pipe(f"/bucket/{name}", bytes(number))
    with files.open("/bucket/red.png", "wb") as stream:
        Image.new("RGB", (3, 2), (255, 0, 0)).save(stream, "PNG")
    yield "memory://bucket"
    files.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("s3://bucket/a.jpg", True), ("file:///a.jpg", True), ("a.jpg", False), ("C://a.jpg", False), ("a/b://c", False)],
)
def test_what_an_url_is(name, expected):
    assert is_url(name) is expected


def test_a_picture_behind_an_url_is_read_as_from_a_file(bucket, tmp_path):
    np.testing.assert_array_equal(read_image(f"{bucket}/red.png"), np.full((2, 3, 3), (255, 0, 0)))
    Image.new("L", (4, 5), 7).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image((tmp_path / "grey.png").as_uri()), read_image(tmp_path / "grey.png"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/nowhere.png", "No such file"),
        ("/b.png", "0 bytes"),
        ("/a.JPG", "not a JPEG"),
        ("/red.png", "more than the limit"),
    ],
)
def test_what_cannot_be_read_is_an_image_error_with_the_url(bucket, name, reason):
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(bucket + name, max_pixels=5)
    assert caught.value.path == bucket + name


def test_an_unknown_protocol_is_an_image_error():
    with pytest.raises(ImageError, match="cannot be fetched"):
        read_image("gopher://host/a.png")


def test_folders_and_patterns_behind_urls_are_looked_into(bucket):
    assert find_images_and_urls([bucket]) == [f"memory:///bucket/{name}" for name in ("a.JPG", "b.png", "red.png")]
    assert "memory:///bucket/deep/c.png" in find_images_and_urls([bucket], recursive=True)
    assert find_images_and_urls([f"{bucket}/*e*.png"]) == ["memory:///bucket/red.png"]


def test_files_come_first_and_each_url_once(bucket, tmp_path):
    (tmp_path / "x.png").touch()
    urls = [f"{bucket}/missing.png", f"{bucket}/b.png"]
    assert find_images_and_urls([*urls, str(tmp_path), urls[0]]) == [tmp_path / "x.png", *urls]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory://bucket/deep/", "holds no files"),
        ("memory://bucket/*.gif", "holds no files"),
        ("gopher://a/", "listed"),
    ],
)
def test_nothing_found_behind_an_url_is_said(bucket, url, message):
    fsspec.filesystem("memory").rm("/bucket/deep/c.png")
    with pytest.raises(ListingError, match=message):
        find_images_and_urls([url])


def test_no_inputs_are_an_error():
    with pytest.raises(ListingError, match="no pictures"):
        find_images_and_urls([])


def test_pictures_are_read_over_http(tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec reads http:// with aiohttp")
    Image.new("RGB", (3, 2), (0, 255, 0)).save(tmp_path / "green.png")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert read_image(f"{url}/green.png").shape == (2, 3, 3)
            with pytest.raises(ImageError, match="No such file"):
                read_image(f"{url}/red.png")
        finally:
            server.shutdown()
