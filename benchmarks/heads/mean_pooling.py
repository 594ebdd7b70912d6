"""CLIP4Clip's parameter-free head: the cosine of a sentence and a video's mean frame.

`v_b = mean_v f_bv`, `sim[a,b] = cos(c_a, v_b)`. (Luo et al., "CLIP4Clip: An Empirical Study of
CLIP for End to End Video Clip Retrieval", 2021, mean pooling.) Left out: the frames' own
normalisation and the learned logit scale, which take no matrix product.
"""

import jax
import jax.numpy as jnp

from benchmarks.heads.head import Head, Sizes, sentences_and_frames, unit


def similarity(sentence: jax.Array, frames: jax.Array, mask: jax.Array) -> jax.Array:
    """Sentences [A,D], frames [B,V,D], mask [B,V] with 1 on real frames -> scores [A,B]."""
    count = mask.sum(axis=-1, keepdims=True)
    pooled = jnp.einsum("BV,BVD->BD", mask, frames) / count
    return jnp.einsum("AD,BD->AB", unit(sentence), unit(pooled))


def multiply_adds(sizes: Sizes) -> int:
    """`A B D + B V D`: one inner product a pair, one sum over frames a video."""
    return sizes.width * (sizes.pairs + sizes.videos * sizes.frames)


HEAD = Head(similarity, sentences_and_frames, multiply_adds)
