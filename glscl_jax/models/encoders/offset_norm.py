"""LayerNorm whose scale is kept less 1, as VideoPrism's is: weight decay draws it to 1, not 0."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn import initializers


class OffsetNorm(nn.Module):
    """`(1 + scale) (x - mean) / sqrt(variance + epsilon) + bias` in float32: [...,D] -> [...,D]."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [...,D], normalised over its last axis by the two-pass variance."""
        scale = self.param("scale", initializers.zeros, x.shape[-1:])
        bias = self.param("bias", initializers.zeros, x.shape[-1:])
        normed = nn.LayerNorm(
            epsilon=self.epsilon,
            dtype=jnp.float32,
            use_bias=False,
            use_scale=False,
            use_fast_variance=False,
        )(x)
        return normed * (1 + scale) + bias
