"""GLSCL's losses of the concepts that its LIM reads (Zhang et al., 2024, section 3.4)."""

import dataclasses

import jax
import jax.numpy as jnp

from glscl_jax import ranges
from glscl_jax.ranges import EITHER, Real

_RANGES = {
    "alpha": Real(least=0),
    "beta": Real(least=0),
    "centre": Real(least=0),
    "margin": Real(least=0),
    "target": Real(),
    "per_pair": EITHER,
}


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Constants of the losses; the defaults are the reference's.

    Attributes:
      alpha: weight of the intra-diversity loss.
      beta: weight of the inter-consistency loss's second term.
      centre: weight of its first term; with `beta` and `centre` 0 there is no such loss.
      margin: by which a query must be closer to itself than to another.
      target: what the similarity of a pair's k-th queries is pulled to.
      per_pair: the second term's sum over the batch is divided by K in the released code, so
        it grows with the batch; True divides by the batch instead, as the paper's text has it.
    """

    alpha: float = 1e-4
    beta: float = 5e-3
    centre: float = 1.0
    margin: float = 0.1
    target: float = 0.75
    per_pair: bool = False

    def __post_init__(self):
        ranges.check(vars(self), _RANGES)


def intra_diversity(video_queries: jax.Array, weights: LossWeights) -> jax.Array:
    """Keeps the K concepts of a video apart.

    With G the batch's mean of q^v (q^v)^T, `alpha / (K (K-1))` times the sum over i != j of
    `[margin + G_ij - G_ii]_+ + [margin + G_ij - G_jj]_+`; 0 for a single query.

    Args:
      video_queries: q^v [B,K,D].
      weights: alpha and margin.

    Returns:
      float32 [].
    """
    videos, count, _ = video_queries.shape
    if count == 1:
        return jnp.zeros(())
    gram = jnp.einsum("BKD,BJD->KJ", video_queries, video_queries) / videos
    own = jnp.diagonal(gram)
    by_row = jax.nn.relu(weights.margin + gram - own[:, None])
    by_column = jax.nn.relu(weights.margin + gram - own[None, :])
    others = 1 - jnp.eye(count)
    return weights.alpha * jnp.sum((by_row + by_column) * others) / (count * (count - 1))


def inter_consistency(
    text_queries: jax.Array, video_queries: jax.Array, weights: LossWeights
) -> jax.Array:
    """Makes the k-th concept of a text and of its video the same.

    `centre` times the mean over K and D of `(mean_b q^v - mean_b q^t)^2`, and `beta` times the sum
    over k of `(s_k - target)^2`, where `s_k = sum_b <q^t_bk, q^v_bk> / K` (see
    `LossWeights.per_pair`).

    Args:
      text_queries: q^t [B,K,D].
      video_queries: q^v [B,K,D], the b-th belonging to the b-th text.
      weights: centre, beta, target and per_pair.

    Returns:
      float32 [].
    """
    videos, count, _ = video_queries.shape
    apart = jnp.mean(video_queries, axis=0) - jnp.mean(text_queries, axis=0)
    pairs = jnp.einsum("BKD,BKD->K", video_queries, text_queries)
    pairs = pairs / (videos if weights.per_pair else count)
    centre = weights.centre * jnp.mean(apart**2)
    return centre + weights.beta * jnp.sum((pairs - weights.target) ** 2)
