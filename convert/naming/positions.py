"""Positional embeddings of images for another image size: bicubic interpolation of the grid."""

import dataclasses
import math

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig

# PyTorch's cubic kernel; the usual -1/2 would give other numbers.
_SHARPNESS = -0.75


def resize_images(clip: dict, config: CLIPConfig, size: int) -> CLIPConfig:
    """Gives a CLIP's parameters, in place, the positions of another image size.

    Args:
      clip: its parameters.
      config: its sizes.
      size: the side of its images to be, in pixels.

    Returns:
      The new sizes.

    Raises:
      UserError: no whole number of patches fits.
    """
    if size % config.patch_size:
        raise UserError(
            f"--image_size {size} is no multiple of the patch size, {config.patch_size}"
        )
    if size != config.image_size and config.rotary:
        raise UserError(
            f"--image_size {size}: the model has rotary positions of {config.image_size} pixels, "
            "which are not interpolated: leave it out"
        )
    if size != config.image_size and config.is_video:
        raise UserError(
            f"--image_size {size}: VideoPrism's positions are not interpolated: leave it out"
        )
    if size != config.image_size:
        embedding, first = clip["vision"]["positional_embedding"], int(config.class_token)
        resized = resize(embedding, size // config.patch_size, first)
        clip["vision"]["positional_embedding"] = resized
    return dataclasses.replace(config, image_size=size)


def resize(embedding: np.ndarray, side: int, first: int = 1) -> np.ndarray:
    """The class token's row as it is, the patches' rows for `side` x `side` patches.

    What `torch.nn.functional.interpolate(mode="bicubic", align_corners=False)` computes, and so
    `interpolate_pos_encoding` of transformers: no antialiasing, also towards fewer patches.

    Args:
      embedding: float32 [first+n*n,D].
      side: patches along a side.
      first: 1 with a class token, 0 without.

    Returns:
      float32 [first+side*side,D].
    """
    old, width = math.isqrt(len(embedding) - first), embedding.shape[1]
    grid = embedding[first:].reshape(old, old, width).astype(np.float64)
    weights = _weights(old, side)
    grid = np.einsum("yi,xj,ijD->yxD", weights, weights, grid, optimize=True)
    patches = grid.reshape(side * side, width).astype(np.float32)
    return np.concatenate([embedding[:first], patches])


def _weights(old: int, new: int) -> np.ndarray:
    """How much each of `old` places counts at each of `new`, along one axis: [new,old]."""
    centres = (np.arange(new) + 0.5) * (old / new) - 0.5
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        places = np.floor(centres).astype(int) + tap
        # Beyond the border the last place repeats.
        np.add.at(weights, (np.arange(new), places.clip(0, old - 1)), _cubic(centres - places))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel of reach 2."""
    x, a = np.abs(distance), _SHARPNESS
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
