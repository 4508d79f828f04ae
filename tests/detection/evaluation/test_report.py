"""The page is self-contained, opens in a browser without errors and is readable on a phone."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.categories import Category
from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.error_analysis import analyse
from inception_rcnn.detection.evaluation.ilsvrc import evaluate
from inception_rcnn.detection.evaluation.report import summary, write_html, write_json
from inception_rcnn.detection.evaluation.result import Evaluation

OpenPage = Callable[[Path], tuple[str, list[str]]]
PHONE = 390  # pixels

PROBE = """<iframe src="{page}" width="{width}" height="800" style="border:0"></iframe>
<script>
document.querySelector("iframe").addEventListener("load", async (event) => {{
  const page = event.target.contentDocument;
  await new Promise((resolve) => setTimeout(resolve, 200));
  const pictures = [...page.images];
  const report = {{
    pictures: pictures.length, shown: pictures.filter((one) => one.complete && one.naturalWidth > 0).length,
    width: page.documentElement.scrollWidth,
    hint: page.defaultView.getComputedStyle(page.querySelector(".scroll-hint")).display,
    scrolls: page.querySelector(".scrolls").scrollWidth > page.querySelector(".scrolls").clientWidth,
    smallest: Math.min(...[...page.querySelectorAll("p, td, figcaption, summary")]
      .map((one) => parseFloat(getComputedStyle(one).fontSize))),
  }};
  page.querySelectorAll("#classes th button")[1].click();
  report.first = page.querySelector("#classes tbody a").textContent;
  page.querySelector("#classes tbody a").click();
  document.body.dataset.report = JSON.stringify(report);
}});
</script>"""


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """An evaluation with a missed object, a duplicate, and a class whose name contains HTML."""
    picture = tmp_path_factory.mktemp("pictures") / "one.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 500, 3), dtype=np.uint8)).save(picture)
    categories = (Category(1, "dog", "dog"), Category(2, '<b>&"', "<script>alert('x')</script> & \"cat\""))
    truth = GroundTruth.from_arrays(
        [1, 2],
        [1, 1, 1],
        [1, 2, 2],
        [[1, 1, 100, 100], [201, 1, 300, 100], [301, 101, 500, 300]],
        categories=categories,
        paths={1: picture, 2: picture.with_name("missing.jpg")},
        name="two <pictures>",
    )
    boxes = np.array([[1, 1, 100, 100], [1, 1, 100, 90], [201, 1, 300, 100], [1, 1, 50, 50]], dtype=np.float64)
    rows = Submission(np.array([1, 1, 1, 2]), np.array([1, 1, 2, 1]), np.array([0.9, 0.8, 0.7, 0.6]), boxes)
    return evaluate(truth, rows)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_html(file, evaluation, analyse(evaluation))
    return file


def test_the_summary_can_be_written_as_json(evaluation: Evaluation) -> None:
    got = json.loads(json.dumps(summary(evaluation, analyse(evaluation)), allow_nan=False))
    assert got["ground_truth"] == {"name": "two <pictures>", "pictures": 2, "objects": 3, "positives": 3}
    assert [one["curve"] for one in got["classes"]] == [
        {"recall": [1.0], "precision": [1.0]},
        {"recall": [0.5], "precision": [1.0]},
    ]


def test_a_failed_write_leaves_the_old_files(evaluation: Evaluation, tmp_path: Path) -> None:
    for name, write in (("report.html", write_html), ("report.json", write_json)):
        file = tmp_path / name
        file.write_text("old")
        (tmp_path / f"{name}.partial").mkdir()  # the temporary name under which the file is written
        with pytest.raises(OSError, match="partial"):
            write(file, evaluation, analyse(evaluation))
        assert file.read_text() == "old"


def test_the_page_needs_no_other_file_and_no_network(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "://" not in text
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    # The duplicate and two finds are on the page twice, the missed object once.
    assert sum(source.startswith("data:image/jpeg") for source in sources) == 7


def test_names_are_escaped(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert html.escape("two <pictures>") in text


def test_a_mistake_is_drawn_with_the_objects_in_its_picture(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert '<rect class="wrong" x="0.0" y="0.0" width="100.0" height="90.0"' in text
    assert '<rect class="same" x="0.0" y="0.0" width="100.0" height="100.0"' in text
    assert '<rect class="different" x="200.0" y="0.0" width="100.0" height="100.0"' in text
    assert '<rect class="right" x="0.0" y="0.0" width="100.0" height="100.0"' in text
    assert text.count("without their picture") == 2  # among the false positives, and in the class


def test_the_plots_of_the_page_have_axis_names_and_a_legend(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count(">recall</text>") == text.count(">precision</text>") == 2
    assert text.count('<span class="line">') == text.count('<span class="point">') == 2
    assert '<span class="middle">gain in mAP</span>' in text


def test_the_page_opens_without_console_errors(page: Path, open_page: OpenPage, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<script>nothing.there()</script>")
    assert open_page(broken)[1], "the error of a broken page is not reported"
    assert open_page(page)[1] == []


def test_the_page_is_readable_at_phone_width(page: Path, open_page: OpenPage) -> None:
    probe = page.with_name("probe.html")
    probe.write_text(PROBE.format(page=page.name, width=PHONE))
    document, console = open_page(probe)
    found = re.search(r'data-report="([^"]*)"', document)
    assert found, console
    report = json.loads(html.unescape(found[1]))
    assert report["pictures"] == report["shown"] == 7
    assert (report["hint"], report["scrolls"]) == ("block", True)  # the wide table says that it scrolls
    assert report["width"] <= PHONE
    assert report["smallest"] >= 12
    assert report["first"].startswith("<script>")  # sorted by AP
    assert console == []
