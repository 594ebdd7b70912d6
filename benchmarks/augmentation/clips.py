"""Random clips to augment."""

import numpy as np
from PIL import Image

FRAMES, SIZE = 12, 224


def make_clips(count: int) -> np.ndarray:
    """Soft colours with a little noise, uint8 [B,V,H,W,3]."""
    rng = np.random.default_rng(0)
    soft = rng.integers(30, 220, (count, 6, 6, 3), dtype=np.uint8)
    soft = [Image.fromarray(one).resize((SIZE, SIZE), Image.BICUBIC) for one in soft]
    noise = rng.integers(0, 20, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    return np.stack([np.asarray(one) + noise for one in soft])
