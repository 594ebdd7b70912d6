"""Features of three videos and their six captions, drawn."""

import numpy as np

from glscl_jax.models.heads.features import TextFeatures, VideoFeatures

IDENTITY = {"checkpoint": "abc" * 20, "split": "test", "words": 12}
CAPTIONS = [["a red circle", "ein Kreis, „rot“\n"], ["a blue square"], ["green"] * 3]
CLIP_IDS = ["one.mp4#t=1,2", "zwei \u65e5\u672c.mp4", "three.mp4"]


def random_features(dtype=np.float32):
    random = np.random.default_rng(0)
    text = TextFeatures(
        random.normal(size=(6, 4)).astype(dtype), random.normal(size=(6, 2, 4)).astype(np.float32)
    )
    mask = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], np.int32)
    frames = random.normal(size=(3, 3, 4)).astype(dtype)
    return text, VideoFeatures(frames, mask, random.normal(size=(3, 2, 4)).astype(np.float32))
