"""When a LIM's concepts differ, and when they help: variants on the demo, five seeds each.

    python -m benchmarks.lim_study.clips --data_dir demo/data --to demo/clips.npz
    python -m benchmarks.lim_study --clips demo/clips.npz --out study.jsonl    on a GPU
    python -m benchmarks.lim_study --small --out study.jsonl      on a CPU: to show that it works
    python -m benchmarks.lim_study --clips demo/clips.npz --base demo/base --out study.jsonl \
        --protocols from_features --together 1 --threads 1 --minutes 600      on a CPU: all heads

Two protocols: all of the demo's model is trained for its 1,116 steps, or temporal module, head and
logit scale alone for 300, from features of the first seed's towers under the plain mean of frames.
Steps, losses, order of the pairs and figures are the library's own. Trainings that differ by
numbers alone run side by side as one program, those of --together variants with every seed.
benchmarks/lim_study/base.py has the command that makes --base, which stands in for the first
seed's towers.

Each variant is a line of the file as soon as it is done: R@1, R@5, R@10, median rank of texts'
videos in the test split, the mean of the last losses, how alike concepts are, and which queries
were answered right, for every seed. What has a line there of the same seeds, steps and towers is
not run again.

Takes 5 minutes on an NVIDIA H100 with 16 cores (--minutes, after which nothing is begun). Needs
jax, flax, optax, orbax, absl and Pillow, and the file of clips. The first command writes that where
TensorFlow is.
"""

import pathlib
import sys
import time

import numpy as np
from absl import app, flags

from benchmarks.lim_study import recipe, results
from benchmarks.lim_study.base import read_base, towers_name
from benchmarks.lim_study.clips import Clips, read_clips
from benchmarks.lim_study.jobs import BASE, TOGETHER, Study, jobs_of
from benchmarks.lim_study.lanes import Length
from benchmarks.lim_study.variants import ALL, Variant
from benchmarks.machine import machine
from glscl_jax.errors import UserError


def main(_) -> int | None:
    try:
        study()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2


def study() -> None:
    """Runs what flags ask for."""
    values, begun = flags.FLAGS, time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} {line}", flush=True)

    say(machine())
    small = values.small
    splits = drawn(64, 16) if small else read_clips(values.clips)
    lengths = {
        recipe.END_TO_END: Length(20, 8) if small else Length(recipe.STEPS),
        recipe.FROM_FEATURES: Length(10, 8) if small else Length(recipe.FEATURE_STEPS),
    }
    lengths = {name: lengths[name] for name in values.protocols}
    seeds = recipe.SEEDS[:2] if small else recipe.SEEDS
    base = read_base(values.base) if values.base else None
    variants = [x for x in ALL if chosen(x, values.only, base is None)]
    towers = None if base is None else towers_name(base)
    there = results.there(pathlib.Path(values.out), lengths, seeds, towers)
    if there:
        say(f"{values.out} has {len(there)} lines of these seeds, steps and towers")
    if base is None:
        # The towers are in no line.
        there -= {(recipe.END_TO_END, x.name) for x in variants if x.shape == BASE}
    asked = Study(
        train=splits["train"],
        test=splits["test"],
        seeds=seeds,
        out=pathlib.Path(values.out),
        deadline=begun + 60 * values.minutes,
        threads=values.threads,
        say=say,
        base=base,
    )
    asked.run(jobs_of(variants, lengths, values.together, there))
    say(f"lines are in {values.out}")


def chosen(variant: Variant, only: list[str], baseless: bool) -> bool:
    """Whether a variant is among those asked for, or makes the features where no run did."""
    return not only or variant.name in only or (baseless and variant.shape == BASE)


def drawn(train: int, test: int) -> dict[str, Clips]:
    """Splits of noise, as large as asked for."""
    rng, clip = np.random.default_rng(0), recipe.MODEL.clip

    def split(count: int) -> Clips:
        shape = (count, recipe.NUM_FRAMES, clip.image_size, clip.image_size, 3)
        words = (count, recipe.NUM_WORDS)
        lengths = rng.integers(3, recipe.NUM_WORDS + 1, count)
        return Clips(
            rng.integers(0, 256, shape, np.uint8),
            np.ones(shape[:2], np.int32),
            rng.integers(1, clip.vocab_size, words, np.int32),
            (np.arange(recipe.NUM_WORDS) < lengths[:, None]).astype(np.int32),
        )

    return {"train": split(train), "test": split(test)}


def _define_flags() -> None:
    flags.DEFINE_string("clips", "demo/clips.npz", "What benchmarks.lim_study.clips wrote.")
    flags.DEFINE_string("out", "lim_study.jsonl", "The file that lines are added to.")
    flags.DEFINE_float("minutes", 5.0, "After which nothing is begun.", lower_bound=0.1)
    flags.DEFINE_bool("small", False, "Noise, two seeds and 20 steps: to show that it works.")
    flags.DEFINE_string("base", None, "A run whose towers features are of (see base.py).")
    flags.DEFINE_integer("together", TOGETHER, "Variants a program.", lower_bound=1)
    flags.DEFINE_multi_string("only", None, "Variants by name; all by default; repeatable.")
    flags.DEFINE_list("protocols", list(recipe.PROTOCOLS), "Of end_to_end and from_features.")
    flags.DEFINE_integer("threads", 12, "That compile.", lower_bound=1)
    flags.register_validator(
        "protocols",
        lambda names: set(names) <= set(recipe.PROTOCOLS),
        f"there are {', '.join(recipe.PROTOCOLS)}",
    )


if __name__ == "__main__":
    _define_flags()
    # Not `program.run`, which reads recipes: it would need ml_collections.
    app.run(main)
