"""The gallery shows the stored results, works in a browser from the disk, and contains names as text only."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from inception_rcnn.data.categories import Category, Subclass
from inception_rcnn.data.thumbnails import LONGER_SIDE
from inception_rcnn.detection import gallery
from inception_rcnn.detection.detections import Detections
from inception_rcnn.detection.drawing import distinct_colours
from inception_rcnn.detection.gallery import write_gallery
from inception_rcnn.detection.run_state import Result

FINEST = (Subclass("n4", "dog", 58), Subclass("n5", "Samoyed", 58))
CATEGORIES = (Category(58, "n1", "dog"), Category(7, "n2", '</script><b>cat</b> & "x"'), Category(9, "n3", "sheep"))
SIZES = [(500, 300), (300, 500), (2000, 400), (40, 30)]
BROKEN = "<img src=x onerror=alert(1)>.jpg"
DOG, CAT = 58, 7
# Picture, label, score, box.
FOUND = [
    (0, DOG, 0.91, (10.5, 20, 210.25, 280)),
    (0, CAT, 0.55, (250, 30, 480, 250)),
    (0, DOG, 0.2, (0, 0, 50, 50)),
    (1, DOG, 0.48, (30, 40, 290, 490)),
    (2, CAT, 0.7, (1000, 100, 1400, 390)),
]
PROBE = """<iframe src="index.html" width="{width}" height="800" style="border:0"></iframe>
<script>
const wait = (time) => new Promise((resolve) => setTimeout(resolve, time));
const until = async (condition) => {{ for (let turn = 0; turn < 60 && !condition(); turn++) await wait(20); }};
document.querySelector("iframe").addEventListener("load", async (event) => {{
  const page = event.target.contentDocument, report = {{}};
  const find = (selector) => page.querySelector(selector), all = (selector) => [...page.querySelectorAll(selector)];
  const set = (selector, value, kind) => {{
    find(selector).value = value;
    find(selector).dispatchEvent(new Event(kind));
  }};
  const names = () => all(".card .name").map((one) => one.textContent);
  const key = (name) => find("#large").dispatchEvent(new KeyboardEvent("keydown", {{ key: name, bubbles: true }}));
  const classes = () => all(".class").filter((one) => !one.hidden).map((one) => one.textContent);
  await wait(300);
  report.title = find("h1").textContent;
  report.said = find("#said").textContent;
  report.names = names();
  report.classes = classes();
  report.broken = all(".card img").filter((one) => !one.naturalWidth).length;
  report.beyond = page.documentElement.scrollWidth - page.documentElement.clientWidth;
  report.failures = all("#failures li").map((one) => one.textContent);
  report.found = all(".card .found").map((one) => one.textContent);
  set("#sort", "score", "change");
  report.byScore = names();
  set("#sort", "doubt", "change");
  report.byDoubt = names();
  report.dashed = all(".doubt").length;
  set("#sort", "name", "change");
  set("#query", "C.J", "input");
  report.searched = names();
  set("#query", "", "input");
  set("#least", "0.2", "input");
  await until(() => find("#said").textContent.includes("0.20"));
  report.saidLower = find("#said").textContent;
  all(".class")[0].click();
  report.cats = names();
  report.saidCats = find("#said").textContent;
  find(".card").click();
  report.open = find("#large").open;
  report.large = find("#large-name").textContent;
  report.original = find("#facts a").getAttribute("href");
  report.viewBox = find("#stage svg").getAttribute("viewBox");
  const sides = (rect) => ["x", "y", "width", "height"].map((name) => Number(rect.getAttribute(name)));
  report.boxes = all("#stage g[data-class]")
    .map((one) => [one.dataset.class, Number(one.dataset.score), ...sides(one.firstChild)]);
  report.labels = all("#stage .label").map((one) => one.textContent);
  key("ArrowRight");
  report.following = find("#large-name").textContent;
  key("ArrowLeft");
  report.before = find("#large-name").textContent;
  find("#close").click();
  await until(() => page.activeElement.className === "card");
  report.focused = page.activeElement.className;
  document.body.dataset.report = JSON.stringify(report);
}});
</script>"""


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Pictures with random colours, and a file that is none."""
    folder = tmp_path / "my photos #1"
    folder.mkdir()
    paths = [folder / name for name in ("a.jpg", "b ü%.png", "c.jpg", "d.png")]
    for path, size in zip(paths, SIZES, strict=True):
        colour = tuple(np.random.default_rng(size[0]).integers(0, 256, 3).tolist())
        Image.new("RGB", size, colour).save(path)
    return [*paths, folder / BROKEN]


def results() -> Iterator[Result]:
    for picture, size in enumerate(SIZES):
        rows = [row for row in FOUND if row[0] == picture]
        found = Detections(
            np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[2] for row in rows], np.float32),
            np.array([row[1] for row in rows], np.int64),
            subclasses=np.array([1 if row[2] == 0.91 else -1 for row in rows], np.int64),
        )
        yield Result(picture, *size, found, None)
    yield Result(len(SIZES), 0, 0, None, "damaged & <truncated>")


def records(page: Path) -> list[list]:
    """The pictures as the page stores them."""
    text = page.read_text(encoding="utf-8")
    return json.loads(text.partition('id="pictures">')[2].partition("</script>")[0])


def test_the_page_holds_the_detections_and_small_thumbnails(pictures: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "out" / "index.html"
    write_gallery(page, pictures, results(), CATEGORIES, 0.5)
    assert [path.name for path in page.parent.iterdir()] == ["index.html"]
    stored = records(page)
    assert [one[0] for one in stored] == [str(path) for path in pictures[:4]]
    assert [tuple(one[1:3]) for one in stored] == SIZES
    # Class, score in 1/10,000, box in 1/10 pixel, and subclass.
    assert np.reshape(stored[0][5], (-1, 7)).tolist() == [
        [0, 9100, 105, 200, 1998, 2600, 1],
        [1, 5500, 2500, 300, 2300, 2200, -1],
        [0, 2000, 0, 0, 500, 500, -1],
    ]
    assert stored[3][5] == []
    for path, (_, width, height, source, original, _) in zip(pictures, stored, strict=False):
        assert source.startswith("data:image/jpeg;base64,")
        assert (page.parent / unquote(original)).resolve() == path.resolve()
        with Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))) as small:
            assert max(small.size) == min(LONGER_SIDE, max(width, height))


def test_thumbnails_of_many_pictures_lie_beside_the_page(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "index.html"
    monkeypatch.setattr(gallery, "MOST_EMBEDDED", 2)
    written: list[Path] = []
    write_gallery(page, pictures, results(), CATEGORIES, 0.5, on_written=written.append)
    names = [f"gallery_thumbnails/{number}.jpg" for number in (1, 2, 3, 4)]
    assert [one[3] for one in records(page)] == names
    assert written == [*(tmp_path / name for name in names), page]
    assert sorted((tmp_path / "gallery_thumbnails").iterdir()) == written[:4]


def test_a_longer_run_shows_its_first_pictures_and_says_so(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "MOST_PICTURES", 3)
    write_gallery(tmp_path / "index.html", pictures, results(), CATEGORIES, 0.5)
    assert len(records(tmp_path / "index.html")) == 3
    assert "This page shows the first 3 pictures" in (tmp_path / "index.html").read_text()


def test_the_page_needs_no_network_and_holds_names_as_text(pictures: list[Path], tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    paths = [*pictures[:3], "https://example.org/a.jpg", pictures[4]]
    write_gallery(page, paths, list(results())[:3] + list(results())[4:], CATEGORIES, 0.5)
    text = page.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>", text)
    assert scripts == [
        '<script type="application/json" id="pictures">',
        '<script type="application/json" id="about">',
        "<script>",
    ]
    assert not re.findall(r'(?:src|href)="(?!data:|detections\.json)[^"]*"', text)
    assert "@import" not in text
    assert BROKEN not in text
    assert html.escape(BROKEN) in text
    assert "damaged &amp; &lt;truncated&gt;" in text


def test_a_picture_that_is_gone_and_one_at_a_url_have_no_original(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    nothing = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))
    runs = [Result(0, 10, 10, nothing, None), Result(1, 10, 10, nothing, None)]
    write_gallery(page, [tmp_path / "gone.jpg", "memory://bucket/gone.jpg"], runs, CATEGORIES, 0.5)
    assert [one[3:5] for one in records(page)] == [["", "gone.jpg"], ["", ""]]


def test_a_name_that_is_not_utf_8_can_be_shown(tmp_path: Path) -> None:
    name = "caf\udce9.jpg"  # how Python names a file of the bytes "caf\xe9.jpg"
    write_gallery(tmp_path / "index.html", [tmp_path / name], [Result(0, 0, 0, None, name)], CATEGORIES, 0.5)
    assert "caf\\udce9.jpg" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_no_picture_gives_a_page(tmp_path: Path) -> None:
    write_gallery(tmp_path / "index.html", [], [], CATEGORIES, 0.5)
    assert records(tmp_path / "index.html") == []


def test_the_page_works_in_a_browser_at_phone_width(
    pictures: list[Path], tmp_path: Path, open_page: Callable[[Path], tuple[str, list[str]]]
) -> None:
    write_gallery(tmp_path / "index.html", pictures, results(), CATEGORIES, 0.5, FINEST)
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(width=360))
    document, console = open_page(probe)
    assert console == []
    found = re.search(r'data-report="([^"]*)"', document)
    assert found
    report = json.loads(html.unescape(found[1]))
    a, b, c, d = (path.name for path in pictures[:4])
    cat = CATEGORIES[1].name
    assert report["title"] == "Detections in 4 pictures"
    assert report["said"] == "3 objects with a score of at least 0.50, in 2 of 4 pictures"
    assert report["names"] == [a, b, c, d]
    assert report["classes"] == [f"{cat}2", "dog1", "nothing found2"]
    assert report["found"] == [f"dog: Samoyed 0.91{cat} 0.55", "nothing found", f"{cat} 0.70", "nothing found"]
    assert report["broken"] == 0
    assert report["beyond"] == 0
    assert report["failures"] == [f"{pictures[4]}: damaged & <truncated>"]
    assert report["byScore"] == [a, c, b, d]
    assert report["byDoubt"] == [b, c, a, d]  # 0.48, 0.7, 0.91, and nothing
    assert report["dashed"] == 1
    assert report["searched"] == [c]
    assert report["saidLower"] == "5 objects with a score of at least 0.20, in 3 of 4 pictures"
    assert report["cats"] == [a, c]
    assert report["saidCats"] == f"{cat}: 2 objects with a score of at least 0.20, in 2 of 4 pictures"
    assert (report["open"], report["large"]) == (True, a)
    assert report["original"] == records(tmp_path / "index.html")[0][4]
    assert report["viewBox"] == "0 0 500 300"
    assert report["boxes"] == [[cat, 0.55, 250, 30, 230, 220]]
    assert report["labels"] == [f"{cat} 0.55"]
    assert (report["following"], report["before"], report["focused"]) == (c, a, "card")


def test_the_colours_of_the_page_are_those_of_classes_seen_together(pictures: list[Path], tmp_path: Path) -> None:
    write_gallery(tmp_path / "index.html", pictures, results(), CATEGORIES, 0.5)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    about = json.loads(text.partition('id="about">')[2].partition("</script>")[0])
    assert [one["name"] for one in about["classes"]] == [one.name for one in CATEGORIES]
    colours = distinct_colours([[one.name for one in CATEGORIES]])
    assert len({one["colour"] for one in about["classes"]}) == len(colours) == 3
    assert (about["shown"], about["least"]) == (5000, 2000)
