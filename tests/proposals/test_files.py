"""Files of proposals: boxes survive a round trip, images are found by their paths, malformed files are rejected."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_rcnn.proposals.files import (
    ProposalFileError,
    ProposalWriter,
    names_below_common_folder,
    read_proposals,
)
from inception_rcnn.proposals.proposals import Proposals, Source

SETTINGS = {"method": "mine", "superpixel_scale": 2.0, "note": "Größe"}


def random_proposals(count: int, seed: int = 0) -> Proposals:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 300, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(1, 200, (count, 2))])
    return Proposals(boxes.astype(np.float32), np.sort(rng.random(count).astype(np.float32))[::-1].copy())


def write(file: Path, names: list[str], count: int = 3) -> None:
    with ProposalWriter(file, SETTINGS) as writer:
        for seed, name in enumerate(names):
            writer.add(name, 500, 375, random_proposals(count, seed))


def assert_same(read: Proposals | None, written: Proposals) -> None:
    assert read is not None
    assert (read.boxes.dtype, read.scores.dtype) == (np.float32, np.float32)
    assert np.array_equal(read.boxes, written.boxes)
    assert np.array_equal(read.scores, written.scores)
    assert np.array_equal(read.source, written.source)


def test_the_source_of_each_box_survives_the_round_trip(tmp_path: Path) -> None:
    mixed = random_proposals(4)
    source = np.array([Source.SELECTIVE_SEARCH, Source.MULTIBOX, Source.MULTIBOX, Source.SELECTIVE_SEARCH], np.uint8)
    mixed = Proposals(mixed.boxes, mixed.scores, source)
    with ProposalWriter(tmp_path / "p.npz", SETTINGS) as writer:
        writer.add("a.jpg", 500, 375, mixed)
    with read_proposals(tmp_path / "p.npz") as file:
        assert_same(file.find("a.jpg"), mixed)


def first_box(file: Path, path: str) -> float | None:
    """Returns x1 of the first box that is found, which identifies one of the images of `write`."""
    with read_proposals(file) as proposals:
        found = proposals.find(path)
    return None if found is None else float(found.boxes[0, 0])


def test_boxes_and_scores_survive_the_round_trip_bit_by_bit(tmp_path: Path) -> None:
    with ProposalWriter(tmp_path / "new" / "p.npz", SETTINGS) as writer:
        for count, name in [(1000, "a.jpg"), (0, "leer/ü.png"), (1, "c.jpg")]:
            writer.add(name, 500, 375, random_proposals(count))
        writer.fail("d.jpg", "truncated")
    with read_proposals(tmp_path / "new" / "p.npz") as file:
        assert_same(file.find("a.jpg"), random_proposals(1000))
        assert_same(file.find("leer/ü.png"), random_proposals(0))
        assert_same(file.find("c.jpg"), random_proposals(1))
        assert file.settings == SETTINGS
        assert file.names == ["a.jpg", "leer/ü.png", "c.jpg"]
        assert file.failures == {"d.jpg": "truncated"}
        assert file.find("d.jpg") is None


def test_numpy_reads_the_file_without_pickles(tmp_path: Path) -> None:
    write(tmp_path / "p.npz", ["a.jpg"])
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        rows = archive["0"]
        index = json.loads(archive["index.json"])
    assert np.array_equal(rows[:, :4], random_proposals(3).boxes)
    assert np.array_equal(rows[:, 4], random_proposals(3).scores)
    assert index["images"] == [{"file_name": "a.jpg", "width": 500, "height": 375}]


def test_the_same_boxes_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("p", "q"):
        write(tmp_path / f"{name}.npz", ["a.jpg", "b.jpg"])
    assert (tmp_path / "p.npz").read_bytes() == (tmp_path / "q.npz").read_bytes()


def test_an_image_is_found_by_any_path_that_ends_in_its_name(tmp_path: Path) -> None:
    file = tmp_path / "p.npz"
    write(file, ["a.jpg", "sub/a.jpg", "sub/b.jpg", "ILSVRC2012_val_7", "n01/n01_1"])
    first, second, third, fourth, fifth = (float(random_proposals(3, seed).boxes[0, 0]) for seed in range(5))
    assert first_box(file, "a.jpg") == first
    assert first_box(file, "/home/me/photos/a.jpg") == first
    assert first_box(file, "photos/sub/a.jpg") == second
    assert first_box(file, "photos/sub/b.jpg") == third
    assert first_box(file, "/data/val/ILSVRC2012_val_7.JPEG") == fourth
    assert first_box(file, "/data/train/n01/n01_1.png") == fifth


@pytest.mark.parametrize("path", ["b.jpg", "other/b.jpg", "xsub/b.jpg", "a.png", "a.JPG", "sub", "A.jpg"])
def test_an_image_whose_path_ends_differently_is_not_found(tmp_path: Path, path: str) -> None:
    write(tmp_path / "p.npz", ["a.jpg", "sub/b.jpg"])
    assert first_box(tmp_path / "p.npz", path) is None


def test_an_image_of_another_size_is_rejected(tmp_path: Path) -> None:
    write(tmp_path / "p.npz", ["a.jpg"])
    with read_proposals(tmp_path / "p.npz") as file:
        assert file.find("a.jpg", (500, 375)) is not None
        with pytest.raises(ProposalFileError, match=r"a.jpg: the proposals belong to .* 500 x 375 .*375 x 500"):
            file.find("a.jpg", (375, 500))


def test_names_are_relative_to_the_common_folder(tmp_path: Path) -> None:
    inside = [tmp_path / "photos" / "a.jpg", tmp_path / "photos" / "sub" / "a.jpg"]
    assert names_below_common_folder(inside) == ["a.jpg", "sub/a.jpg"]
    assert names_below_common_folder(inside[1:]) == ["a.jpg"]
    assert names_below_common_folder([Path("a.jpg"), Path("../b.jpg")])[1] == "b.jpg"
    assert names_below_common_folder([]) == []


def test_an_exception_leaves_the_earlier_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "p.npz"
    write(file, ["a.jpg"])
    before = file.read_bytes()
    # The second image fails after the first has been written to the partial file.
    with pytest.raises(ProposalFileError, match="added twice"):
        write(file, ["b.jpg", "b.jpg"])
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    import tracemalloc

    proposals = random_proposals(20_000)  # 400 KB per image
    with ProposalWriter(tmp_path / "p.npz", {}) as writer:
        writer.add("first.jpg", 500, 375, proposals)
        tracemalloc.start()
        for number in range(10):
            writer.add(f"{number}.jpg", 500, 375, proposals)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 400_000


@pytest.mark.parametrize(
    ("box", "scores", "problem"),
    [
        ([0, 0, np.nan, 1], [1, 0], "box 1 is .*finite"),
        ([5, 0, 4, 1], [1, 0], "x1 < x2"),
        ([0, 0, 0, 1], [1, 0], "box 1 is .*no area"),
        ([9e3, 0, 9.1e3, 1], [1, 0], "box 1 is .*outside the picture"),
        ([-3e38, 0, 3e38, 1], [1, 0], "box 1 is .*at most 8,388,608 p"),
        ([0, 0, 1, 1], [1, np.inf], "finite"),
        ([0, 0, 1, 1], [0, 1], "box 1 has a higher score than the box before it"),
    ],
)
def test_the_writer_rejects_boxes_that_the_reader_would_reject(
    tmp_path: Path, box: list[float], scores: list[float], problem: str
) -> None:
    proposals = Proposals(np.array([[0, 0, 1, 1], box], np.float32), np.array(scores, np.float32))
    with (
        pytest.raises(ProposalFileError, match=rf"p.npz: a.jpg: .*{problem}"),
        ProposalWriter(tmp_path / "p.npz", {}) as writer,
    ):
        writer.add("a.jpg", 10, 10, proposals)
    assert not (tmp_path / "p.npz").exists()


def npy(array: np.ndarray, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=allow_pickle)
    return stream.getvalue()


def forge(file: Path, member: bytes | None, **changes: Any) -> None:
    """Writes a file with the image "a.jpg", whose array is `member`, and with changes to the index."""
    index = {
        "format": "inception-rcnn proposals",
        "version": 1,
        "settings": {},
        "images": [{"file_name": "a.jpg", "width": 10, "height": 10}],
        "failures": [],
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        if member is not None:
            archive.writestr("0.npy", member)
        archive.writestr("index.json", json.dumps({**index, **changes}))


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (None, "0.npy is missing"),
        (b"", "array in .npy format"),
        (
            npy(np.array([[0, 0, 9, 9, 0.5, 7]], np.float32)),
            r"source of box 0 is 7: expected 0 \(selective search\)",
        ),
        (npy(np.zeros((2, 5), np.float64)), r"expected float32 \[N, 5\].*float64"),
        (npy(np.zeros((2, 4), np.float32)), r"got float32 \[2, 4\]"),
        (npy(np.zeros(5, np.float32)), r"got float32 \[5\]"),
        (npy(np.zeros((2, 5), np.float32))[:-1], r"got float32 \[2, 5\]"),
        (npy(np.zeros((0, 5), np.float32)).replace(b"(0, 5)", b"(9, 5)"), r"got float32 \[9, 5\]"),
        (npy(np.full((2, 5), np.nan, np.float32)), "box 0 is .*finite"),
        (b"\0" * 30_000_000, "30,000,000 bytes"),
    ],
)
def test_malformed_arrays_are_rejected(tmp_path: Path, member: bytes | None, problem: str) -> None:
    forge(tmp_path / "p.npz", member)
    with read_proposals(tmp_path / "p.npz") as file, pytest.raises(ProposalFileError, match=problem):
        file.find("a.jpg")


def test_a_pickle_is_never_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path.joinpath("sprung").touch, ())

    forge(tmp_path / "p.npz", npy(np.array([[Trap()] * 5], dtype=object), allow_pickle=True))
    with read_proposals(tmp_path / "p.npz") as file, pytest.raises(ProposalFileError, match="got object"):
        file.find("a.jpg")
    (tmp_path / "q.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ProposalFileError, match=r"not an \.npz file"):
        read_proposals(tmp_path / "q.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "something"}, "lacks 'format'"),
        ({"version": 2}, "has version 2 of the format, expected 1"),
        ({"images": [{"file_name": "a.jpg"}]}, "index.json: malformed .*width"),
        ({"images": 3}, "malformed"),
        ({"images": [3]}, "malformed"),
        ({"settings": False}, "malformed .*settings"),
        ({"settings": [1]}, "malformed .*settings"),
        ({"failures": None}, "malformed .*failures"),
        *(
            ({"images": [{"file_name": "a.jpg", "width": 1, "height": 1, **wrong}]}, f"malformed .*{next(iter(wrong))}")
            for wrong in (
                {"width": 0},
                {"height": -1},
                {"width": "90"},
                {"width": True},
                {"width": 1.5},
                {"height": float("inf")},
                {"width": float("nan")},
                {"width": 10**30},
                {"height": None},
                {"file_name": 5},
                {"file_name": ""},
                {"file_name": None},
            )
        ),
        ({"failures": [["a"]]}, "malformed"),
        ({"images": [{"file_name": "a.jpg", "width": 1, "height": 1}] * 2}, "contains a picture twice"),
    ],
)
def test_malformed_indices_are_rejected(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    forge(tmp_path / "p.npz", None, **changes)
    with pytest.raises(ProposalFileError, match=problem):
        read_proposals(tmp_path / "p.npz")


def test_an_index_nested_too_deeply_is_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("index.json", "[" * 100_000)
    with pytest.raises(ProposalFileError, match=r"p\.npz, index\.json: malformed \(nested too deeply\)"):
        read_proposals(tmp_path / "p.npz")


def test_missing_foreign_and_damaged_files_are_rejected_by_name(tmp_path: Path) -> None:
    with pytest.raises(ProposalFileError, match=r"none.npz: cannot read the proposals: No such file"):
        read_proposals(tmp_path / "none.npz")
    with pytest.raises(ProposalFileError, match="cannot read the proposals: File name too long"):
        read_proposals(tmp_path / ("z" * 300))
    with pytest.raises(ProposalFileError, match="cannot read the proposals"):
        read_proposals(tmp_path)
    np.savez(tmp_path / "other.npz", boxes=np.zeros((3, 4)))
    with pytest.raises(ProposalFileError, match=r"other.npz: expected a file written by detect-propose .*index.json"):
        read_proposals(tmp_path / "other.npz")
    write(tmp_path / "p.npz", ["a.jpg", "b.jpg"], count=100)
    whole = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ProposalFileError, match=r"half.npz: .*a part of one"):
        read_proposals(tmp_path / "half.npz")
    (tmp_path / "bits.npz").write_bytes(whole[:200] + bytes(byte ^ 255 for byte in whole[200:220]) + whole[220:])
    with (
        read_proposals(tmp_path / "bits.npz") as file,
        pytest.raises(ProposalFileError, match=r"bits.npz: 0.npy is damaged"),
    ):
        file.find("a.jpg")


GOOD_HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 5), }"


def npy_of(header: str) -> bytes:
    """An .npy file with one box and this header."""
    text = header.encode("latin1")
    text += b" " * ((-(11 + len(text))) % 64) + b"\n"
    data = np.array([[1, 2, 30, 40, 0.9]], "<f4").tobytes()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 5", "'''", "-" * 5000 + "1", "(" * 5000, "{[]: 1}",
        "{1: 2, 'a': 3}", "{'descr': (), 'fortran_order': False, 'shape': (1, 5), }", "{'descr': '|O'}", "9" * 5000,
        "{'descr': '|O', 'fortran_order': False, 'shape': (1, 5), }", "{'descr': [('a', '<f4', (2**31,))]}", "",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5), }", "\\", "{'descr': '<f4', 'fortran_order': 1}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999, 5), }", "\0", "f'{1}'", "b'\xff'",
    ],
)  # fmt: skip
def test_a_damaged_npy_header_is_an_error_of_one_image(tmp_path: Path, header: str) -> None:
    forge(tmp_path / "p.npz", npy_of(header))
    with read_proposals(tmp_path / "p.npz") as file, pytest.raises(ProposalFileError, match=r"p\.npz: ") as error:
        file.find("a.jpg")
    assert len(str(error.value)) < 1000


def patched(file: Path, place: int, value: bytes, *, local: bool = False) -> None:
    """Overwrites bytes of the last entry in the archive's directory, or of the first local header."""
    content = bytearray(file.read_bytes())
    start = content.find(b"PK\x03\x04") if local else content.rfind(b"PK\x01\x02")
    content[start + place : start + place + len(value)] = value
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("place", "value", "local"),
    [
        (6, b"\xff\x00", False),  # needs version 25.5
        (8, b"\x01\x00", False),  # encrypted
        (10, b"\x0c\x00", False),  # compressed with bzip2
        (10, b"\x0e\x00", False),  # compressed with LZMA
        (10, b"\x63\x00", False),  # an unknown method
        (24, b"\x01\x00\x00\x00", False),  # unpacked size 1
        (24, b"\xff\xff\xff\x7f", False),  # unpacked size 2 GB
        (20, b"\x01\x00\x00\x00", False),  # packed size 1
        (42, b"\xf0\xff\xff\x7f", False),  # local header beyond the file
        (28, b"\xff\xff", False),  # a name longer than the file
        (30, b"\x03\x00", False),  # an extra field that is cut
        (46, b"\xff", False),  # another name
        (26, b"\xff\xff", True),
        (0, b"XX", True),
    ],
)
def test_a_damaged_archive_is_an_error_that_names_the_file(
    tmp_path: Path, place: int, value: bytes, local: bool
) -> None:
    forge(tmp_path / "p.npz", npy_of(GOOD_HEADER))
    patched(tmp_path / "p.npz", place, value, local=local)
    message = ""
    try:
        with read_proposals(tmp_path / "p.npz") as file:
            found = file.find("a.jpg")
            assert found is not None
            assert found.boxes.tolist() == [[1, 2, 30, 40]]
    except ProposalFileError as error:
        message = str(error)
    assert message == "" or "p.npz" in message
    assert len(message) < 1000


def test_a_directory_that_lies_about_the_size_unpacks_no_more_than_it_says(tmp_path: Path) -> None:
    file = tmp_path / "p.npz"
    forge(file, npy_of(GOOD_HEADER) + bytes(50_000_000))
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    content = bytearray(file.read_bytes())
    start = content.find(names[names.index("0.npy")].encode(), content.find(b"PK\x01\x02")) - 46
    content[start + 24 : start + 28] = struct.pack("<I", 200)
    file.write_bytes(content)
    tracemalloc.start()
    with read_proposals(file) as opened, pytest.raises(ProposalFileError):
        opened.find("a.jpg")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ([5, 5, 5, 40, 0.9], "no area"),
        ([5, 40, 9, 40, 0.9], "no area"),
        ([500, 300, 600, 600, 0.9], "outside the picture of 40 x 30 pixels"),
        ([-9, 0, 0, 9, 0.9], "outside the picture"),
        ([-3e38, 0, 3e38, 40, 0.9], "at most 8,388,608 p"),
    ],
)
def test_a_box_that_is_no_region_of_the_picture_is_an_error_of_this_picture(tmp_path: Path, row, problem) -> None:
    picture = {"file_name": "a.jpg", "width": 40, "height": 30}
    forge(tmp_path / "p.npz", npy(np.array([row], "<f4")), images=[picture])
    with (
        read_proposals(tmp_path / "p.npz") as file,
        pytest.raises(ProposalFileError, match=f"a.jpg: box 0 .*{problem}"),
    ):
        file.find("a.jpg")


def test_a_box_that_reaches_beyond_the_picture_is_a_region(tmp_path: Path) -> None:
    forge(tmp_path / "p.npz", npy(np.array([[-5, -5, 50, 50, 0.9]], "<f4")))
    with read_proposals(tmp_path / "p.npz") as file:
        assert len(file.find("a.jpg")) == 1
