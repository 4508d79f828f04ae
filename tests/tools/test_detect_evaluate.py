"""The command `detect-evaluate` reads files and writes a table, JSON, plots and a page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from inception_rcnn.data.annotation import AnnotatedObject, Annotation, write_annotation
from inception_rcnn.data.categories import det_categories
from inception_rcnn.data.coco import DetectionsWriter
from inception_rcnn.data.picture_detections import PictureDetections
from inception_rcnn.tools.detect_evaluate import app

runner = CliRunner()
DOG, PERSON = "n02084071", "n00007846"  # classes 58 and 124


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Picture 1 shows a dog, picture 2 a dog and a person, picture 3 no object."""
    root = tmp_path / "ILSVRC"
    for kind in ("Annotations", "Data"):
        (root / kind / "DET" / "val").mkdir(parents=True)
    (root / "ImageSets" / "DET").mkdir(parents=True)
    (root / "ImageSets" / "DET" / "val.txt").write_text("one 1\ntwo 2\nthree 3\n")
    dog, person = AnnotatedObject(DOG, (11, 11, 60, 60)), AnnotatedObject(PERSON, (81, 11, 120, 90))
    for name, objects in {"one": (dog,), "two": (dog, person), "three": ()}.items():
        write_annotation(root / "Annotations" / "DET" / "val" / f"{name}.xml", Annotation(name, 200, 100, objects))
        Image.new("RGB", (200, 100), "gray").save(root / "Data" / "DET" / "val" / f"{name}.JPEG")
    return root


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Both dogs are found, the first of them twice. The person is missed."""
    file = tmp_path / "predictions.txt"
    file.write_text("1 58 0.9 11 11 60 60\n1 58 0.8 11 11 60 60\n2 58 0.7 11 11 60 60\n3 124 0.2 1 1 9 9\n")
    return file


DOG_AP = 0.5 + 0.5 * 2 / 3


def run(*arguments: object) -> tuple[int, str]:
    result = runner.invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.output


def evaluated(json_file: Path, *arguments: object) -> dict:
    code, output = run(*arguments, "--json", json_file)
    assert code == 0, output
    return json.loads(json_file.read_text())


def test_table_and_json_give_the_same_number(root: Path, predictions: Path, tmp_path: Path) -> None:
    code, output = run(predictions, "--root", root, "--json", tmp_path / "e.json")
    assert code == 0
    got = json.loads((tmp_path / "e.json").read_text())
    assert got["protocol"] == "ilsvrc"
    assert got["mAP"] == pytest.approx(DOG_AP / 2, abs=1e-12)
    assert f"mAP {got['mAP']:.17g} (mean over the classes that have ground truth)" in output
    dog = next(one for one in got["classes"] if one["det_id"] == 58)
    assert (dog["wnid"], dog["name"], dog["positives"], dog["detections"]) == (DOG, "dog", 2, 3)
    assert dog["ap"] == pytest.approx(DOG_AP, abs=1e-12)
    assert dog["best_f1"] == {"score": 0.7, "precision": 2 / 3, "recall": 1.0, "f1": 0.8}
    assert got["errors"]["kinds"]["duplicate"] == {"count": 1, "gain": pytest.approx((1 - DOG_AP) / 2)}
    assert got["errors"]["kinds"]["missed"]["count"] == 1
    assert [one["ap"] for one in got["classes"] if not one["positives"]] == [None] * 122


def test_the_official_mean_counts_classes_without_ground_truth(root: Path, predictions: Path, tmp_path: Path) -> None:
    got = evaluated(tmp_path / "e.json", predictions, "--root", root, "--mean", "official")
    assert got["mAP"] == got["means"]["official"] == pytest.approx(DOG_AP / 124)
    assert got["means"]["present"] == pytest.approx(DOG_AP / 2)
    assert got["classes"][0]["ap"] == 0


def test_nan_of_the_official_kit_is_null_in_json(root: Path, predictions: Path, tmp_path: Path) -> None:
    predictions.write_text(predictions.read_text() + "1 7 0.5 1 1 9 9\n")
    got = evaluated(tmp_path / "e.json", predictions, "--root", root, "--mean", "official")
    assert got["mAP"] is None
    assert got["classes"][6]["ap"] is None


def test_a_folder_of_xml_files_and_a_list_give_the_numbers_of_the_data_set(
    root: Path, predictions: Path, tmp_path: Path
) -> None:
    places = ("--annotations", root / "Annotations/DET/val", "--list", root / "ImageSets/DET/val.txt")
    by_root = evaluated(tmp_path / "a.json", predictions, "--root", root)
    by_folder = evaluated(tmp_path / "b.json", predictions, *places)
    assert by_folder["classes"] == by_root["classes"]


def test_detections_json_gives_the_numbers_of_the_submission(root: Path, predictions: Path, tmp_path: Path) -> None:
    with DetectionsWriter(tmp_path / "detections.json", det_categories()) as writer:
        boxes = np.array([[10, 10, 60, 60], [10, 10, 60, 60]], np.float32)
        writer.add(PictureDetections("photos/one.JPEG", 200, 100, boxes, np.array([0.9, 0.8]), np.array([58, 58])))
        writer.add(PictureDetections("photos/two.JPEG", 200, 100, boxes[:1], np.array([0.7]), np.array([58])))
        writer.add(
            PictureDetections("photos/three.JPEG", 200, 100, np.array([[0, 0, 9, 9]]), np.array([0.2]), np.array([124]))
        )
    by_submission = evaluated(tmp_path / "a.json", predictions, "--root", root)
    assert evaluated(tmp_path / "b.json", tmp_path / "detections.json", "--root", root) == by_submission


def test_a_blacklist_removes_detections_and_objects(root: Path, predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "blacklist.txt").write_text(f"1 {DOG}\n")
    got = evaluated(tmp_path / "e.json", predictions, "--root", root, "--blacklist", tmp_path / "blacklist.txt")
    dog = got["classes"][57]
    assert (dog["ap"], dog["positives"], dog["ignored"]) == (1.0, 1, 2)


@pytest.mark.parametrize(
    ("protocol", "ap"), [("voc07", (6 + 5 * 2 / 3) / 11), ("voc12", DOG_AP), ("coco", (51 + 50 * 2 / 3) / 101)]
)
def test_the_protocol_decides_the_ap(root: Path, predictions: Path, tmp_path: Path, protocol: str, ap: float) -> None:
    got = evaluated(tmp_path / "e.json", predictions, "--root", root, "--protocol", protocol)
    assert got["protocol"] == protocol
    assert {one["name"]: one["ap"] for one in got["classes"]} == {"dog": pytest.approx(ap), "person": 0.0}
    if protocol == "coco":
        assert got["measures"]["AP50"] == pytest.approx(ap / 2)
        assert got["classes"][0]["AP_medium"] == pytest.approx(ap)


def test_a_voc_data_set_is_read_with_its_classes_or_your_own(tmp_path: Path) -> None:
    root = tmp_path / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    objects = (AnnotatedObject("dog", (11, 11, 60, 60)), AnnotatedObject("dog", (81, 11, 120, 90), difficult=True))
    write_annotation(root / "Annotations" / "000001.xml", Annotation("000001.jpg", 200, 100, objects))
    (root / "ImageSets" / "Main" / "test.txt").write_text("000001\n")
    (tmp_path / "p.txt").write_text("1 12 0.9 11 11 60 60\n1 12 0.95 81 11 120 90\n")
    arguments = (tmp_path / "p.txt", "--root", root, "--split", "test", "--protocol", "voc07")
    (result,) = evaluated(tmp_path / "e.json", *arguments)["classes"]
    assert (result["name"], result["ap"], result["positives"], result["ignored"]) == ("dog", 1.0, 1, 1)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "p.txt").write_text("1 2 0.9 11 11 60 60\n")
    (result,) = evaluated(tmp_path / "e.json", *arguments, "--classes", tmp_path / "classes.txt")["classes"]
    assert (result["det_id"], result["ap"]) == (2, 1.0)


def test_a_coco_annotation_file_is_ground_truth(tmp_path: Path) -> None:
    instances = {
        "images": [{"id": 139, "file_name": "000000000139.jpg"}],
        "categories": [{"id": 44, "name": "bottle"}],
        "annotations": [{"id": 1, "image_id": 139, "category_id": 44, "bbox": [1, 2, 30, 40], "area": 900}],
    }
    (tmp_path / "i.json").write_text(json.dumps(instances))
    (tmp_path / "r.json").write_text('[{"image_id": 139, "category_id": 44, "bbox": [1, 2, 30, 40], "score": 0.5}]')
    arguments = (tmp_path / "r.json", "--annotations", tmp_path / "i.json", "--protocol", "coco")
    got = evaluated(tmp_path / "e.json", *arguments)
    assert got["measures"]["AP_small"] == pytest.approx(1)
    assert got["measures"]["AP_large"] is None


def test_malformed_lines_give_file_and_line_or_are_counted(root: Path, predictions: Path, tmp_path: Path) -> None:
    predictions.write_text(predictions.read_text() + "1 58 high 1 1 9 9\n9 58 0.5 1 1 9 9\n")
    code, output = run(predictions, "--root", root)
    assert code == 1
    assert f"{predictions}, line 5: expected seven finite numbers" in output
    got = evaluated(tmp_path / "e.json", predictions, "--root", root, "--lenient")
    assert got["notices"] == [
        "1 malformed lines of the predictions are left out",
        "1 detections are in pictures that ILSVRC val does not list; they are left out",
    ]
    assert got["mAP"] == pytest.approx(DOG_AP / 2)


def test_empty_predictions_are_evaluated_with_a_note(root: Path, predictions: Path) -> None:
    predictions.write_text("")
    code, output = run(predictions, "--root", root)
    assert code == 0
    assert "note: there are no detections" in output
    assert "mAP 0 " in output


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        ((), 2, "expected the ground truth"),
        (("--root", "nowhere"), 1, "nowhere: no such file or folder; expected one of"),
        (("--annotations", "."), 2, "needs a list"),
        (("--root", ".", "--list", "x"), 2, "need --annotations"),
        (("--root", ".", "--protocol", "coco", "--blacklist", "x"), 2, "needs --protocol ilsvrc"),
    ],
)
def test_wrong_usage_is_an_error_that_names_what_is_expected(
    predictions: Path, arguments: tuple, code: int, problem: str
) -> None:
    got, output = run(predictions, *arguments)
    assert got == code
    assert problem in output


def test_plots_are_written_to_a_folder(root: Path, predictions: Path, tmp_path: Path) -> None:
    code, _ = run(predictions, "--root", root, "--plots", tmp_path / "plots")
    assert code == 0
    files = sorted(file.relative_to(tmp_path / "plots").as_posix() for file in (tmp_path / "plots").rglob("*.png"))
    assert files == ["classes.png", "curves.png", "curves/058_dog.png", "curves/124_person.png", "errors.png"]
    for file in files:
        with Image.open(tmp_path / "plots" / file) as picture:
            assert min(picture.size) > 100


def test_intervals_are_in_the_table_the_json_and_the_page(tmp_path: Path, root: Path, predictions: Path) -> None:
    json_file, page = tmp_path / "out.json", tmp_path / "out.html"
    code, output = run(predictions, "--root", root, "--bootstrap", 50, "--json", json_file, "--html", page)
    assert code == 0
    assert "95 % interval" in output
    written = json.loads(json_file.read_text())
    classes = {one["det_id"]: one for one in written["classes"]}
    low, high = classes[58]["ap_interval"]
    assert page.read_text().count(f"{low:.4f} to {high:.4f}") == 2  # in the table, and above the curve of dog
    assert low <= DOG_AP <= high == 1
    assert classes[124]["ap_interval"] == [0, 0]
    assert "ap_interval" not in classes[1]
    assert written["mAP_interval"][0] < written["mAP_interval"][1]
    assert "mAP_interval" not in evaluated(tmp_path / "plain.json", predictions, "--root", root)
    assert run(predictions, "--root", root, "--html", page)[0] == 0
    assert "95 % interval" in page.read_text()
    for options in (("--protocol", "coco"), ("--mean", "official")):
        assert run(predictions, "--root", root, "--html", page, *options)[0] == 0
        assert "95 % interval" not in page.read_text()


def test_only_the_pictures_that_were_looked_at_are_measured(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "detections.json"
    with DetectionsWriter(file, det_categories()) as writer:
        writer.add(
            PictureDetections("one.JPEG", 200, 100, np.array([[10, 10, 60, 60]]), np.array([0.9]), np.array([58]))
        )
    code, output = run(file, "--root", root)
    assert code == 0
    warning = "warning: 2 of 3 pictures of the list are not in the predictions; their objects count as missed. "
    warning += "--only-predicted measures the other 1"
    # Before the table, and again before the score.
    assert output.count(warning) == 2
    assert output.index(warning) < output.index("best F1") < output.rindex(warning) < output.index("mAP 0.25")
    code, output = run(file, "--root", root, "--only-predicted")
    assert code == 0
    assert "note: measured in 1 of 3 pictures, those in the predictions" in output
    assert "warning" not in output
    assert "mAP 1 " in output


def test_a_blacklist_may_name_pictures_that_were_not_looked_at(root: Path, predictions: Path, tmp_path: Path) -> None:
    (tmp_path / "blacklist.txt").write_text(f"2 {DOG}\n")
    predictions.write_text("1 58 0.9 11 11 60 60\n")
    arguments = (predictions, "--root", root, "--only-predicted", "--blacklist", tmp_path / "blacklist.txt")
    assert evaluated(tmp_path / "e.json", *arguments)["mAP"] == 1


def test_a_voc_folder_with_classes_and_a_list_of_its_own_needs_no_options(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    gnome = (AnnotatedObject("gnome", (11, 11, 60, 60)),)
    write_annotation(root / "Annotations" / "a.xml", Annotation("a.jpg", 200, 100, gnome))
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("a\n")
    Image.new("RGB", (200, 100)).save(root / "JPEGImages" / "a.jpg")
    (tmp_path / "p.txt").write_text("1 1 0.9 11 11 60 60\n")
    got = evaluated(tmp_path / "e.json", tmp_path / "p.txt", "--root", root)
    assert (got["mAP"], got["classes"][0]["name"], got["ground_truth"]["name"]) == (1, "gnome", "own trainval")


def test_intervals_for_coco_and_for_the_official_mean_are_wrong_usage(root: Path, predictions: Path) -> None:
    code, output = run(predictions, "--root", root, "--protocol", "coco", "--bootstrap", 10)
    assert code == 2
    assert "the coco protocol has no intervals" in output
    code, output = run(predictions, "--root", root, "--mean", "official", "--bootstrap", 10)
    assert code == 2
    assert "intervals need --mean present" in output
