"""The ILSVRC protocol gives the answers of the official evaluation code on 24 small inputs, without any other file.

The development kit of ILSVRC 2014 (its `eval_detection.m`, unmodified) computed these average precisions.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from inception_rcnn.data.ground_truth import GroundTruth
from inception_rcnn.data.submission import Submission
from inception_rcnn.detection.evaluation.ilsvrc import evaluate

NAN = math.nan
BOX = (11, 11, 60, 60)

# What is tested; the objects of each picture (class, box); detections (picture, class, score, box); blacklisted pairs
# (picture, class); the official AP of each class; the official mean.
CASES = [
    ("perfect", [[(1, BOX)]], [(1, 1, 0.9, BOX)], [], {1: 1}, 1),
    (
        "class2 no object no detection (hole below max id)",
        [[(1, BOX), (3, BOX)]],
        [(1, 1, 0.9, BOX), (1, 3, 0.9, BOX)],
        [],
        {1: 1, 2: 0, 3: 1},
        0.66666666666666663,
    ),
    (
        "class2 no object with detection (hole below max id)",
        [[(1, BOX), (3, BOX)]],
        [(1, 1, 0.9, BOX), (1, 2, 0.8, BOX), (1, 3, 0.9, BOX)],
        [],
        {1: 1, 2: NAN, 3: 1},
        NAN,
    ),
    ("class above max object id is dropped", [[(1, BOX)]], [(1, 1, 0.9, BOX), (1, 5, 0.8, BOX)], [], {1: 1}, 1),
    ("class with object and no detection", [[(1, BOX), (2, BOX)]], [(1, 1, 0.9, BOX)], [], {1: 1, 2: 0}, 0.5),
    (
        "duplicate is false positive",
        [[(1, BOX)], [(1, BOX)]],
        [(1, 1, 0.9, BOX), (1, 1, 0.8, BOX), (2, 1, 0.7, BOX)],
        [],
        {1: 0.83333333333333326},
        0.83333333333333326,
    ),
    (
        "free-object rule: 2nd detection best on taken object goes to the other",
        [[(1, (1, 1, 100, 100)), (1, (1, 21, 100, 120))]],
        [(1, 1, 0.9, (1, 1, 100, 100)), (1, 1, 0.8, (1, 3, 100, 102))],
        [],
        {1: 1},
        1,
    ),
    ("IoU exactly .5 is a hit", [[(1, (1, 1, 100, 100))]], [(1, 1, 0.9, (1, 1, 100, 50))], [], {1: 1}, 1),
    ("IoU just under .5 is a miss", [[(1, (1, 1, 100, 100))]], [(1, 1, 0.9, (1, 1, 100, 49))], [], {1: 0}, 0),
    (
        "10x10 object, 20x20 detection, threshold .25",
        [[(1, (11, 11, 20, 20))]],
        [(1, 1, 0.9, (6, 6, 25, 25))],
        [],
        {1: 1},
        1,
    ),
    ("10x10 object, 20x21 detection misses", [[(1, (11, 11, 20, 20))]], [(1, 1, 0.9, (6, 6, 25, 26))], [], {1: 0}, 0),
    ("touching +1 pixel: 1x1 boxes", [[(1, (5, 5, 5, 5))]], [(1, 1, 0.9, (5, 5, 5, 5))], [], {1: 1}, 1),
    (
        "blacklisted pair ignored (detection and object), leading",
        [[(1, BOX)], [(1, BOX)]],
        [(1, 1, 0.99, BOX), (2, 1, 0.5, BOX)],
        [(1, 1)],
        {1: 1},
        1,
    ),
    (
        "blacklisted false positive between hits ignored",
        [[(1, BOX)], [(2, BOX)], [(1, BOX)]],
        [(1, 1, 0.9, BOX), (2, 1, 0.8, BOX), (3, 1, 0.7, BOX)],
        [(2, 1)],
        {1: 1, 2: 0},
        0.5,
    ),
    (
        "same without blacklist",
        [[(1, BOX)], [(2, BOX)], [(1, BOX)]],
        [(1, 1, 0.9, BOX), (2, 1, 0.8, BOX), (3, 1, 0.7, BOX)],
        [],
        {1: 0.83333333333333326, 2: 0},
        0.41666666666666663,
    ),
    (
        "all object of class blacklisted",
        [[(1, BOX), (2, BOX)]],
        [(1, 1, 0.9, BOX), (1, 2, 0.9, BOX)],
        [(1, 1)],
        {1: NAN, 2: 1},
        NAN,
    ),
    ("image without objects", [[], [(1, BOX)]], [(1, 1, 0.9, BOX), (2, 1, 0.8, BOX)], [], {1: 0.5}, 0.5),
    (
        "tie in confidence: earlier image id first (false positive in picture 1, true positive in picture 2)",
        [[(2, BOX)], [(1, BOX)]],
        [(2, 1, 0.5, BOX), (1, 1, 0.5, BOX)],
        [],
        {1: 0.5, 2: 0},
        0.25,
    ),
    (
        "tie in confidence: earlier image id first (true positive in picture 1, false positive in picture 2)",
        [[(1, BOX)], [(2, BOX)]],
        [(2, 1, 0.5, BOX), (1, 1, 0.5, BOX)],
        [],
        {1: 1, 2: 0},
        0.5,
    ),
    (
        "tie inside one image: file order (false positive line first)",
        [[(1, BOX)]],
        [(1, 1, 0.5, (200, 200, 260, 260)), (1, 1, 0.5, BOX)],
        [],
        {1: 0.5},
        0.5,
    ),
    (
        "tie inside one image: file order (true positive line first)",
        [[(1, BOX)]],
        [(1, 1, 0.5, BOX), (1, 1, 0.5, (200, 200, 260, 260))],
        [],
        {1: 1},
        1,
    ),
    (
        "area under envelope, not 11 point",
        [[(1, BOX)], [(1, BOX)], [(1, BOX)], [(2, BOX)]],
        [(1, 1, 0.9, BOX), (4, 1, 0.8, BOX), (2, 1, 0.7, BOX), (4, 1, 0.6, (1, 1, 5, 5)), (3, 1, 0.5, BOX)],
        [],
        {1: 0.75555555555555554, 2: 0},
        0.37777777777777777,
    ),
    (
        "negative and fractional coordinates",
        [[(1, (1, 1, 50, 50))]],
        [(1, 1, 0.9, (-3.5, -2.25, 49.5, 51))],
        [],
        {1: 1},
        1,
    ),
    ("inverted box", [[(1, BOX)]], [(1, 1, 0.9, (60, 60, 11, 11))], [], {1: 0}, 0),
]


@pytest.mark.parametrize(
    ("pictures", "found", "blacklist", "ap", "mean"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_the_answer_is_that_of_the_official_code(pictures, found, blacklist, ap, mean) -> None:
    objects = [(number, *one) for number, those in enumerate(pictures, start=1) for one in those]
    truth = GroundTruth.from_arrays(
        range(1, len(pictures) + 1), *([row[column] for row in objects] for column in range(3))
    )
    detections = Submission(
        *(np.array([row[column] for row in found]) for column in range(3)),
        np.array([row[3] for row in found], np.float64),
    )
    got = evaluate(truth, detections, blacklist)
    assert got.ap == pytest.approx(ap, abs=1e-12, rel=0, nan_ok=True)
    assert got.mean_ap("official") == pytest.approx(mean, abs=1e-12, rel=0, nan_ok=True)
