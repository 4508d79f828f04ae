"""Names of the files that are written for each picture."""

from pathlib import Path

from inception_rcnn.data.output_names import distinct_names


def test_names_are_those_that_every_file_system_takes():
    paths = [
        Path("a/frame.0001.jpg"),
        Path("b/frame.0001.png"),
        Path("FRAME.0001.jpg"),
        "https://host/photos/cat.jpg?X-Amz-Signature=" + 400 * "a.b/c",
        "https://host/",
        "https://[host/dog.jpg",
        Path("x" * 250 + ".jpg"),
        Path("写" * 84 + ".jpg"),
        Path("e\u0301.jpg"),
        Path("\u00e9.jpg"),
    ]
    names = distinct_names(paths)
    assert names[:6] == ["frame.0001", "frame.0001-2", "FRAME.0001-3", "cat", "picture", "dog"]
    assert names[6:8] == ["x" * 200, "写" * 66]
    assert names[8:] == ["e\u0301", "\u00e9-2"]


def test_many_pictures_of_one_name_get_distinct_names_quickly():
    names = distinct_names([Path(f"{number}/image.jpg") for number in range(50_000)])
    assert len(set(names)) == 50_000


def test_printable_names_have_no_letters_that_xml_lacks():
    paths = [Path("a\x01b.jpg"), Path("a\udcffb.jpg"), Path(" .c .jpg"), Path("\n.jpg"), Path("größe.jpg")]
    assert distinct_names(paths, printable=True) == ["a_b", "a_b-2", "c", "_", "größe"]
