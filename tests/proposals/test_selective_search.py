"""The public function `selective_search`."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn import selective_search
from inception_rcnn.data.boxes import iou
from inception_rcnn.proposals import hierarchies
from inception_rcnn.proposals.selective_search import MARGIN, working_size
from inception_rcnn.proposals.strategies import Strategy


@pytest.fixture(scope="module")
def cat() -> np.ndarray:
    return pytest.importorskip("skimage.data").chelsea()  # [300, 451, 3]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_cat_is_among_the_first_hundred_boxes(cat: np.ndarray) -> None:
    proposals = selective_search(cat)
    assert iou(proposals.boxes[:100], np.array([[20, 0, 451, 300]], np.float32)).max() > 0.8


def test_proposals_are_distinct_boxes_inside_the_picture_best_first(cat: np.ndarray) -> None:
    proposals = selective_search(cat, superpixel_scale=1, min_side=0)
    boxes = proposals.boxes
    assert boxes.dtype == proposals.scores.dtype == np.float32
    assert len(proposals) > 500
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [451, 300]).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()
    assert (np.diff(proposals.scores) <= 0).all()
    assert [0, 0, 451, 300] in boxes.tolist()


def test_doubled_superpixels_give_about_half_the_boxes(cat: np.ndarray) -> None:
    assert 0.3 < len(selective_search(cat)) / len(selective_search(cat, superpixel_scale=1)) < 0.7


def test_min_side_is_in_pixels_of_the_working_image(cat: np.ndarray) -> None:
    everything, large = (selective_search(cat, min_side=side).boxes * (500 / 451) for side in (0, 20))
    assert set(map(tuple, large.tolist())) < set(map(tuple, everything.tolist()))
    inside = everything[(everything[:, :2] > 0).all(axis=1) & (everything[:, 2:] < [499.9, 332.4]).all(axis=1)]
    sides = (inside[:, 2:] - inside[:, :2]).min(axis=1) - 2 * MARGIN  # sides of the region
    expected = set(map(tuple, inside[sides >= 19.9].tolist()))
    assert 0 < len(expected) < len(inside)
    assert expected == set(map(tuple, large.tolist())) & set(map(tuple, inside.tolist()))


@pytest.mark.parametrize("threads", [2, 4, None])
def test_boxes_are_the_same_on_any_number_of_threads(cat: np.ndarray, threads: int | None) -> None:
    one, many = selective_search(cat, threads=1), selective_search(cat, threads=threads)
    assert one.boxes.tobytes() == many.boxes.tobytes()
    assert one.scores.tobytes() == many.scores.tobytes()


def test_concurrent_calls_give_the_boxes_of_sequential_calls(cat: np.ndarray) -> None:
    pictures = [cat, cat[::-1], cat[:, :200], noise(60, 80)] * 3
    alone = [selective_search(picture, threads=1).boxes.tobytes() for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: selective_search(picture, threads=2).boxes.tobytes(), pictures))
    assert together == alone


def test_the_seed_changes_only_the_order(cat: np.ndarray) -> None:
    first, again, other = (selective_search(cat, seed=seed).boxes for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()
    assert set(map(tuple, first.tolist())) == set(map(tuple, other.tolist()))


def test_objectness_ranks_the_same_boxes_independently_of_the_seed(cat: np.ndarray) -> None:
    random, first, other = (
        selective_search(cat, ranking=ranking, seed=seed)
        for ranking, seed in (("pseudo-random", 0), ("objectness", 0), ("objectness", 1))
    )
    assert first.boxes.tobytes() == other.boxes.tobytes()
    assert set(map(tuple, first.boxes.tolist())) == set(map(tuple, random.boxes.tolist()))
    assert (np.diff(first.scores) <= 0).all()


def test_objectness_spreads_the_first_boxes_over_the_picture(cat: np.ndarray) -> None:
    boxes = selective_search(cat, ranking="objectness").boxes[:50]
    overlap = iou(boxes, boxes) - np.eye(50)
    assert (overlap.max(axis=0) > 0.9).sum() < 15
    assert len(selective_search(np.zeros((4, 500, 3), np.uint8), ranking="objectness")) == 0


def test_the_image_is_not_modified(cat: np.ndarray) -> None:
    before = cat.copy()
    selective_search(cat)
    np.testing.assert_array_equal(cat, before)


def test_a_strided_view_gives_the_boxes_of_its_copy(cat: np.ndarray) -> None:
    view = cat[::2, ::-1]
    assert selective_search(view).boxes.tobytes() == selective_search(view.copy()).boxes.tobytes()


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (1, 7), (7, 1), (2, 2), (1, 5000), (5000, 1), (19, 19), (300, 732), (732, 300), (200, 8000), (3, 500)],
)
@pytest.mark.parametrize("connectivity", [4, 8])
def test_images_of_any_shape_give_boxes_inside_the_image(height: int, width: int, connectivity: int) -> None:
    boxes = selective_search(noise(height, width), min_side=0, connectivity=connectivity, mode="single").boxes
    assert len(boxes) >= 1
    assert (boxes >= 0).all()
    assert (boxes <= [width, height, width, height]).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_an_image_of_one_colour_gives_the_box_of_the_whole_image() -> None:
    proposals = selective_search(np.full((40, 60, 3), 77, np.uint8))
    assert proposals.boxes.tolist() == [[0, 0, 60, 40]]


def test_an_image_lower_than_min_side_gives_no_boxes() -> None:
    proposals = selective_search(noise(4, 500))
    assert proposals.boxes.shape == (0, 4)
    assert proposals.scores.shape == (0,)


def test_boxes_at_full_resolution_have_integer_coordinates() -> None:
    image = noise(64, 96)
    image[16:48, 20:70] = (200, 30, 30)
    boxes = selective_search(image, width=None, min_side=5, mode="single", superpixel_scale=0.2).boxes
    np.testing.assert_array_equal(boxes, np.round(boxes))
    expected = np.array([[20 - MARGIN, 16 - MARGIN, 70 + MARGIN, 48 + MARGIN]], np.float32)
    assert iou(boxes, expected).max() > 0.85


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1000, 750), (500, 375)), ((300, 732), (500, 1220)), ((10, 100_000), (9, 86_603)), ((1000, 9000), (289, 2598))],
)
def test_the_working_image_is_500_wide_and_smaller_if_it_is_tall(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert working_size(*size) == expected
    assert working_size(*size, working_width=None) == size


def test_an_object_of_one_colour_is_found_exactly_up_to_the_margin() -> None:
    image = np.full((375, 500, 3), 90, np.uint8)
    image[100:200, 150:300] = (200, 40, 40)
    assert [150 - MARGIN, 100 - MARGIN, 300 + MARGIN, 200 + MARGIN] in selective_search(image).boxes.tolist()


def test_the_margin_ends_at_the_border_of_the_image() -> None:
    image = np.full((375, 500, 3), 90, np.uint8)
    image[1:100, 400:] = (200, 40, 40)
    assert [400 - MARGIN, 0, 500, 100 + MARGIN] in selective_search(image).boxes.tolist()


def test_quality_contains_all_boxes_of_fast_and_others() -> None:
    image = noise(90, 120) // 4 + np.arange(120, dtype=np.uint8)[:, None]
    fast, quality = (selective_search(image, mode, min_side=0, width=None).boxes for mode in ("fast", "quality"))
    assert set(map(tuple, fast.tolist())) < set(map(tuple, quality.tolist()))


def test_mode_accepts_a_list_of_strategies(cat: np.ndarray) -> None:
    single = selective_search(cat, [Strategy("hsv", 100, "CTSF")])
    assert single.boxes.tobytes() == selective_search(cat, "single").boxes.tobytes()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        ([[0]], TypeError, "list"),
        (np.zeros((5, 5, 3)), TypeError, "255"),
        (np.zeros((5, 5, 3), np.uint16), TypeError, "uint16"),
        (np.zeros((5, 5), np.uint8), ValueError, "grey"),
        (np.zeros((5, 5, 1), np.uint8), ValueError, "grey"),
        (np.zeros((5, 5, 4), np.uint8), ValueError, "alpha"),
        (np.zeros((3, 5, 5), np.uint8), ValueError, r"\(3, 5, 5\)"),
        (np.zeros((1, 5, 5, 3), np.uint8), ValueError, "batch"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, "no pixels"),
    ],
)
def test_invalid_images_are_rejected(image: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        selective_search(image)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"mode": "slow"}, "single, fast, quality"),
        ({"mode": []}, "at least one"),
        ({"superpixel_scale": 0}, "superpixel_scale"),
        ({"superpixel_scale": float("nan")}, "superpixel_scale"),
        ({"min_side": -1}, "min_side"),
        ({"threads": 0}, "threads"),
        ({"connectivity": 6}, "4 or 8"),
        ({"width": 0}, "width"),
        ({"ranking": "best"}, "pseudo-random"),
    ],
)
def test_arguments_out_of_range_are_rejected(argument: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        selective_search(noise(8, 8), **argument)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def test_importing_the_package_does_not_import_numba() -> None:
    code = "import sys; from inception_rcnn import selective_search; assert 'numba' not in sys.modules"
    run_python(code)


def test_the_first_compilation_is_announced_in_one_line_and_cached_on_disk(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from inception_rcnn.proposals.grouping import _root, _comes_first;"
        "_root(np.zeros(2, np.int32), 1); _comes_first(1.0, 0, 0.5, 1)"
    )
    first = run_python(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stdout == ""
    assert first.stderr.count("\n") == 1
    assert "compiling kernels for this machine" in first.stderr
    assert run_python(code, NUMBA_CACHE_DIR=str(tmp_path)).stderr == ""


@pytest.mark.parametrize("scale", [1e7, 1e18, 1e300])
def test_a_huge_superpixel_scale_gives_the_whole_image(scale: float) -> None:
    assert selective_search(noise(40, 30), superpixel_scale=scale).boxes.tolist() == [[0, 0, 30, 40]]


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 0.001])
def test_at_tiny_scales_the_minimum_size_grows_until_superpixels_are_few(scale: float, monkeypatch) -> None:
    image = noise(60, 80)

    def boxes() -> list[list[float]]:
        found = selective_search(image, superpixel_scale=scale, mode="single", min_side=0, width=None)
        return found.boxes.tolist()

    everything = boxes()
    monkeypatch.setattr(hierarchies, "_MOST_SUPERPIXELS", 100)
    few = boxes()
    # R superpixels give at most 2 R - 1 boxes.
    assert len(few) < 2 * (100 + 60 * 80 // 500) < len(everything)
    assert few == boxes()
