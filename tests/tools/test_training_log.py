"""The table of a training's steps."""

import csv

from inception_rcnn.tools.training_log import TrainingLog


def rows(file):
    with file.open(newline="") as opened:
        return list(csv.reader(opened))


def test_each_step_with_a_loss_is_a_row(tmp_path):
    now = [100.0]
    file = tmp_path / "training" / "log.csv"
    with TrainingLog(file, None, clock=lambda: now[0]) as log:
        log.report("proposals", 1, 5, {})
        assert not file.exists()
        now[0] += 2.25
        log.report("MultiBox, training", 1, 2, {"loss": 0.5, "confidence": 0.2, "learning rate": 0.0003})
        assert len(rows(file)) == 2  # the row is in the file at once
        log.report("MultiBox, training", 1, 2, {"recall": 0.7})
        log.report("training", 1, 3, {"loss": 12.3456789, "learning rate": 0.002})
    assert rows(file) == [
        ["stage", "step", "loss", "learning rate", "seconds"],
        ["MultiBox, training", "1", "0.5", "0.0003", "2.2"],
        ["training", "1", "12.3457", "0.002", "2.2"],
    ]


def test_steps_that_are_done_again_replace_their_rows(tmp_path):
    file = tmp_path / "log.csv"
    with TrainingLog(file, None) as log:
        log.report("screen", 9, 9, {"loss": 1, "learning rate": 0})
        for step in (1, 2, 3, 4):
            log.report("training", step, 5, {"loss": step, "learning rate": 0})
    with file.open("a") as opened:
        opened.write("training,5,0.")  # a row that an interruption cut
    with TrainingLog(file, None) as log:  # from the checkpoint of step 2
        for step in (3, 4, 5):
            log.report("training", step, 5, {"loss": 10 * step, "learning rate": 0})
    assert [(row[0], row[1], row[2]) for row in rows(file)[1:]] == [
        ("screen", "9", "1"),
        ("training", "1", "1"),
        ("training", "2", "2"),
        ("training", "3", "30"),
        ("training", "4", "40"),
        ("training", "5", "50"),
    ]
