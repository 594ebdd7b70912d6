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

from glscl_jax import target

# The slowest pair would turn once in this many patches, times 2 pi.
_SLOWEST = 10_000.0


@flax.struct.dataclass
class RotaryAngles:
    """By how much each place is rotated.

    Attributes:
      cos, sin: float32 [L,C], of the angle of each of a head's numbers, C its width: both of a pair
        have the same.
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
    angles = np.repeat(angles, 2, axis=1)
    cos, sin = (jnp.asarray(x, jnp.float32) for x in (np.cos(angles), np.sin(angles)))
    return RotaryAngles(cos, sin)


def apply_rotary(heads: jax.Array, angles: RotaryAngles) -> jax.Array:
    """Queries or keys [B,L,H,C], turned in float32, in their own type again.

    Of a pair (a, b) that is (a cos - b sin, b cos + a sin).
    """
    cos, sin = angles.cos[:, None], angles.sin[:, None]
    turned = heads.astype(jnp.float32) * cos + _crossed(heads).astype(jnp.float32) * sin
    return turned.astype(heads.dtype)


def _crossed(heads: jax.Array) -> jax.Array:
    """Of each pair (a, b) of [B,L,H,C] the pair (-b, a), exactly.

    A TPU has the two in neighbouring lanes. Cut apart they make a step a third longer, where a
    product with a matrix of 0, 1 and -1 costs next to nothing; to a GPU it is the other way round
    (docs/encoders.md, "What fits where").
    """
    crossing = np.array([[0.0, 1.0], [-1.0, 0.0]])
    if target.platform() == "tpu":
        whole = jnp.asarray(np.kron(np.eye(heads.shape[-1] // 2), crossing), heads.dtype)
        # Float32 is not to be rounded.
        return jnp.einsum("BLHC,CE->BLHE", heads, whole, precision=jax.lax.Precision.HIGHEST)
    pairs = heads.reshape(*heads.shape[:-1], -1, 2)[..., ::-1]
    return (pairs * jnp.asarray([-1, 1], heads.dtype)).reshape(heads.shape)
