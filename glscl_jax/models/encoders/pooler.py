"""VideoPrism's pooler: one learned query reads a feature out of any number of tokens.

Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models", 2022; as the code of
google-deepmind/videoprism has it: its heads together are as wide as a block's MLP, each of a
head's dimensions has a factor of its own, and a LayerNorm follows in place of an MLP.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from glscl_jax.models.encoders.probe import read_by_query
from glscl_jax.models.encoders.transformer import Blocks, layer_norm


class Pooler(nn.Module):
    """Tokens [N,L,D] -> [N,D]: the LayerNorm of what the query reads."""

    blocks: Blocks
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """tokens: [N,L,D], all of which it sees."""
        blocks = self.blocks
        # No cap, which the blocks' logits have.
        own = {"width": blocks.mlp_width, "scaled": True}
        read = read_by_query(self, tokens, blocks, self.dtype, **own)[:, 0]
        return layer_norm("ln", blocks.epsilon, blocks.offset)(read).astype(self.dtype)
