"""The plotted curves. test_detect_recall.py tests the page."""

from inception_rcnn.proposals.recall_plots import recall_plots

METHOD = {
    "name": "mine",
    "boxes_per_image": 7.0,
    "curve": {"iou": [0.5, 0.75, 1], "recall": [0.9, 0.4, 0.1]},
    "by_count": [
        {"boxes_per_image": 1.0, "recall": {"0.5": 0.3, "0.7": 0.2}, "AR": 0.25},
        {"boxes_per_image": 7.0, "recall": {"0.5": 0.9, "0.7": 0.6}, "AR": 0.5},
    ],
}


def test_the_lines_show_the_figures_of_each_method() -> None:
    figures = recall_plots([METHOD, {**METHOD, "name": "$other"}])
    lines = {name: figure.axes[0].get_lines() for name, figure in figures.items()}
    assert {name: len(drawn) for name, drawn in lines.items()} == {
        "recall-iou": 2,
        "recall-count": 4,
        "average-recall-count": 2,
    }
    assert lines["recall-iou"][0].get_xydata().tolist() == [[0.5, 0.9], [0.75, 0.4], [1, 0.1]]
    assert [line.get_xydata().tolist() for line in lines["recall-count"][:2]] == [
        [[1, 0.3], [7, 0.9]],
        [[1, 0.2], [7, 0.6]],
    ]
    assert lines["average-recall-count"][1].get_xydata().tolist() == [[1, 0.25], [7, 0.5]]
    assert lines["average-recall-count"][1].get_label() == r"\$other (7)"
