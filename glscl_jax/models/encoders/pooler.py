"""VideoPrism's pooler: one learned query reads a feature out of any number of tokens.

Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", 2022; as the code of
google-deepmind/videoprism has it: its heads together are as wide as a block's MLP, each of a
head's dimensions has a factor of its own, and a LayerNorm follows in place of an MLP.
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
    residual_init,
)


class Pooler(nn.Module):
    """Tokens [N,L,D] -> [N,D]: the LayerNorm of what the query reads."""

    blocks: Blocks
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """tokens: [N,L,D], all of which it sees."""
        blocks, width = self.blocks, self.blocks.width
        query = self.param("query", initializers.normal(width**-0.5), (width,))
        shape = (len(tokens), 1, width)
        query = jnp.broadcast_to(spread(query, jax.ShapeDtypeStruct(shape, self.dtype)), shape)
        # No cap, which the blocks' logits have.
        attention = Attention(
            blocks.heads,
            self.dtype,
            initializers.normal(width**-0.5),
            residual_init(blocks),
            width=blocks.mlp_width,
            scaled=True,
            name="attention",
        )
        read = attention(query, tokens)[:, 0]
        return layer_norm("ln", blocks.epsilon, blocks.offset)(read).astype(self.dtype)
