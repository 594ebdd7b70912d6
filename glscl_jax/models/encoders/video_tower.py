"""A factorised space-time encoder: blocks over each frame's patches, then over time.

Zhao et al., "VideoPrism: A Foundational Visual Encoder for Video Understanding", 2024, whose
video-text model this is; the factorisation is the second of Arnab et al., "ViViT", 2021.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers

from glscl_jax.models.encoders import patches
from glscl_jax.models.encoders.attention import AttentionMask
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.parameters import Traits, state
from glscl_jax.models.encoders.pooler import Pooler
from glscl_jax.models.encoders.transformer import Transformer, layer_norm

state(
    Traits(
        stages={
            "clip/vision/": (
                ("transformer/", ("/ln_space/scale", "/ln_space/bias", "/time_embedding")),
                ("time/", ("/ln_time/scale", "/ln_time/bias")),
                ("auxiliary/", ()),
            )
        }
    )
)


class VideoTower(nn.Module):
    """Videos [B,V,H,W,3] (float, normalised) to a feature of every frame [B,V,D].

    Each patch sees its frame, then the patches of its own place in the other frames, and in the
    auxiliary blocks all patches of all frames. One query reads each frame's feature out of what
    comes of its patches. Places without a frame are seen by nothing, and a video's positions in
    time are those of its own number of frames: its features depend on no padding.
    """

    config: CLIPConfig
    dtype: jnp.dtype
    remat: str
    scan: bool

    @nn.compact
    def __call__(self, videos: jax.Array, mask: jax.Array) -> jax.Array:
        """videos: [B,V,H,W,3]; mask: [B,V], 1 on real frames, wherever they stand."""
        config, blocks = self.config, self.config.vision_blocks
        count, frames = mask.shape
        x = patches.embed(self, config, self.dtype, videos.reshape(-1, *videos.shape[2:]))
        x = self._stack("transformer", config.vision_layers, x)
        x = layer_norm("ln_space", blocks.epsilon, blocks.offset)(x).astype(self.dtype)
        x = x.reshape(count, frames, config.patches, -1)
        x = x + self._positions(mask)[:, :, None].astype(self.dtype)
        # By places: [B,P,V,D], of which each place is a sequence of its own.
        x = x.swapaxes(1, 2).reshape(-1, frames, blocks.width)
        x = self._stack("time", config.time_layers, x, jnp.repeat(mask, config.patches, axis=0))
        x = layer_norm("ln_time", blocks.epsilon, blocks.offset)(x).astype(self.dtype)
        x = x.reshape(count, config.patches, frames, -1).swapaxes(1, 2)
        x = x.reshape(count, -1, blocks.width)
        if config.auxiliary_layers:
            everything = jnp.repeat(mask, config.patches, axis=1)
            x = self._stack("auxiliary", config.auxiliary_layers, x, everything)
        x = x.reshape(-1, config.patches, blocks.width)
        x = Pooler(dataclasses.replace(blocks, layers=1), self.dtype, name="pooler")(x)
        return x.reshape(count, frames, -1)

    def _stack(self, name: str, layers: int, x: jax.Array, mask: jax.Array | None = None):
        blocks = dataclasses.replace(self.config.vision_blocks, layers=layers)
        return Transformer(blocks, self.dtype, self.remat, self.scan, name=name)(
            x, AttentionMask(mask)
        )

    def _positions(self, mask: jax.Array) -> jax.Array:
        """The positions in time of each frame, float32 [B,V,D]."""
        config = self.config
        table = self.param(
            "time_embedding",
            initializers.normal(config.vision_width**-0.5),
            (config.time_positions, config.vision_width),
        )
        weights = resampling(mask, config.time_positions)
        return jnp.einsum("BVT,TD->BVD", weights, table, precision=jax.lax.Precision.HIGHEST)


def resampling(mask: jax.Array, positions: int) -> jax.Array:
    """How much each of T learned positions counts at each frame: float32 [B,V,T].

    The T positions are stretched over a video's real frames, bilinearly, as
    `jax.image.resize(..., "bilinear")` and PyTorch's antialiased `interpolate` do it; as many
    frames as positions have them as they are. Places without a frame have any.

    Args:
      mask: [B,V], 1 on real frames.
      positions: T.
    """
    real = mask.astype(jnp.float32)
    frames = jnp.maximum(real.sum(axis=1, keepdims=True), 1)
    step = positions / frames
    centres = (jnp.maximum(jnp.cumsum(real, axis=1) - 1, 0) + 0.5) * step - 0.5
    distance = jnp.abs(centres[:, :, None] - jnp.arange(positions))
    # Fewer frames than positions: each takes in as many as it stands for.
    weights = jnp.maximum(1 - distance / jnp.maximum(step, 1)[:, :, None], 0)
    return weights / weights.sum(axis=2, keepdims=True)
