"""What training minimises: a contrastive loss, the losses of the head's own, and their sum."""

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


# What `config.contrastive` may be.
CONTRASTIVE = ("softmax", "sigmoid")


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


def sigmoid_contrastive(
    scores: jax.Array, logit_scale: jax.Array, logit_bias: jax.Array
) -> jax.Array:
    """Whether a text and a video belong together, asked of each pair by itself.

    `-sum_ab log sigmoid(z_ab (scores_ab exp(logit_scale) + logit_bias)) / B`, where z is 1 of right
    pairs and -1 of others (Zhai et al., "Sigmoid Loss for Language Image Pre-Training", 2023).

    Args:
      scores: [B,B], the right pairs on the diagonal.
      logit_scale: [], a logarithm.
      logit_bias: [].
    """
    logits = scores * jnp.exp(logit_scale) + logit_bias
    # -log sigmoid(x) is softplus(-x), and softplus(-x) = softplus(x) - x.
    return (jnp.sum(jax.nn.softplus(logits)) - jnp.trace(logits)) / len(logits)
