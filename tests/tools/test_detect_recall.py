"""The command detect-recall: it shows the measures of the library in tables, a JSON file, curves and a page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import det_categories
from inception_rcnn.data.ilsvrc import open_dataset
from inception_rcnn.proposals.files import ProposalWriter
from inception_rcnn.proposals.proposals import Proposals
from inception_rcnn.proposals.recall import measure, recall_figures
from inception_rcnn.tools.detect_recall import app

DOG, CUP = (next(one for one in det_categories() if one.name == name) for name in ("dog", "cup or mug"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images with rectangles as objects: a dog and a cup, a dog, and no object."""
    root = tmp_path / "ILSVRC"
    for kind in ("Data", "Annotations"):
        (root / kind / "DET" / "val").mkdir(parents=True)
    (root / "ImageSets" / "DET").mkdir(parents=True)
    contents = {"p1": [(DOG, 11, 11, 70, 80), (CUP, 81, 31, 110, 60)], "p2": [(DOG, 31, 21, 90, 80)], "p3": []}
    for name, objects in contents.items():
        pixels = np.full((90, 120, 3), 230, np.uint8)
        for number, (_, xmin, ymin, xmax, ymax) in enumerate(objects):
            pixels[ymin - 1 : ymax, xmin - 1 : xmax] = (20, 60, 160) if number else (160, 40, 20)
        Image.fromarray(pixels).save(root / "Data" / "DET" / "val" / f"{name}.png")
        annotated = tuple(AnnotatedObject(one.wnid, (x1, y1, x2, y2)) for one, x1, y1, x2, y2 in objects)
        write_annotation(root / "Annotations" / "DET" / "val" / f"{name}.xml", Annotation(name, 120, 90, annotated))
    (root / "ImageSets" / "DET" / "val.txt").write_text("p1 1\np2 2\np3 3\n")
    return root


@pytest.fixture
def boxes(tmp_path: Path) -> Path:
    """A file whose proposals cover the dog of p1 exactly and half of its cup; p2 is missing."""
    proposals = Proposals(np.array([[10, 10, 70, 80], [80, 30, 110, 45]], np.float32), np.array([1, 0.5], np.float32))
    with ProposalWriter(tmp_path / "mine.npz", {"method": "mine"}) as writer:
        writer.add("p1.png", 120, 90, proposals)
        writer.add("p3.png", 120, 90, proposals)
    return tmp_path / "mine.npz"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "120"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, re.sub(r"[\s│]+", " ", result.output)


def report_of(file: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def test_the_json_file_contains_the_measures(root: Path, boxes: Path, tmp_path: Path) -> None:
    code, output = run("--root", root, "--proposals", boxes, "--json", tmp_path / "out" / "recall.json")
    assert code == 0, output
    report = report_of(tmp_path / "out" / "recall.json")
    assert (report["dataset"], report["matching"], report["images"], report["objects"]) == (
        "ILSVRC val",
        "one-to-one",
        3,
        3,
    )
    (mine,) = report["methods"]
    assert mine["name"] == "mine"
    assert mine["settings"] == {"method": "mine"}
    assert mine["boxes_per_image"] == 4 / 3
    assert mine["recall"] == {"0.5": 2 / 3, "0.6": 1 / 3, "0.7": 1 / 3, "0.8": 1 / 3, "0.9": 1 / 3}
    assert mine["AR"] == 1 / 3
    assert mine["MABO"] == 0.5  # dog (1 + 0) / 2, cup 0.5
    assert mine["images_missing"] == 1
    assert [one["name"] for one in mine["classes"]] == ["cup or mug", "dog"]
    assert "no proposals for 1 of 3 pictures" in output
    assert "mine 1 66.7 33.3 33.3 33.3 33.3 33.3 50.0" in output


def test_several_sets_are_compared_in_one_table(root: Path, boxes: Path, tmp_path: Path) -> None:
    code, output = run(
        *("--root", root, "--proposals", boxes, "--proposals", f"again={boxes}", "--json", tmp_path / "r.json"),
        *("--method", "one=mode:single, superpixel-scale:1, min-side:5", "--method", "default="),
    )
    assert code == 0, output
    methods = report_of(tmp_path / "r.json")["methods"]
    assert [method["name"] for method in methods] == ["mine", "again", "one", "default"]
    assert methods[0]["recall"] == methods[1]["recall"]
    assert methods[2]["recall"]["0.5"] == 1  # rectangles on a plain background are easy to find
    search = {"method": "selective search", "mode": "single", "superpixel_scale": 1.0, "min_side": 5.0, "seed": 0}
    search["connectivity"] = 4
    assert methods[2]["settings"] == search
    assert methods[3]["settings"] == {**search, "mode": "fast", "superpixel_scale": 2.0, "min_side": 20.0}


def test_selective_search_is_measured_by_default(root: Path, tmp_path: Path) -> None:
    code, output = run("--root", root, "--json", tmp_path / "r.json")
    assert code == 0, output
    (method,) = report_of(tmp_path / "r.json")["methods"]
    assert method["name"] == "selective search"
    assert method["images_missing"] == 0
    assert method["boxes_per_image"] > 1


def test_with_matching_best_one_proposal_covers_several_objects(root: Path, tmp_path: Path) -> None:
    # One box with IoU 0.5 or more of the dog of p1 and of a second dog that is added inside it.
    annotated = tuple(AnnotatedObject(DOG.wnid, box) for box in ((11, 11, 70, 80), (11, 11, 70, 50)))
    write_annotation(root / "Annotations" / "DET" / "val" / "p1.xml", Annotation("p1", 120, 90, annotated))
    proposals = Proposals(np.array([[10, 10, 70, 60]], np.float32), np.array([1], np.float32))
    with ProposalWriter(tmp_path / "one.npz", {}) as writer:
        writer.add("p1.png", 120, 90, proposals)
    recall = {}
    for matching in ("one-to-one", "best"):
        arguments = ("--matching", matching, "--json", tmp_path / "r.json")
        code, output = run("--root", root, "--proposals", tmp_path / "one.npz", *arguments)
        assert code == 0, output
        report = report_of(tmp_path / "r.json")
        assert report["matching"] == matching
        recall[matching] = report["methods"][0]["recall"]["0.5"]
    assert recall == {"one-to-one": 1 / 3, "best": 2 / 3}


def test_objects_of_unreadable_images_count_as_not_found_and_the_exit_code_is_3(root: Path, tmp_path: Path) -> None:
    (root / "Data" / "DET" / "val" / "p2.png").write_bytes(b"no picture")
    code, output = run("--root", root, "--method", "one=mode:single", "--json", tmp_path / "r.json")
    assert code == 3
    assert re.search(r"warning: \S*p2.png: not a JPEG", output)
    (method,) = report_of(tmp_path / "r.json")["methods"]
    assert (method["images_missing"], report_of(tmp_path / "r.json")["objects"]) == (1, 3)
    assert method["recall"]["0.5"] <= 2 / 3


def test_curves_and_a_self_contained_page_are_written(root: Path, boxes: Path, tmp_path: Path) -> None:
    named = f"<b>$1$ & _co</b>={boxes}"
    code, output = run(
        *("--root", root, "--proposals", named, "--plots", tmp_path / "plots", "--html", tmp_path / "page.html")
    )
    assert code == 0, output
    plots = sorted((tmp_path / "plots").iterdir())
    assert [plot.name for plot in plots] == ["average-recall-count.png", "recall-count.png", "recall-iou.png"]
    for plot in plots:
        with Image.open(plot) as opened:
            assert opened.size == (780, 585)
            assert len(opened.convert("RGB").getcolors(1 << 20) or []) > 10
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img src=") == page.count('<img src="data:image/svg+xml;base64,') == 3
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert "&lt;b&gt;$1$ &amp; _co&lt;/b&gt;" in page
    assert "<td>66.7</td>" in page
    assert len(page) < 500_000


def test_the_page_opens_in_a_browser_at_phone_width(root: Path, boxes: Path, tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs a browser: none of chromium, chromium-browser, google-chrome is installed")
    page = tmp_path / "page.html"
    run("--root", root, "--proposals", f"a rather long name of a method={boxes}", "--html", page)
    # A browser window has a minimum width, a frame has none. The measurements are read from the document's title.
    probe = (
        "const inside = document.querySelector('iframe').contentDocument; document.title = JSON.stringify({"
        "shown: [...inside.images].filter(one => one.naturalWidth > 0 && one.clientWidth > 300).length, "
        "overflow: inside.documentElement.scrollWidth - inside.documentElement.clientWidth})"
    )
    content = escape(page.read_text(encoding="utf-8"))
    phone = tmp_path / "phone.html"
    phone.write_text(
        f'<meta charset="utf-8"><title></title><iframe width="390" height="844" style="border: 0" srcdoc="{content}">'
        f"</iframe><script>onload = () => {{ {probe} }}</script>",
        encoding="utf-8",
    )
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    opened = subprocess.run(
        [browser, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", phone.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", opened.stdout)
    assert title is not None
    seen = json.loads(title[1])
    assert seen == {"shown": 3, "overflow": 0}
    assert "CONSOLE" not in opened.stderr


@pytest.mark.parametrize("option", ["--json", "--plots", "--html"])
def test_a_file_that_cannot_be_written_is_named(root: Path, boxes: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    code, output = run("--root", root, "--proposals", boxes, option, tmp_path / "taken" / "out")
    assert code == 2
    assert re.search(r"cannot write \S*/taken/out", output)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--split", "test"], "missing image list"),
        (["--method", "mode:single"], "expected NAME=KEY:VALUE"),
        (["--method", "x=scale:1"], "unknown setting 'scale'"),
        (["--method", "x=seed:many"], "seed must be a number, got 'many'"),
        (["--method", "x=mode:slow"], "unknown mode 'slow'"),
        (["--method", "x=superpixel-scale:-1"], "superpixel_scale must be a positive number"),
        (["--method", "x=", "--method", "x=seed:1"], "two methods are named 'x'"),
        (["--proposals", "none.npz"], "none.npz: cannot read the proposals"),
        (["--matching", "optimal"], "'optimal' is not one of"),
        (["--classes", "own.txt"], "own.txt: cannot read the class list"),
    ],
)
def test_wrong_usage_is_explained(root: Path, arguments: list[str], problem: str) -> None:
    code, output = run("--root", root, *arguments)
    assert code == 2
    assert problem in output


def test_a_file_of_other_images_is_rejected(root: Path, tmp_path: Path) -> None:
    with ProposalWriter(tmp_path / "other.npz", {}) as writer:
        writer.add("holiday.jpg", 10, 10, Proposals(np.empty((0, 4), np.float32), np.empty(0, np.float32)))
    code, output = run("--root", root, "--proposals", tmp_path / "other.npz")
    assert code == 2
    assert "contains none of the 3 pictures of ILSVRC val; the file names ['holiday.jpg']" in output


def test_the_message_about_an_unknown_class_suggests_classes(root: Path, boxes: Path) -> None:
    annotation = root / "Annotations" / "DET" / "val" / "p1.xml"
    annotation.write_text(annotation.read_text().replace(DOG.wnid, "n99999999"))
    code, output = run("--root", root, "--proposals", boxes)
    assert code == 2
    assert "n99999999" in output
    assert "--classes FILE" in output


def test_the_help_has_an_example() -> None:
    code, output = run("--help")
    assert code == 0
    assert "detect-recall --root my-data/" in output


def test_real_photographs_and_objects(shared: Path) -> None:
    """On fifteen photographs, selective search covers most objects, and half the scale gives twice the boxes."""
    from inception_rcnn.data.images import read_image
    from inception_rcnn.proposals.selective_search import selective_search

    dataset = open_dataset(shared / "data" / "ILSVRC", "val")[300:315]

    def figures_at(scale: float) -> dict[str, Any]:
        coverage = measure(dataset, lambda one: selective_search(read_image(one.path), superpixel_scale=scale))
        return recall_figures(str(scale), coverage, dataset.categories)

    figures = [figures_at(1), figures_at(2)]
    assert all(one["recall"]["0.5"] > 0.7 for one in figures)
    assert 1.5 < figures[0]["boxes_per_image"] / figures[1]["boxes_per_image"] < 2.5
