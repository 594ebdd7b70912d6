"""What a vision tower's images look like: size, resize, statistics; part of what weights mean."""

import dataclasses

import jax
import jax.numpy as jnp

# Statistics of CLIP's training images; every CLIP weight expects them.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

RESIZES = ("crop", "squash")
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From a picture to a tower's input.

    It is made a square when frames are prepared; on the device pixels are normalised.

    Attributes:
      size: height and width in pixels.
      resize: a name of `RESIZES`: "crop": the shorter side is resized to `size` and the centre
        cropped; "squash": both sides are, whatever becomes of the picture's shape.
      interpolation: a name of `INTERPOLATIONS`: Pillow's filter.
      mean, std: of the red, green and blue of pixels between 0 and 1.
    """

    size: int
    resize: str = "crop"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def normalize(self, frames: jax.Array, mask: jax.Array) -> jax.Array:
        """Pixels as the tower was trained on them; places without a frame become zero.

        Args:
          frames: uint8 [B,V,H,W,3], or float already normalised (only masked then).
          mask: [B,V], 1 on real frames.

        Returns:
          float32 [B,V,H,W,3].
        """
        if frames.dtype == jnp.uint8:
            pixels = frames.astype(jnp.float32) / 255.0
            frames = (pixels - jnp.array(self.mean)) / jnp.array(self.std)
        return jnp.where(mask[:, :, None, None, None] > 0, frames.astype(jnp.float32), 0.0)
