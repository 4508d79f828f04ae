"""Files behind URLs are read and listed: in fsspec's memory file system, and on a web server."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inception_rcnn.runtime.remote import is_url, list_remote, read_remote


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s3://bucket/a.jpg", True),
        ("file:///a.jpg", True),
        ("a.jpg", False),
        ("C:/a.jpg", False),
        ("a/b://c", False),
        (Path("s3://bucket/a.jpg"), False),
    ],
)
def test_urls_begin_with_a_protocol(name: str | Path, expected: bool) -> None:
    assert is_url(name) is expected


def test_the_content_of_a_url_is_read(bucket: str, tmp_path: Path) -> None:
    assert read_remote(f"{bucket}/notes.txt") == b"\0\0"
    (tmp_path / "a.txt").write_bytes(b"local")
    assert read_remote((tmp_path / "a.txt").as_uri()) == b"local"


def test_missing_files_and_unknown_protocols_are_errors(bucket: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_remote(f"{bucket}/nowhere.png")
    with pytest.raises(ValueError, match="gopher"):
        read_remote("gopher://host/a.png")


def test_folders_are_listed(bucket: str) -> None:
    names = [".hidden.png", "a.JPG", "b.png", "notes.txt", "red.png"]
    assert list_remote(bucket) == [f"memory:///bucket/{name}" for name in names]
    names.insert(3, "deep/c.png")
    assert list_remote(bucket, recursive=True) == [f"memory:///bucket/{name}" for name in names]


def test_patterns_are_expanded_and_other_urls_are_returned_unchecked(bucket: str) -> None:
    assert list_remote(f"{bucket}/*e*.png") == ["memory:///bucket/.hidden.png", "memory:///bucket/red.png"]
    assert list_remote(f"{bucket}/nowhere.png") == [f"{bucket}/nowhere.png"]


@pytest.fixture
def web_server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "a.txt").write_bytes(b"text")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_files_are_read_over_http(web_server: str) -> None:
    pytest.importorskip("aiohttp", reason="fsspec requires aiohttp for http://")
    assert read_remote(f"{web_server}/a.txt") == b"text"
    with pytest.raises(FileNotFoundError):
        read_remote(f"{web_server}/b.txt")
