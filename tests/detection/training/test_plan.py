"""The plan of a training, for a network with round times."""

from dataclasses import replace

import pytest

from inception_rcnn.detection.training.finetune import FineTuneSettings
from inception_rcnn.detection.training.multibox import MultiBoxSettings
from inception_rcnn.detection.training.plan import PlannedStage, Recipe, Speed, plan_sentences, plan_stages
from inception_rcnn.detection.training.screen import ScreenSettings

SPEED = Speed(crop=0.02, frozen=0.01)
ONE_NETWORK = Recipe(
    members=1,
    settings=FineTuneSettings(),
    multibox=None,
    screen=None,
    regression=True,
    has_multibox=False,
    has_screen=False,
)


def planned(recipe: Recipe, measured: int = 0, speed: Speed = SPEED) -> list[str]:
    return [stage.name for stage in plan_stages(speed, recipe, pictures=100, objects=200, measured=measured)]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (ONE_NETWORK, ["proposals", "frozen blocks", "training", "box regression"]),
        (replace(ONE_NETWORK, regression=False), ["proposals", "frozen blocks", "training"]),
        (
            replace(ONE_NETWORK, members=6),
            ["proposals", "frozen blocks", "training of 6 members", "box regression", "cascade"],
        ),
        (
            replace(
                ONE_NETWORK,
                members=6,
                multibox=MultiBoxSettings(),
                screen=ScreenSettings(),
                has_multibox=True,
                has_screen=True,
            ),  # no cascade after a screen
            ["MultiBox", "screen", "proposals", "frozen blocks", "training of 6 members", "box regression"],
        ),
        (replace(ONE_NETWORK, members=0), ["proposals", "box regression"]),
        (replace(ONE_NETWORK, members=0, regression=False), []),
    ],
)
def test_the_plan_holds_the_stages_that_are_asked_for_in_order(recipe, expected):
    assert planned(recipe) == expected
    assert planned(recipe, measured=10) == [*expected, "evaluation"]


def test_a_network_without_frozen_blocks_has_no_stage_for_them():
    assert "frozen blocks" not in planned(ONE_NETWORK, speed=Speed(crop=0.02, frozen=0.0))


def test_a_training_step_takes_three_times_as_long_as_a_pass_through_the_trained_blocks():
    stages = plan_stages(SPEED, ONE_NETWORK, pictures=100, objects=200, measured=0)
    (training,) = (stage for stage in stages if stage.name == "training")
    assert training.amount == "3,000 steps of 128 windows"
    assert training.seconds == pytest.approx(3000 * 128 * 3 * 0.01)


def test_the_sentences_give_the_whole_time_first_and_then_each_stage():
    stages = [PlannedStage("proposals", "1,200 pictures", 600.0), PlannedStage("training", "3,000 steps", 3000.0)]
    assert plan_sentences(stages, 1200) == [
        "plan for 1,200 pictures, in all about 60 min on this machine (a rough estimate; finished stages are skipped):",
        "  1. proposals: 1,200 pictures, about 10 min",
        "  2. training: 3,000 steps, about 50 min",
    ]
