"""The temporal module: what a frame's feature learns from the frames around it.

Three kinds, by the names of the reference's `agg_module`: "seqTransf", "seqLSTM" and "None".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from glscl_jax.models.encoders.attention import AttentionMask, is_fused
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.products import matmul, spread
from glscl_jax.models.encoders.transformer import (
    Blocks,
    Transformer,
    torch_linear_uniform,
)

KINDS = ("seqTransf", "seqLSTM", "None")

# The reference adds this to a padded frame's logit.
PADDED_FRAME = -1e6
# The reference's frame blocks have a LayerNorm of their own; CLIP's has 1e-5.
LAYER_NORM_EPS = 1e-12


def blocks_of(clip: CLIPConfig, layers: int) -> Blocks:
    """Those of "seqTransf": as the text tower's, from which they start, but for the reference's
    activation and LayerNorm, whatever the tower's are.
    """
    return Blocks(
        clip.embed_dim,
        layers,
        clip.frame_head_width,
        clip.frame_mlp_width,
        epsilon=LAYER_NORM_EPS,
    )


def multiply_adds(kind: str, layers: int, frames: int, clip: CLIPConfig) -> int:
    """Of a video's matrix products in a module of this kind over V frames."""
    if kind == "seqTransf":
        return layers * blocks_of(clip, layers).multiply_adds(frames)
    return frames * 2 * clip.embed_dim * 4 * clip.embed_dim if kind == "seqLSTM" else 0


class TemporalTransformer(nn.Module):
    """Pre-norm CLIP blocks over frames; the untouched features are added back."""

    blocks: Blocks
    positions: int
    dtype: jnp.dtype
    remat: str
    scan: bool
    attention: str = "plain"

    @nn.compact
    def __call__(self, frames: jax.Array, mask: jax.Array) -> jax.Array:
        """frames [B,V,D], mask [B,V] -> [B,V,D]."""
        count, width = frames.shape[1:]
        position = self.param(
            "positional_embedding", initializers.normal(0.01), (self.positions, width)
        )
        x = frames + spread(position[:count], frames)
        fused = is_fused(self.attention, self.dtype, count)
        x = Transformer(self.blocks, self.dtype, self.remat, self.scan, fused, name="transformer")(
            x, AttentionMask(mask, hidden=PADDED_FRAME)
        )
        return frames + x


class TemporalLSTM(nn.Module):
    """One LSTM layer over the real frames, its output 0 at padded places; f is added back.

    Parameters keep the layout of torch.nn.LSTM: two biases, gates in the order input, forget,
    cell, output. The released code has 2 f at places past the longest clip of a batch; here a
    padded place is f always, so that a clip's feature depends on that clip alone.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, frames: jax.Array, mask: jax.Array) -> jax.Array:
        """frames [B,V,D], mask [B,V] with the real frames first -> [B,V,D]."""
        width = frames.shape[-1]
        init = torch_linear_uniform(width)

        def linear(name):
            kernel = self.param(f"{name}_kernel", init, (width, 4 * width))
            bias = self.param(f"{name}_bias", init, (4 * width,))

            def apply(x):
                product = matmul(x, kernel, flat=False)
                return product + spread(bias, product)

            return apply

        inputs, recurrent = linear("input")(frames), linear("recurrent")

        def step(carry, gates):
            hidden, cell = carry
            entry, forget, candidate, exit_ = jnp.split(gates + recurrent(hidden), 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(entry) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(exit_) * jnp.tanh(cell)
            return (hidden, cell), hidden

        start = jnp.zeros((frames.shape[0], width), self.dtype)
        _, outputs = jax.lax.scan(step, (start, start), inputs.swapaxes(0, 1))
        return frames + jnp.where(mask[:, :, None] > 0, outputs.swapaxes(0, 1), 0)
