"""How long every recipe trains on its benchmark as published, beside the reference.

    python -m benchmarks.plans

Nothing is trained or read. Of clips and captions the published totals are taken, captions spread
evenly over the clips, which no benchmark comes near to having too unevenly (see `order`). Of a
range that is published, the most.
"""

import importlib
from collections.abc import Iterator

import numpy as np

from glscl_jax.input_pipeline.annotations.counts import PUBLISHED
from glscl_jax.input_pipeline.annotations.validation import DEFAULT_SIZES
from glscl_jax.input_pipeline.plan import Plan

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
    train = next(count for count in PUBLISHED[dataset].counts if "train" in count.splits)
    clips, captions = train.videos[1], train.captions[1]
    return (captions // clips + (np.arange(clips) < captions % clips))[held_out:]


def plan(dataset: str, held_out: int = 0) -> Plan:
    """Of the recipe here."""
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
        yield _line(dataset, plan(dataset), beside)
        if size := DEFAULT_SIZES.get(dataset):
            yield _line(f"{dataset}, {size} videos held out", plan(dataset, size), "-")


def _line(label: str, plan: Plan, beside: str) -> str:
    figures = f"{plan.pairs:,} | {plan.steps_per_epoch:,} | {plan.num_steps:,}"
    return f"| {label} | {figures} | {beside} |"


if __name__ == "__main__":
    print("\n".join(table()))
