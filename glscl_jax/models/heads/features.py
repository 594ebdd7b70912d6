"""What heads make of the encoders' output: of most of them, these."""

from typing import Any, TypeAlias

import flax.struct
import jax
import jax.numpy as jnp

# Whatever a head makes of texts or of videos: a tree of arrays [n,...].
Features: TypeAlias = Any


@flax.struct.dataclass
class TextFeatures:
    """What the score needs of A texts.

    Attributes:
      sentence: [A,D] the end token's feature, c.
      queries: float32 [A,K,D] unit vectors, q^t.
    """

    sentence: jax.Array
    queries: jax.Array


@flax.struct.dataclass
class VideoFeatures:
    """What the score needs of B videos.

    Attributes:
      frames: [B,V,D] frame features after the temporal module, f.
      mask: int32 [B,V], 1 on real frames.
      queries: float32 [B,K,D] unit vectors, q^v.
    """

    frames: jax.Array
    mask: jax.Array
    queries: jax.Array


def count_of(features) -> int:
    """How many texts or videos a tree of features [n,...] is of."""
    return jax.tree.leaves(features)[0].shape[0]


def unit(vectors: jax.Array) -> jax.Array:
    """Vectors [...,D] of length 1, a zero as it is: a padded frame's; its gradient is finite."""
    square = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors / jnp.sqrt(jnp.where(square > 0, square, 1.0))


def directions(features: jax.Array) -> jax.Array:
    """Features [...,D] of length 1, in their own type; lengths are float32's."""
    return unit(features.astype(jnp.float32)).astype(features.dtype)
