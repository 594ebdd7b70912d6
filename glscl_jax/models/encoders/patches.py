"""Patches: an image cut into squares, each a token with its place."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.products import matmul, spread


def embed(tower: nn.Module, config: CLIPConfig, dtype: jnp.dtype, images: jax.Array):
    """Images [N,H,W,3] to tokens with their positions, [N,1+patches,D].

    Without the 1 where there is no class token. The parameters are `tower`'s own.
    """
    width, side = config.vision_width, config.side
    scale = width**-0.5
    # A convolution whose stride is its kernel is a matrix product of flattened patches.
    patch = (config.patch_size, config.patch_size, 3)
    kernel = tower.param("patch_embedding", initializers.lecun_normal(), (*patch, width))
    patches = images.reshape(-1, side, config.patch_size, side, config.patch_size, 3).transpose(
        0, 1, 3, 2, 4, 5
    )
    patches = patches.reshape(-1, side * side, int(np.prod(patch))).astype(dtype)
    x = matmul(patches, kernel.reshape(-1, width))
    if config.patch_bias:
        x = x + spread(tower.param("patch_bias", initializers.zeros, (width,)), x)
    if config.class_token:
        first = tower.param("class_embedding", initializers.normal(scale), (width,))
        first = jnp.broadcast_to(spread(first, x[:, :1]), (x.shape[0], 1, width))
        x = jnp.concatenate([first, x], axis=1)
    position = tower.param(
        "positional_embedding", initializers.normal(scale), (config.image_tokens, width)
    )
    return x + spread(position, x)
