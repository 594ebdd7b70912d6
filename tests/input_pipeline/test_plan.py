"""How long a run is: epochs over pairs, beside the reference's.

Also the table of docs/training.md: every recipe on its benchmark as published. Captions are spread
evenly over the clips, which no benchmark comes near to having too unevenly (see `pair_order`); of a
range that is published, the most.
"""

import importlib
from collections.abc import Iterator

import numpy as np
import pytest
from ml_collections import ConfigDict

from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline import pipeline
from glscl_jax.input_pipeline.annotations import BENCHMARKS
from glscl_jax.input_pipeline.plan import Plan
from glscl_jax.models.glscl import GLSCLConfig
from tests.conftest import REPO

# By data set: config and variant.
RECIPES = {
    "msrvtt_9k": ("msrvtt", None),
    "msrvtt_7k": ("msrvtt", "7k"),
    "msrvtt_full": ("msrvtt", "full"),
    "msvd": ("msvd", None),
    "vatex": ("vatex", None),
    "lsmdc": ("lsmdc", None),
    "didemo": ("didemo", None),
    "activitynet": ("activitynet", None),
}
# The reference's batch and epochs, as its scripts pass them; the others it has no script for.
RELEASED = {
    "msrvtt_9k": (128, 5),
    "msrvtt_7k": (128, 5),
    "msvd": (128, 5),
    "lsmdc": (128, 5),
    "didemo": (32, 5),
    "activitynet": (64, 10),
}


def captions_of(dataset: str, held_out: int = 0) -> np.ndarray:
    """The number of captions of each training clip, int64 [N], without the clips held out."""
    train = next(count for count in BENCHMARKS[dataset].counts if "train" in count.splits)
    clips, captions = train.videos[1], train.captions[1]
    return (captions // clips + (np.arange(clips) < captions % clips))[held_out:]


def planned(dataset: str, held_out: int = 0) -> Plan:
    """Of the recipe here, without the clips held out."""
    name, variant = RECIPES[dataset]
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    return Plan.of(
        captions_of(dataset, held_out),
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        num_steps=config.num_steps,
    )


def reference(dataset: str) -> tuple[int, int, int]:
    """Pairs, updates an epoch and updates in all of the released code.

    Its loader lists (clip, caption) pairs, shuffles them, and drops the last, partial batch.
    """
    batch_size, epochs = RELEASED[dataset]
    pairs = int(captions_of(dataset).sum())
    return pairs, pairs // batch_size, epochs * (pairs // batch_size)


def table() -> Iterator[str]:
    """Lines of Markdown: all training videos, and again without those that `prepare` holds out."""
    yield "| data set | pairs | updates an epoch | in all | the reference's |"
    yield "| --- | --- | --- | --- | --- |"
    for dataset in RECIPES:
        beside = "-"
        if dataset in RELEASED:
            beside = "{:,} pairs, {:,}, {:,}".format(*reference(dataset))
        yield _line(dataset, planned(dataset), beside)
        if size := BENCHMARKS[dataset].validation_size:
            yield _line(f"{dataset}, {size} videos held out", planned(dataset, size), "-")


def _line(label: str, plan: Plan, beside: str) -> str:
    figures = f"{plan.pairs:,} | {plan.steps_per_epoch:,} | {plan.num_steps:,}"
    return f"| {label} | {figures} | {beside} |"


# Pairs, updates an epoch and in all, as the released code trains: worked out by hand from the
# published numbers of captions, batches of 128 (32, 64) and 5 (10) epochs.
REFERENCE = {
    "msrvtt_9k": (180_000, 1_406, 7_030),
    "msrvtt_7k": (140_200, 1_095, 5_475),
    "msvd": (48_774, 381, 1_905),
    "lsmdc": (101_079, 789, 3_945),
    "didemo": (8_395, 262, 1_310),
    "activitynet": (10_009, 156, 1_560),
}
# As many again, of the recipes' own batches and epochs.
UNRELEASED = {"msrvtt_full": (130_260, 1_017, 5_085), "vatex": (259_910, 2_030, 10_150)}


@pytest.mark.parametrize("dataset", REFERENCE)
def test_recipes_train_as_long_as_the_reference(dataset):
    plan = planned(dataset)
    assert (plan.pairs, plan.steps_per_epoch, plan.num_steps) == REFERENCE[dataset]
    assert reference(dataset) == REFERENCE[dataset]
    assert "\n" not in plan.describe()


def test_splits_without_a_released_script():
    assert RECIPES.keys() - RELEASED.keys() == UNRELEASED.keys()
    for dataset, expected in UNRELEASED.items():
        plan = planned(dataset)
        assert (plan.pairs, plan.steps_per_epoch, plan.num_steps) == expected


def test_videos_held_out_are_not_trained_on():
    plan = planned("msrvtt_9k", 500)
    assert (plan.clips, plan.pairs, plan.num_steps) == (8_500, 170_000, 6_640)


def test_the_documented_table_is_of_the_recipes():
    assert "\n".join(table()) in (REPO / "docs" / "training.md").read_text()


def test_a_plan_says_how_long():
    plan = Plan.of(np.array([2, 3, 2, 3]), batch_size=3, num_epochs=4)
    assert plan == Plan(
        clips=4, pairs=10, batch_size=3, steps_per_epoch=3, num_steps=12, most_captions=3
    )
    assert plan.describe() == (
        "plan: 10 pairs of 4 clips, 3 a batch; 3 updates an epoch (steps_per_epoch), 12 in all"
    )
    assert Plan.of(np.array([2, 3]), batch_size=2, num_epochs=4, num_steps=5).num_steps == 5


def test_a_plan_says_what_an_epoch_cannot_show():
    plan = Plan.of(np.array([100, *[1] * 19]), batch_size=4, num_epochs=1)
    assert plan.describe() == (
        "plan: 119 pairs of 20 clips, 4 a batch; 6 updates an epoch (steps_per_epoch), 6 in all\n"
        "an epoch shows 24 of them, drawn anew each time: a clip has 100 captions, a batch has none"
        " twice, and no more than 6 batches can be filled"
    )


def test_a_run_whose_epochs_passed_over_clips_is_refused(tmp_path):
    config, model = ConfigDict({"seed": 1}), GLSCLConfig()
    single, several = (
        Plan.of(np.array(counts), batch_size=1, num_epochs=1) for counts in ([1, 1], [1, 2])
    )
    workdir = Workdir(tmp_path / "run")
    workdir.begin(config, model, plan=several)
    workdir.begin(config, model, plan=several)
    (workdir.path / "plan.json").unlink()
    with pytest.raises(UserError, match=r"epochs passed over clips, .* --workdir of its own"):
        workdir.begin(config, model, plan=several)
    # Of one caption a clip the order is what it was.
    workdir.begin(config, model, plan=single)


def test_a_split_of_no_clips_is_not_told_of_batches():
    with pytest.raises(UserError, match="split 'train' has no clips to train on: prepare some"):
        pipeline.fitting(np.zeros(0, np.int64), "train", 4)
