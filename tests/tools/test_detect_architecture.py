"""The command `detect-architecture`, on a tiny GoogLeNet."""

import pytest
from typer.testing import CliRunner

from inception_rcnn.detection.networks.costs import TABLE_1
from inception_rcnn.tools.detect_architecture import app


@pytest.mark.usefixtures("tiny_googlenet")
def test_table_1_and_both_forms_of_each_module_are_printed():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    names = [row[0] for row in rows]
    modules = [name for name in TABLE_1 if name.startswith("inception")]
    assert [name for name in names if name[0] != "-"] == ["layer", *TABLE_1, "all", "module", *modules, "all"]
    conv1 = rows[names.index("conv1")]
    # 24 depthwise filters of 7x7, and 4 pointwise filters, beside the printed costs of 64 filters.
    assert conv1[1:] == ["4 x 112 x 112", "1,272 = 1.2 K", "2.7", "16.0", "34"]
    assert "The 5x5 branch of inception_3a: 470,400 multiply-adds without dimension reduction" in result.output
