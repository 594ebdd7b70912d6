"""What is trained side by side by one program: variants of one shape, each with every seed."""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import numpy as np

from benchmarks.lim_study import recipe
from benchmarks.lim_study.options import STARTS, Options
from benchmarks.lim_study.variants import Variant
from glscl_jax.input_pipeline.pair_order import TrainOrder


@flax.struct.dataclass
class Lanes:
    """n trainings.

    Attributes:
      seed: int32 [n].
      options: float32 [n] each.
      start: float32 [n,K,D], how queries begin.
      given: bool [n], whether they do; else as the reference's.
      picks: int32 [n,S,B], the clips of each step.
    """

    seed: jax.Array
    options: Options
    start: jax.Array
    given: jax.Array
    picks: jax.Array


@dataclasses.dataclass(frozen=True)
class Length:
    """How much is trained.

    Attributes:
      steps: S.
      batch: B.
    """

    steps: int
    batch: int = recipe.BATCH


def lanes_of(
    variants: Sequence[Variant], seeds: Sequence[int], length: Length, clips: int
) -> Lanes:
    """Each variant with each seed, a variant's one after the other; variants of one shape.

    Args:
      variants: those.
      seeds: of parameters and of the pairs' order.
      length: see there.
      clips: N, in the training split.
    """
    pairs = [(variant, seed) for variant in variants for seed in seeds]
    orders = {seed: _picks(seed, length, clips) for seed in seeds}
    return Lanes(
        seed=np.array([seed for _, seed in pairs], np.int32),
        options=Options.stacked([Options(**dict(variant.options)) for variant, _ in pairs]),
        start=np.stack([_start(variant, seed) for variant, seed in pairs]),
        given=np.array([bool(variant.start) for variant, _ in pairs]),
        picks=np.stack([orders[seed] for _, seed in pairs]),
    )


def _picks(seed: int, length: Length, clips: int) -> np.ndarray:
    """int32 [S,B]: the order of the training's own pipeline, of clips with one caption each."""
    order = TrainOrder(np.ones(clips, np.int64), length.batch, seed)
    return np.stack([order(step).clips for step in range(length.steps)]).astype(np.int32)


def _start(variant: Variant, seed: int) -> np.ndarray:
    shape = (variant.shape.queries, recipe.MODEL.clip.embed_dim)
    if not variant.start:
        return np.zeros(shape, np.float32)
    rng = np.random.default_rng(seed)
    return STARTS[variant.start](*shape, rng).astype(np.float32)
