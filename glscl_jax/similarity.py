"""Scores of texts and videos: all pairs at once, or block by block.

`sim = GIM + lim_weight * LIM` (Zhang et al., 2024, section 3.5), at training and evaluation.
"""

import functools

import jax
import numpy as np

from glscl_jax.models.gim import gim_similarity
from glscl_jax.models.glscl import TextFeatures, VideoFeatures
from glscl_jax.models.lim import lim_similarity


def score(
    text: TextFeatures, video: VideoFeatures, *, temperature: float, lim_weight: float
) -> jax.Array:
    """Every text against every video; differentiable.

    Args:
      text: features of A texts.
      video: features of B videos.
      temperature: of the GIM's softmax over frames.
      lim_weight: of the LIM's score.

    Returns:
      float32 [A,B]. The largest temporary is [A,B,V].
    """
    gim = gim_similarity(text.sentence, video.frames, video.mask, temperature)
    return gim + lim_weight * lim_similarity(text.queries, video.queries)


@functools.partial(jax.jit, static_argnames=("temperature", "lim_weight"))
def _score_block(text, video, temperature, lim_weight):
    return score(text, video, temperature=temperature, lim_weight=lim_weight)


def score_in_blocks(
    text: TextFeatures,
    video: VideoFeatures,
    *,
    temperature: float,
    lim_weight: float,
    block: int = 256,
) -> np.ndarray:
    """`score` for evaluation: `block` texts at a time, so memory grows with block * B * V.

    Returns:
      float32 [A,B] on the host.
    """
    texts = text.sentence.shape[0]
    rows = np.empty((texts, video.frames.shape[0]), np.float32)
    for start in range(0, texts, block):
        # The last block is moved back to full size, so that only one shape is compiled.
        start = max(0, min(start, texts - block))
        part = jax.tree.map(lambda x, start=start: x[start : start + block], text)
        rows[start : start + block] = _score_block(part, video, temperature, lim_weight)
    return rows
