"""Submission files: exact round trips, and error messages that name the malformed line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.picture_detections import PictureDetections
from inception_rcnn.data.submission import (
    Submission,
    SubmissionError,
    SubmissionWriter,
    read_submission,
    write_submission,
)


def random_submission(count: int) -> Submission:
    rng = np.random.default_rng(0)
    return Submission.from_boxes(
        rng.integers(1, 20_000, count),
        rng.integers(1, 201, count),
        rng.random(count),
        rng.uniform(-5, 500, (count, 4)).astype(np.float32),
    )


def assert_same(a: Submission, b: Submission) -> None:
    for name in ("image_indices", "labels", "scores", "inclusive", "boxes"):
        left, right = getattr(a, name), getattr(b, name)
        assert left.dtype == right.dtype, name
        assert np.array_equal(left, right), name


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_a_round_trip_keeps_all_digits(tmp_path: Path, count: int) -> None:
    written = random_submission(count)
    write_submission(tmp_path / "s.txt", written)
    assert len((tmp_path / "s.txt").read_text().splitlines()) == count
    read = read_submission(tmp_path / "s.txt")
    assert_same(read, written)
    assert read.skipped == 0


def test_long_files_are_written_in_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inception_rcnn.data.submission._BLOCK", 7)
    write_submission(tmp_path / "s.txt", random_submission(23))
    assert_same(read_submission(tmp_path / "s.txt"), random_submission(23))


def test_pictures_are_written_one_by_one(tmp_path: Path) -> None:
    whole = random_submission(50)
    order = np.argsort(whole.image_indices, kind="stable")
    with SubmissionWriter(tmp_path / "new" / "a.txt", {str(n): n for n in range(1, 20_000)}) as writer:
        for number in np.unique(whole.image_indices):
            rows = whole.image_indices == number
            writer.add(
                PictureDetections(str(number), 500, 500, whole.boxes[rows], whole.scores[rows], whole.labels[rows])
            )
        writer.fail("7", "truncated")
        writer.add(PictureDetections("8", 500, 500, np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)))
    got = read_submission(tmp_path / "new" / "a.txt")
    for name in ("image_indices", "labels", "scores", "boxes"):
        np.testing.assert_array_equal(getattr(got, name), getattr(whole, name)[order])


def test_a_line_is_one_based_and_inclusive(tmp_path: Path) -> None:
    write_submission(tmp_path / "s.txt", Submission.from_boxes([3], [58], [0.25], [[0, 0, 640, 480.5]]))
    assert (tmp_path / "s.txt").read_text() == "3 58 0.25 1.0 1.0 640.0 480.5\n"


def test_whole_numbers_spaces_tabs_and_empty_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(b"\xef\xbb\xbf1 2 1 11 12 60 70\r\n\r\n 3\t4   5e-1 -1.5 2 3 4")
    read = read_submission(tmp_path / "s.txt")
    assert read.image_indices.tolist() == [1, 3]
    assert read.labels.tolist() == [2, 4]
    assert read.scores.tolist() == [1, 0.5]
    assert read.boxes.tolist() == [[10, 11, 60, 70], [-2.5, 1, 3, 4]]


def test_inverted_boxes_are_read(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("1 1 0.9 60 60 11 11\n")
    assert read_submission(tmp_path / "s.txt").inclusive.tolist() == [[60, 60, 11, 11]]


GOOD = "1 2 0.5 1 1 5 5\n"


@pytest.mark.parametrize(
    "line",
    [
        "1 2 0.5 1 1 5",  # six numbers
        "1 2 0.5 1 1 5 5 5",
        "1 2 high 1 1 5 5",
        "1,2,0.5,1,1,5,5",
        "1 2 nan 1 1 5 5",
        "1 2 0.5 1 1 inf 5",
        "1 2 0.5 1 1 1e999 5",
        "0 2 0.5 1 1 5 5",  # indices start at 1
        "1.5 2 0.5 1 1 5 5",
        "1 -2 0.5 1 1 5 5",
        "1 2 0.5 1 1 5 1_0",
        "1 2 0.5 1 1 5 ٣",
        "1\u00a02\u00a00.5\u00a01\u00a01\u00a05\u00a05",  # no-break spaces
        "1 2 0.5 1 1 1e300 5",
        "9007199254740993 2 0.5 1 1 5 5",
        "# comment",
        "\x00",
    ],
)
@pytest.mark.parametrize("before", ["", GOOD, GOOD + "\n" + GOOD])
def test_a_malformed_line_is_an_error_or_skipped_and_counted(tmp_path: Path, before: str, line: str) -> None:
    file = tmp_path / "s.txt"
    file.write_text(before + line + "\n" + GOOD, encoding="utf-8")
    with pytest.raises(SubmissionError, match="expected seven finite numbers, image_index det_id") as caught:
        read_submission(file)
    assert f"{file}, line {before.count(chr(10)) + 1}:" in str(caught.value)
    read = read_submission(file, lenient=True)
    assert (len(read), read.skipped) == (before.count("0.5") + 1, 1)


def test_the_error_names_the_first_malformed_line(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text(GOOD + "1 2 nan 1 1 5 5\n" + "word\n")
    with pytest.raises(SubmissionError, match="line 2"):
        read_submission(tmp_path / "s.txt")


def test_a_line_that_is_not_utf_8_is_malformed(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_bytes(GOOD.encode() + b"\xff\xfe\x9c\n")
    with pytest.raises(SubmissionError, match="line 2"):
        read_submission(tmp_path / "s.txt")


def test_the_error_for_a_missing_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"s\.txt: cannot read the submission file"):
        read_submission(tmp_path / "s.txt", lenient=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([1], [0], [0.5], [[0, 0, 1, 1]]), "detection 0 of 1"),
        (([1, 1], [1, 1], [0.5, np.nan], [[0, 0, 1, 1]] * 2), "detection 1 of 2"),
        (([1], [1], [0.5], [[0, 0, np.inf, 1]]), "detection 0 of 1"),
        (([1, 2], [1], [0.5], [[0, 0, 1, 1]]), "shapes"),
    ],
)
def test_values_that_the_reader_refuses_are_not_written(tmp_path: Path, columns: tuple, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        write_submission(tmp_path / "s.txt", Submission.from_boxes(*columns))
    assert not (tmp_path / "s.txt").exists()


@pytest.mark.parametrize(("name", "count"), [("demo", 23_590), ("random", 134_758)])
def test_the_official_examples_are_read(tmp_path: Path, shared: Path, name: str, count: int) -> None:
    lines = gzip.decompress((shared / "referee" / f"{name}_predictions.txt.gz").read_bytes())
    (tmp_path / "s.txt").write_bytes(lines)
    read = read_submission(tmp_path / "s.txt")
    assert len(read) == count
    for row in (0, count // 2, count - 1):
        values = [read.image_indices[row], read.labels[row], read.scores[row], *read.inclusive[row]]
        assert values == [float(text) for text in lines.splitlines()[row].split()]
