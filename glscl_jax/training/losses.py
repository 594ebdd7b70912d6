"""What training minimises: the contrastive loss, the losses of the head's own, and their sum."""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Losses:
    """Float32 scalars.

    Attributes:
      total: the plain sum of the others.
      contrastive: of the scores.
      own: of the head's own, by name.
    """

    total: jax.Array
    contrastive: jax.Array
    own: dict[str, jax.Array]

    @classmethod
    def of(cls, contrastive: jax.Array, own: Mapping[str, jax.Array]) -> "Losses":
        """The contrastive loss [] and those of the head's own [], and their sum."""
        return cls(sum((contrastive, *own.values())), contrastive, dict(own))


def contrastive(scores: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Symmetric cross-entropy of `scores * exp(logit_scale)`.

    Args:
      scores: [B,B], the right pairs on the diagonal.
      logit_scale: [], a logarithm.
    """
    logits = scores * jnp.exp(logit_scale)
    right = jnp.diagonal(logits)
    rows = jax.nn.logsumexp(logits, axis=1) - right
    columns = jax.nn.logsumexp(logits, axis=0) - right
    return (jnp.mean(rows) + jnp.mean(columns)) / 2
