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
        blocks, width = self.blocks, self.blocks.width
        query = self.param("query", initializers.normal(width**-0.5), (width,))
        shape = (len(tokens), 1, width)
        query = jnp.broadcast_to(spread(query, jax.ShapeDtypeStruct(shape, self.dtype)), shape)
        attention = Attention(
            blocks.heads,
            self.dtype,
            initializers.normal(width**-0.5),
            residual_init(blocks),
            name="attention",
        )
        read = attention(query, tokens)
        normed = layer_norm("ln", blocks.epsilon)(read).astype(self.dtype)
        return (read + mlp(normed, blocks, self.dtype))[:, 0]
