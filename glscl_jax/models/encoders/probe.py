"""The attention probe: one learned query reads an image out of all its tokens.

Zhai et al., "Scaling Vision Transformers", 2022 (there the MAP head); SigLIP's and the Perception
Encoder's pooling.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from glscl_jax.models.encoders.products import spread
from glscl_jax.models.encoders.transformer import (
    Attention,
    Blocks,
    layer_norm,
    mlp,
    residual_init,
)


class Probe(nn.Module):
    """`y + mlp(ln(y))` of `y = attention(query, tokens)`: tokens [N,L,D] -> [N,D]."""

    blocks: Blocks
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """tokens: [N,L,D], all of which it sees."""
        blocks = self.blocks
        read = read_by_query(self, tokens, blocks, self.dtype)
        normed = layer_norm("ln", blocks.epsilon)(read).astype(self.dtype)
        return (read + mlp(normed, blocks, self.dtype))[:, 0]


def read_by_query(
    module: nn.Module, tokens: jax.Array, blocks: Blocks, dtype: jnp.dtype, **attention
) -> jax.Array:
    """What one learned query of `module` reads out of tokens: [N,L,D] -> [N,1,D].

    Args:
      module: whose parameters these are, "query" and "attention".
      tokens: all of which the query sees.
      blocks: heads and width, and how projections begin.
      dtype: of the computation.
      attention: more settings of `Attention`.
    """
    width = blocks.width
    query = module.param("query", initializers.normal(width**-0.5), (width,))
    shape = (len(tokens), 1, width)
    query = jnp.broadcast_to(spread(query, jax.ShapeDtypeStruct(shape, dtype)), shape)
    init = initializers.normal(width**-0.5)
    reader = Attention(
        blocks.heads, dtype, init, residual_init(blocks), name="attention", **attention
    )
    return reader(query, tokens)
