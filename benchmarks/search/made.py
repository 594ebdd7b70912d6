"""Windows and vectors that are made up, of the sizes of a ViT-B/32's with 12 frames."""

import numpy as np

from glscl_jax.models.heads.features import VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead

FRAMES, WIDTH, QUERIES, TOP = 12, 512, 8, 10
HEAD = GLSCLHead()


def features(random: np.random.Generator, count: int) -> VideoFeatures:
    """Windows as a model makes them: frames near a centre, concepts of length 1."""
    centres = random.standard_normal((count, 1, WIDTH), dtype=np.float32)
    frames = centres + 0.5 * random.standard_normal((count, FRAMES, WIDTH), dtype=np.float32)
    queries = random.standard_normal((count, QUERIES, WIDTH), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=-1, keepdims=True)
    return VideoFeatures(frames, np.ones((count, FRAMES), np.int32), queries)
