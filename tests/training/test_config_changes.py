"""A run that goes on with other settings: what it says, what it keeps, and when it is over."""

import pytest

from glscl_jax.profiling import trace
from glscl_jax.training import config_changes
from glscl_jax.training.config_changes import Schedule
from glscl_jax.training.optim import OptimConfig

CONFIG = {
    "num_steps": 1000,
    "num_epochs": 5,
    "init_from": "",
    "log_every": 50,
    "losses": {"alpha": 1e-4},
    "optim": {"learning_rate": 1e-4, "coef_lr": 1e-3, "warmup": 0.1, "weight_decay": 0.2},
}


def told(step=500, **changes) -> list[str]:
    new = {**CONFIG, **changes, "optim": {**CONFIG["optim"], **changes.pop("optim", {})}}
    before, after = (Schedule.of_config(x, steps_per_epoch=300) for x in (CONFIG, new))
    return config_changes.describe(CONFIG, new, step, step, before, after)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        # Halfway the cosine is at 1/2, after a quarter at (1 + cos(pi / 4)) / 2 = 0.854.
        (
            {"num_steps": 2000},
            "config.num_steps 1000 -> 2000: the schedule stretches from 1000 to 2000 updates; the "
            "rate at step 500 goes from 5e-05 to 8.54e-05, CLIP's from 5e-08 to 8.54e-08",
        ),
        ({"num_steps": 500}, "shrinks from 1000 to 500 updates; the rate at step 500 goes from 5e"),
        ({"num_steps": 0}, "num_steps 1000 -> 0: the schedule stretches from 1000 to 1500 updates"),
        ({"num_epochs": 7}, "config.num_epochs 5 -> 7: the run still has 1000 steps"),
        (
            {"optim": {"learning_rate": 2e-4}},
            "config.optim.learning_rate 0.0001 -> 0.0002: the rate at step 500 goes from 5e-05 to "
            "0.0001, CLIP's from 5e-08 to 1e-07",
        ),
        ({"optim": {"coef_lr": 1e-2}}, "from 5e-05 to 5e-05, CLIP's from 5e-08 to 5e-07"),
        # Still climbing: 500 of 600.
        ({"optim": {"warmup": 0.6}}, "the rate at step 500 goes from 5e-05 to 8.33e-05"),
        ({"optim": {"weight_decay": 0.1}}, "weight_decay 0.2 -> 0.1: holds from step 500 on"),
        ({"losses": {"alpha": 1e-2}}, "losses.alpha 0.0001 -> 0.01: the loss is another from step"),
        ({"init_from": "x"}, "config.init_from none -> x: is not read"),
        ({"log_every": 10}, "config.log_every 50 -> 10: leaves training as it is"),
    ],
)
def test_what_a_change_does(changes, line):
    (said,) = told(**changes)
    assert line in said
    assert "\n" not in said


def test_nothing_is_said_of_nothing():
    assert told() == []
    assert len(told(num_steps=2000, log_every=10)) == 2


def test_schedules_are_read_alike():
    optim = OptimConfig(learning_rate=1e-4, coef_lr=1e-3, warmup=0.1)
    assert Schedule.of(optim, 1000) == Schedule.of_config(CONFIG, 300)


@pytest.mark.parametrize(
    ("text", "done", "left"),
    [
        ("", 20, None),
        ("10:15", 20, None),
        ("10:20", 20, None),
        ("10:25", 20, trace.Window(21, 25)),
        ("25:30", 20, trace.Window(25, 30)),
        ("5", 20, trace.Window(22, 26)),
        ("5", 37, trace.Window(39, 40)),
        ("5", 39, None),
        ("5", 0, trace.Window(2, 6)),
        ("1:3", 0, trace.Window(1, 3)),
    ],
)
def test_a_window_that_is_asked_for_again(text, done, left):
    assert trace.window_left(text, done, 40) == left
