"""What a LIM of the study may do otherwise: numbers, so that variants differ in no program."""

from typing import Any

import flax.struct
import jax
import numpy as np

# A number, or of many runs at once an array.
Number = Any


@flax.struct.dataclass
class Options:
    """Float32 scalars; the defaults are the reference's. Switches are 0 or 1.

    Attributes:
      gim_weight, lim_weight: of the two scores.
      learned: whether the LIM's weight is learned, from `lim_weight` on.
      alpha, beta, centre, margin, target, per_pair: see `LossWeights`.
      per_item: whether the diversity loss is of each item's Gram matrix, not of the batch's mean.
      both_sides: whether it is of texts, too.
      positions: whether the memory's places have learned vectors added.
      memory_norm: whether the memory goes through a layer norm of its side.
      masked: whether padding is hidden from the queries.
      competing: whether a token is shared out among the queries, and each query's shares are
        then made to sum up to 1 (as slots do; Locatello et al., 2020), in place of a softmax over
        the tokens.
      repeated: whether the queries are added again before every attention.
      pre_norm: whether layer norms stand before what is added and not behind the sum.
      projected: whether every concept has a matrix of its own, at the start one of random signs.
      sliced: whether concept k keeps the k-th of K slices of its numbers, and no other.
      centred: whether the mean of an item's concepts is taken from each.
      lim_rate: factor on the learning rate of the LIM's parameters.
    """

    gim_weight: Number = 1.0
    lim_weight: Number = 0.5
    learned: Number = 0.0
    alpha: Number = 1e-4
    beta: Number = 5e-3
    centre: Number = 1.0
    margin: Number = 0.1
    target: Number = 0.75
    per_pair: Number = 0.0
    per_item: Number = 0.0
    both_sides: Number = 0.0
    positions: Number = 0.0
    memory_norm: Number = 0.0
    masked: Number = 0.0
    competing: Number = 0.0
    repeated: Number = 0.0
    pre_norm: Number = 0.0
    projected: Number = 0.0
    sliced: Number = 0.0
    centred: Number = 0.0
    lim_rate: Number = 1.0

    @classmethod
    def stacked(cls, several: list["Options"]) -> "Options":
        """Many as one, of float32 [n]."""
        return jax.tree.map(lambda *numbers: np.array(numbers, np.float32), *several)


def uniform(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers in [0, 1), as the reference draws them, but from a generator of NumPy's."""
    return rng.random((count, width))


def orthogonal(count: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors at right angles, each of zero mean."""
    drawn = rng.normal(size=(width, count))
    drawn -= drawn.mean(axis=0)
    # The columns of Q span those of `drawn`, all of zero mean.
    return np.linalg.qr(drawn)[0].T


# How queries begin: [K,D] of (K, D, generator).
STARTS = {
    "orthogonal": orthogonal,
    # As long as a layer norm makes a vector.
    "orthogonal_long": lambda count, width, rng: orthogonal(count, width, rng) * width**0.5,
    "normal": lambda count, width, rng: rng.normal(size=(count, width)),
    "uniform_x5": lambda count, width, rng: 5 * uniform(count, width, rng),
    "normal_x5": lambda count, width, rng: 5 * rng.normal(size=(count, width)),
}
