"""Annotation files: round trips, and error messages for malformed and untrusted files."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from inception_rcnn.data.annotation import (
    AnnotatedObject,
    Annotation,
    AnnotationError,
    read_annotation,
    write_annotation,
)
from inception_rcnn.data.boxes import area
from inception_rcnn.data.categories import Category, category_ids, det_categories
from inception_rcnn.data.dataset import Sample

DET_IDS = category_ids(det_categories())

# ILSVRC val has no <pose>, <truncated> and <difficult>.
ILSVRC_XML = """<annotation>
	<folder>val</folder>
	<filename>ILSVRC2012_val_00000001</filename>
	<source><database>ILSVRC_2012</database></source>
	<size><width>500</width><height>375</height></size>
	<object>
		<name>n02121808</name>
		<bndbox><xmin>111</xmin><xmax>441</xmax><ymin>109</ymin><ymax>265</ymax></bndbox>
	</object>
	<object>
		<name>dog</name>
		<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>500</xmax><ymax>375</ymax></bndbox>
	</object>
</annotation>
"""

# VOC files name the parts of a person, with boxes. The reader must not mistake them for objects.
VOC_XML = """<?xml version="1.0" encoding="UTF-8"?>
<annotation>
	<folder>VOC2012</folder><filename>2008_000008.jpg</filename>
	<size><width>500</width><height>442</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object>
		<name>person</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
		<bndbox><xmin>53.5</xmin><ymin>87</ymin><xmax>471</xmax><ymax>420</ymax></bndbox>
		<part><name>head</name>
			<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>
	</object>
</annotation>
"""


def save(folder: Path, text: str) -> Path:
    path = folder / "a.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_ilsvrc_file_is_read(tmp_path: Path) -> None:
    annotation = read_annotation(save(tmp_path, ILSVRC_XML))
    assert annotation == Annotation(
        filename="ILSVRC2012_val_00000001",
        width=500,
        height=375,
        objects=(AnnotatedObject("n02121808", (111, 109, 441, 265)), AnnotatedObject("dog", (1, 1, 500, 375))),
        folder="val",
        database="ILSVRC_2012",
    )
    assert annotation.boxes.tolist() == [[110, 108, 441, 265], [0, 0, 500, 375]]
    assert annotation.boxes.dtype == np.float32
    assert annotation.labels(DET_IDS).tolist() == [59, 58]
    assert annotation.difficult.tolist() == [False, False]


def test_a_voc_file_is_read(tmp_path: Path) -> None:
    annotation = read_annotation(save(tmp_path, VOC_XML))
    person = AnnotatedObject("person", (53.5, 87, 471, 420), difficult=True, truncated=True, pose="Left")
    assert annotation.objects == (person,)
    assert (annotation.database, annotation.difficult.tolist()) == ("", [True])


def test_an_annotation_may_have_no_objects(tmp_path: Path) -> None:
    text = ILSVRC_XML[: ILSVRC_XML.index("	<object>")] + "</annotation>"
    annotation = read_annotation(save(tmp_path, text))
    assert annotation.boxes.shape == (0, 4)
    assert annotation.labels(DET_IDS).shape == annotation.difficult.shape == (0,)
    assert annotation.labels(DET_IDS).dtype == np.int64
    assert annotation.difficult.dtype == np.bool_


@pytest.mark.parametrize(
    "annotation",
    [
        Annotation("a", 1, 1),
        Annotation("Käse & <Brot>.jpg", 640, 480, folder='"x"', database="日本"),
        Annotation("a", 9, 9, (AnnotatedObject("b c", (-3, 0, 1e6, 0.1)),)),
        Annotation("a", 9, 9, (AnnotatedObject("b", (1 / 3, 1e-9, 2 / 3, 5)), AnnotatedObject("b", (1, 1, 1, 1)))),
        Annotation("a", 9, 9, (AnnotatedObject("b", (1, 2, 3, 4), True, False, "Frontal"),)),
        Annotation("a", 9, 9, (AnnotatedObject("b", (1, 2, 3, 4), False, True, None),)),
    ],
)
def test_a_written_annotation_is_read_as_an_equal_annotation(tmp_path: Path, annotation: Annotation) -> None:
    write_annotation(tmp_path / "a.xml", annotation)
    assert read_annotation(tmp_path / "a.xml") == annotation
    assert read_annotation(tmp_path / "a.xml").path == tmp_path / "a.xml"


def test_coordinates_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    xmin, ymin, xmax, ymax = np.array([1, 2.5, 30, 40], np.float32)
    write_annotation(tmp_path / "a.xml", Annotation("a", 50, 50, (AnnotatedObject("b", (xmin, ymin, xmax, ymax)),)))
    assert read_annotation(tmp_path / "a.xml").objects[0].box == (1, 2.5, 30, 40)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotation("", 9, 9), "<filename>"),
        (Annotation("a", 0, 9), "not written"),
        (Annotation("a", -1, 9), "<size/width>"),
        (Annotation(" a", 9, 9), "spaces around it"),
        (Annotation("a\x00b", 9, 9), "not well-formed"),
        (Annotation("a", 9, 9, (AnnotatedObject("b", (5, 1, 4, 2)),)), "object 1, <bndbox>"),
        (Annotation("a", 9, 9, (AnnotatedObject("b", (1, 1, float("nan"), 2)),)), "object 1, <bndbox/xmax>"),
        (Annotation("a", 9, 9, (AnnotatedObject("b", (1, 1, float("inf"), 2)),)), "object 1, <bndbox/xmax>"),
    ],
)
def test_values_that_the_reader_refuses_are_not_written(tmp_path: Path, annotation: Annotation, message: str) -> None:
    with pytest.raises(AnnotationError, match=message):
        write_annotation(tmp_path / "a.xml", annotation)
    assert not (tmp_path / "a.xml").exists()


BOMB = """<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x0 "lol">{}]><annotation>&x9;</annotation>""".format(
    "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 10))
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><filename>&x;</filename></annotation>'


@pytest.mark.parametrize("text", [BOMB, OUTSIDE])
def test_entities_are_refused(tmp_path: Path, text: str) -> None:
    path = save(tmp_path, text)
    with pytest.raises(AnnotationError, match="entities are not allowed") as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", "not well-formed XML: no element found: line 15"),
        (ILSVRC_XML, "", "not well-formed XML"),
        (ILSVRC_XML, "<svg/>", "<svg>: expected <annotation>"),
        (ILSVRC_XML, "<?xml version='1.0' encoding='klingon'?><annotation/>", "not well-formed XML"),
        ("<filename>ILSVRC2012_val_00000001</filename>", "", "<filename>: the element is missing"),
        ("<width>500</width>", "<width>-1</width>", "<size/width>: expected a whole number of pixels, got -1"),
        ("<width>500</width>", "<width>1e300</width>", "<size/width>: expected at most 8,388,608 pixels"),
        ("<xmin>111</xmin>", "<xmin>-1e308</xmin>", "object 1, <bndbox/xmin>: expected at most 8,388,608 pixels"),
        ("<xmax>441</xmax>", "<xmax>8388609</xmax>", "object 1, <bndbox/xmax>: expected at most 8,388,608 pixels"),
        (
            "<name>dog</name>",
            f"<name>{'z' * 300_000}</name>",
            "object 2, <name>: expected a text of 1 to 256",
        ),
        ("<width>500</width>", "<width>500.5</width>", "<size/width>: expected a whole number"),
        ("<height>375</height>", "<height>tall</height>", "<size/height>: expected a finite number, got 'tall'"),
        ("<name>dog</name>", "<name> </name>", "object 2, <name>: the element is empty"),
        ("<name>dog</name>", "", "object 2, <name>: the element is missing"),
        ("<xmin>111</xmin>", "", "object 1, <bndbox/xmin>: the element is missing"),
        ("<xmin>111</xmin>", "<xmin/>", "object 1, <bndbox/xmin>: the element is empty"),
        ("<xmin>111</xmin>", "<xmin>1_1</xmin>", "object 1, <bndbox/xmin>: expected a finite number, got '1_1'"),
        ("<xmin>111</xmin>", "<xmin>0x1f</xmin>", "object 1, <bndbox/xmin>: expected a finite number"),
        ("<xmin>111</xmin>", "<xmin>١</xmin>", "object 1, <bndbox/xmin>: expected a finite number"),
        ("<ymax>375</ymax>", "<ymax>nan</ymax>", "object 2, <bndbox/ymax>: expected a finite number, got 'nan'"),
        ("<ymax>375</ymax>", "<ymax>-inf</ymax>", "object 2, <bndbox/ymax>: expected a finite number"),
        ("<ymax>375</ymax>", "<ymax>1e999</ymax>", "object 2, <bndbox/ymax>: expected a finite number"),
        ("<xmax>441</xmax>", "<xmax>110</xmax>", r"object 1, <bndbox>: expected xmin <= xmax .* got \(111, 109, 110"),
        ("<ymax>265</ymax>", "<ymax>-7</ymax>", "object 1, <bndbox>: expected xmin <= xmax and ymin <= ymax"),
        ("<name>dog</name>", "<name>dog</name><difficult>maybe</difficult>", "object 2, <difficult>: expected 0 or 1"),
    ],
)
def test_the_error_for_a_malformed_file_names_the_file_and_the_element(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in ILSVRC_XML
    path = save(tmp_path, ILSVRC_XML.replace(old, new))
    with pytest.raises(AnnotationError, match=message) as caught:
        read_annotation(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("", (0, 0)),
        ("<size><width>0</width><height>0</height></size>", (0, 0)),
        ("<size><width>500</width><height/></size>", (0, 0)),
        ("<size><width>500.0</width><height>375</height></size>", (500, 375)),
    ],
)
def test_the_size_may_be_unknown(tmp_path: Path, size: str, expected: tuple[int, int]) -> None:
    text = ILSVRC_XML.replace("<size><width>500</width><height>375</height></size>", size)
    annotation = read_annotation(save(tmp_path, text))
    assert (annotation.width, annotation.height) == expected
    sample = Sample.from_annotation("a", 1, tmp_path / "a.jpg", annotation, DET_IDS)
    assert sample.boxes.tolist() == [[110, 108, 441, 265], [0, 0, 500, 375]]
    assert sample.size == (expected if expected[0] else None)
    assert sample.outside is not None
    assert not sample.outside.any()


@pytest.mark.parametrize(
    ("element", "difficult", "truncated"),
    [
        ("<truncated>0.63</truncated>", False, True),
        ("<truncated>0.0</truncated>", False, False),
        ("<truncated>Unspecified</truncated><difficult>Unspecified</difficult>", False, None),
        ("<truncated>true</truncated><difficult>True</difficult>", True, True),
        ("<truncated/><difficult> </difficult>", False, None),
    ],
)
def test_flags_may_be_fractions_words_or_empty(
    tmp_path: Path, element: str, difficult: bool, truncated: bool | None
) -> None:
    text = ILSVRC_XML.replace("<name>dog</name>", f"<name>dog</name>{element}")
    found = read_annotation(save(tmp_path, text)).objects[1]
    assert (found.difficult, found.truncated) == (difficult, truncated)


@pytest.mark.parametrize(
    ("before", "twice", "element"),
    [
        ("<xmin>111</xmin>", "<xmin>111</xmin><xmin>1</xmin>", "object 1, <bndbox/xmin>"),
        ("</bndbox>", "</bndbox><bndbox><xmin>1</xmin></bndbox>", "object 1, <bndbox/xmin>"),
        ("<name>dog</name>", "<name>dog</name><name>cat</name>", "object 2, <name>"),
        (
            "<name>dog</name>",
            "<name>dog</name><difficult>0</difficult><difficult>1</difficult>",
            "object 2, <difficult>",
        ),
        ("<size>", "<size><width>5</width><height>5</height></size><size>", "<size/width>"),
    ],
)
def test_an_element_that_occurs_twice_is_an_error(tmp_path: Path, before: str, twice: str, element: str) -> None:
    path = save(tmp_path, ILSVRC_XML.replace(before, twice, 1))
    with pytest.raises(AnnotationError) as caught:
        read_annotation(path)
    assert str(caught.value) == f"{path}: {element}: the element occurs 2 times; expected it once"


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        *(("GBK", "gbk"), ("gb2312", "gbk"), ("Shift_JIS", "cp932"), ("big5", "big5"), ("EUC-KR", "euc_kr")),
        *(("windows-1251", "cp1251"), ("UTF-16", "utf-16"), ("utf-16", "utf-8"), ("utf-8", "utf-8-sig")),
    ],
)
def test_declared_encodings_are_read(tmp_path: Path, declared: str, encoding: str) -> None:
    name = {"euc_kr": "고양이", "cp1251": "кошка", "big5": "貓"}.get(encoding, "犬")
    text = f'<?xml version="1.0" encoding="{declared}"?>\n' + ILSVRC_XML.replace("dog", name)
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert read_annotation(tmp_path / "a.xml").objects[1].name == name


def test_a_box_at_the_largest_coordinate_has_an_area(tmp_path: Path) -> None:
    for side in (8388608, 8388607.5):
        text = ILSVRC_XML.replace(">111<", f">{side}<").replace(">441<", f">{side}<")
        assert area(read_annotation(save(tmp_path, text)).boxes)[0] > 0


def test_a_file_of_more_than_16_mb_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, ILSVRC_XML)
    with path.open("r+b") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(AnnotationError, match="more than 16 MB"):
        read_annotation(path)


def test_elements_may_be_nested_deeply(tmp_path: Path) -> None:
    nested = "<a>" * 200_000 + "</a>" * 200_000
    assert len(read_annotation(save(tmp_path, ILSVRC_XML.replace("<folder>", nested + "<folder>"))).objects) == 2


def test_the_error_for_a_missing_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"a\.xml: cannot read the annotation: No such file"):
        read_annotation(tmp_path / "a.xml")


OWN_IDS = category_ids([Category(1, "rivet", "rivet"), Category(2, "n9", "bolt head")])


@pytest.mark.parametrize(
    ("name", "ids", "hint"),
    [
        ("Rivet", OWN_IDS, "the nearest are rivet"),
        ("boltheads", OWN_IDS, "the nearest are bolt head"),
        ("domestic-cat", DET_IDS, "the nearest are domestic cat"),
        ("n02084072", DET_IDS, "n02084071"),
        ("????", OWN_IDS, "the list begins with rivet"),
    ],
)
def test_the_error_for_an_unknown_class_names_the_element_similar_classes_and_the_remedy(
    tmp_path: Path, name: str, ids: Mapping[str, int], hint: str
) -> None:
    known = next(iter(ids))
    text = ILSVRC_XML.replace("n02121808", known).replace("<name>dog<", f"<name>{name}<")
    path = save(tmp_path, text)
    with pytest.raises(AnnotationError, match=hint) as caught:
        read_annotation(path).labels(ids)
    assert str(caught.value).startswith(f"{path}: object 2, <name>: the class '{name}' is not in the class list")
    assert "--classes FILE" in str(caught.value)


def test_files_of_ilsvrc_val_survive_a_round_trip(tmp_path: Path, shared: Path) -> None:
    with tarfile.open(shared / "referee" / "val2_annotations.tar.gz") as tar:
        names = tar.getnames()
        members = [member for member in tar if member.isfile() and member.name.endswith("7.xml")][:100]
        for member in members:
            content = tar.extractfile(member)
            assert content is not None
            (tmp_path / "a.xml").write_bytes(content.read())
            annotation = read_annotation(tmp_path / "a.xml")
            assert annotation.filename == Path(member.name).stem
            assert (annotation.labels(DET_IDS) > 0).all()
            write_annotation(tmp_path / "a.xml", annotation)
            assert read_annotation(tmp_path / "a.xml") == annotation
    assert len(members) == 100
    assert len(names) >= 9917
