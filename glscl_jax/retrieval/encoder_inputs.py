"""What a user gives the encoders, checked: an accelerator would clamp, wrap or round it unsaid."""

import numpy as np

from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import Preprocessing

# So much beyond black and white as a resize that overshoots goes.
_OVERSHOOT = 1.0


def normalized_range(images: Preprocessing) -> tuple[float, float]:
    """The least and the largest number that a normalised pixel can be."""
    mean, std = np.array(images.mean), np.array(images.std)
    return min(-mean / std) - _OVERSHOOT, max((1 - mean) / std) + _OVERSHOOT


def check_text(ids, mask, clip: CLIPConfig) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and their mask, both int32 [A,L].

    Args:
      ids: integers [A,L], of tokens that the model knows; L at most its context,
        or all of it where its text tower sees padding (`CLIPConfig.fixed_length`).
      mask: 0 and 1 [A,L], 1 on real tokens, at least one a text.
      clip: the model's sizes.

    Raises:
      ValueError: naming what does not fit.
    """
    ids, mask = np.asarray(ids), np.asarray(mask)
    longest = clip.context_length
    if ids.ndim != 2 or ids.shape != mask.shape or ids.shape[1] > longest:
        raise ValueError(
            f"ids {ids.shape} and mask {mask.shape} are not both [A,L] with L up to {longest}"
        )
    clip.check_length(ids.shape[1])
    if ids.dtype.kind not in "iu":
        raise ValueError(f"ids are {ids.dtype}: give integers, as `tokenize` does")
    unknown = ids[(ids < 0) | (ids >= clip.vocab_size)]
    if unknown.size:
        raise ValueError(
            f"id {unknown[0]} is no token: the model knows 0 to {clip.vocab_size - 1}; give ids of "
            "its own tokenizer (`tokenize`)"
        )
    return ids.astype(np.int32), _checked_mask(mask, "a text without a token")


def check_video(frames, mask, images: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 or float32 [B,V,H,W,3], and their mask int32 [B,V].

    Args:
      frames: uint8 pixels, or floats already normalised; H = W = `images.size`. What stands where
        no real frame is does not count.
      mask: 0 and 1 [B,V], 1 on real frames, at least one a video.
      images: what the model's are to look like.

    Raises:
      ValueError: naming what does not fit.
    """
    frames, mask = np.asarray(frames), np.asarray(mask)
    size = images.size
    if frames.shape != (*mask.shape, size, size, 3) or mask.ndim != 2:
        raise ValueError(
            f"frames {frames.shape} and mask {mask.shape} are not [B,V,{size},{size},3] and [B,V]"
        )
    mask = _checked_mask(mask, "a video without a frame")
    if frames.dtype == np.uint8:
        return frames, mask
    # As NumPy, JAX and PyTorch name them; bfloat16 is none of NumPy's own.
    if not frames.dtype.name.lstrip("b").startswith("float"):
        raise ValueError(
            f"frames are {frames.dtype}: give uint8 pixels (0 to 255: frames.astype(np.uint8)), or "
            "floats that are normalised"
        )
    # Where it is not finite, neither comparison holds.
    values = frames.astype(np.float32)
    lowest, highest = normalized_range(images)
    fitting = (values >= lowest) & (values <= highest) | (mask == 0)[:, :, None, None, None]
    if not fitting.all():
        raise ValueError(
            f"frames are {frames.dtype} and hold {values[~fitting][0]:g}: floats are normalised, "
            f"{lowest:.1f} to {highest:.1f} (pixels less the model's mean, over its deviation); "
            "give uint8 pixels to have that done"
        )
    return values, mask


def _checked_mask(mask: np.ndarray, empty: str) -> np.ndarray:
    """The mask as int32; `empty` names a row without a 1."""
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise ValueError("the mask holds something else than 0 and 1")
    if not mask.any(axis=1).all():
        raise ValueError(f"{empty}: its mask is 0 everywhere")
    return mask.astype(np.int32)
