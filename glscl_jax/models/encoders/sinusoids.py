"""Sinusoidal positions: Vaswani et al., "Attention Is All You Need", 2017."""

import jax
import jax.numpy as jnp
import numpy as np

_SLOWEST = 10_000.0


def sinusoids(length: int, width: int) -> jax.Array:
    """float32 [length,width]: first the sines, then the cosines, of `place / slowness`.

    The slowness runs from 1 to 10,000, both among them, as in VideoPrism's code; the paper's, and
    that of transformers' VideoPrism, stops one step short of 10,000.

    Args:
      length: places, counted from 0.
      width: an even number.
    """
    speeds = _SLOWEST ** -np.linspace(0, 1, width // 2)
    angles = np.outer(np.arange(length), speeds)
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), jnp.float32)
