"""Random clips to augment."""

import jax
import numpy as np

FRAMES, SIZE = 12, 224


def make_clips(count: int) -> np.ndarray:
    """Soft colours with a little noise, uint8 [B,V,H,W,3]."""
    rng = np.random.default_rng(0)
    soft = rng.integers(30, 220, (count, 6, 6, 3)).astype(np.float32)
    soft = np.asarray(jax.image.resize(soft, (count, SIZE, SIZE, 3), "cubic"))
    noise = rng.integers(0, 20, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    return soft.clip(0, 235).astype(np.uint8)[:, None] + noise
