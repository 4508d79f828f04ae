"""Templates of HTML pages."""

import jinja2
import pytest

from inception_rcnn.runtime.page_templates import page_template


def test_a_page_escapes_text_and_includes_templates_of_its_folder(tmp_path):
    (tmp_path / "page.html.j2").write_text('<p>{{ name }}</p>{% include "foot.html.j2" %}')
    (tmp_path / "foot.html.j2").write_text("<hr>")
    assert page_template(tmp_path / "page.html.j2").render(name="a<b") == "<p>a&lt;b</p><hr>"


def test_a_name_that_is_not_given_is_an_error(tmp_path):
    (tmp_path / "page.html.j2").write_text("{{ name }}")
    with pytest.raises(jinja2.UndefinedError, match="name"):
        page_template(tmp_path / "page.html.j2").render()
