"""Rotary positions of patches: queries and keys turned by their place, x and y apart.

Su et al., "RoFormer", 2021; in two dimensions as the Perception Encoder has them (Bolya et al.,
2025). A head's numbers are taken in pairs of neighbours; each pair is turned by an angle, the first
half of the pairs in proportion to x and the other half to y, each the slower the later it comes.
So the product of a query and a key knows how far apart their patches are.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

# The slowest pair would turn once in this many patches, times 2 pi.
_SLOWEST = 10_000.0


@flax.struct.dataclass
class RotaryAngles:
    """By how much each place is rotated.

    Attributes:
      cos, sin: float32 [L,C/2], of the angle of each of a head's pairs, C its width.
    """

    cos: jax.Array
    sin: jax.Array


def rotary_angles(side: int, head_width: int, class_token: bool, length: int) -> RotaryAngles:
    """Of `side` x `side` patches, rows first.

    Args:
      side: patches along a side.
      head_width: C, a multiple of 4.
      class_token: whether one stands first: it is not turned, and patches are counted from 1, so
        that it has the place (0, 0).
      length: L; what stands behind the patches is not turned.
    """
    pairs = head_width // 4
    speeds = _SLOWEST ** -(np.arange(pairs) / pairs)
    places = np.arange(side) + int(class_token)
    x, y = np.tile(places, side), np.repeat(places, side)
    angles = np.zeros((length, head_width // 2))
    patches = slice(int(class_token), int(class_token) + side**2)
    angles[patches] = np.concatenate([np.outer(x, speeds), np.outer(y, speeds)], axis=1)
    cos, sin = (jnp.asarray(x, jnp.float32) for x in (np.cos(angles), np.sin(angles)))
    return RotaryAngles(cos, sin)


def apply_rotary(heads: jax.Array, angles: RotaryAngles) -> jax.Array:
    """Queries or keys [B,L,H,C], turned in float32, in their own type again."""
    pairs = heads.astype(jnp.float32).reshape(*heads.shape[:-1], -1, 2)
    cos, sin = angles.cos[:, None], angles.sin[:, None]
    one, two = pairs[..., 0], pairs[..., 1]
    pairs = jnp.stack([one * cos - two * sin, one * sin + two * cos], axis=-1)
    return pairs.reshape(heads.shape).astype(heads.dtype)
