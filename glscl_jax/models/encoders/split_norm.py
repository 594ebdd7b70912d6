"""LayerNorm whose backward pass goes in two steps, as it suits a GPU.

The gradient of the scale is a sum down the rows, that of what is normed takes means along them.
Written as one, XLA keeps the products of the first in float32, [...,D], to sum them up in a kernel
of its own: twice the bytes of all that the second reads in half precision. Here the means stand by
themselves, two numbers a row, and both steps make the rest anew from what they read.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import initializers


class SplitNorm(nn.Module):
    """`scale (x - mean) / sqrt(variance + epsilon) + bias` in float32: [...,D] -> [...,D].

    Parameters, values and gradients are those of nn.LayerNorm by the two-pass variance.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x: [...,D], normed over its last axis."""
        scale = self.param("scale", initializers.ones, x.shape[-1:])
        bias = self.param("bias", initializers.zeros, x.shape[-1:])
        return _norm(x, scale, bias, self.epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    mean, rate = _means(x, epsilon)
    return (x - mean) * (rate * scale) + bias


def _means(x: jax.Array, epsilon: float) -> tuple[jax.Array, jax.Array]:
    """float32 [...,1]: the mean, and one over the deviation."""
    x = x.astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    return mean, lax.rsqrt(jnp.square(x - mean).mean(-1, keepdims=True) + epsilon)


def _forward(x, scale, bias, epsilon):
    return _norm(x, scale, bias, epsilon), (x, scale)


def _backward(epsilon: float, kept: tuple[jax.Array, jax.Array], slope: jax.Array):
    """Of y = scale n + bias with n = (x - mean) rate and u = slope scale, along a row:
    `rate (u - mean(u) - n mean(u n))`; down the rows `sum(slope n)` and `sum(slope)`.
    """
    x, scale = kept
    # Behind a barrier they are arrays by themselves.
    mean, rate = lax.optimization_barrier(_means(x, epsilon))
    normed, inner = (x - mean) * rate, slope * scale
    along = inner.mean(-1, keepdims=True), (inner * normed).mean(-1, keepdims=True)
    shift, tilt = lax.optimization_barrier(along)
    rows = tuple(range(x.ndim - 1))
    slope_x = (rate * (inner - shift - normed * tilt)).astype(x.dtype)
    return slope_x, (slope * normed).sum(rows), slope.sum(rows)


_norm.defvjp(_forward, _backward)
