"""X-Pool's head: every sentence attends to every video's frames, and two layers follow.

As its formula is written, and the score of the same from features, as this project computes it
(`models.heads.x_pool` has the derivation).

With layer norms LN and square matrices, `q_a = LN(c_a) W_Q`, `k_bv = LN(f_bv) W_K`,
`v_bv = LN(f_bv) W_V`; `o_ab = sum_v softmax_v(<q_a, k_bv> / sqrt(D)) v_bv`;
`r_ab = LN(o_ab W_O)`; `z_ab = LN(r_ab + r_ab W_F)`; `sim[a,b] = cos(c_a, z_ab)`. (Gorti et al.,
"X-Pool: Cross-Modal Language-Video Attention for Text-Video Retrieval", 2022.) One attention
head, projections as wide as the features. Left out: dropout, the biases, and the layer norms'
scales and shifts. All frames are real, as in its paper: there is no mask.
"""

import flax.struct
import jax
import jax.numpy as jnp

from benchmarks.heads.head import Head, Sizes, float32, sentences_and_frames, unit
from glscl_jax.models.heads.x_pool import Pooling, Sentences, XPoolHead


@flax.struct.dataclass
class Matrices:
    """W_Q, W_K, W_V, W_O and W_F, each [D,D]."""

    query: jax.Array
    key: jax.Array
    value: jax.Array
    output: jax.Array
    linear: jax.Array


def similarity(matrices: Matrices, sentence: jax.Array, frames: jax.Array) -> jax.Array:
    """Sentences [A,D], frames [B,V,D] -> scores [A,B]."""
    text, video = _layer_norm(sentence), _layer_norm(frames)
    query, key, value = text @ matrices.query, video @ matrices.key, video @ matrices.value
    logits = jnp.einsum("AD,BVD->ABV", query, key) / jnp.sqrt(query.shape[-1])
    attended = jnp.einsum("ABV,BVD->ABD", jax.nn.softmax(logits, axis=-1), value)
    pooled = _layer_norm(attended @ matrices.output)
    pooled = _layer_norm(pooled + pooled @ matrices.linear)
    return jnp.einsum("AD,ABD->AB", unit(sentence), unit(pooled))


def _layer_norm(x):
    mean = x.mean(axis=-1, keepdims=True)
    return (x - mean) / jnp.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)


def inputs(sizes: Sizes) -> tuple:
    matrices = Matrices(*[float32(sizes.width, sizes.width)] * 5)
    return matrices, *sentences_and_frames(sizes)[:2]


def multiply_adds(sizes: Sizes) -> int:
    """`A B (2 V D + 2 D^2 + D) + A D^2 + 2 B V D^2`.

    A pair takes V D for the weights, V D for the sum, D^2 for each of W_O and W_F, and D for
    the cosine; a text one projection; a video's every frame two.
    """
    square = sizes.width**2
    pair = 2 * sizes.frames * sizes.width + 2 * square + sizes.width
    return sizes.pairs * pair + square * (sizes.texts + 2 * sizes.videos * sizes.frames)


def score(text: Sentences, video: Pooling) -> jax.Array:
    """[A,B] as this project computes it."""
    return XPoolHead().score(text, video)


def features(sizes: Sizes) -> tuple[Sentences, Pooling]:
    sentence, frames, _ = sentences_and_frames(sizes)
    videos, count, width = frames.shape
    mask = jax.ShapeDtypeStruct((videos, count), jnp.int32)
    squares = (float32(videos, count + more, count + more) for more in (0, 1))
    rows = float32(videos, count + 2, width)
    return Sentences(sentence, sentence), Pooling(frames, mask, rows, *squares)


def score_multiply_adds(sizes: Sizes) -> int:
    """Of the pairs, and once a video of its rows' inner products; see `XPoolHead.cost`."""
    cost = XPoolHead().cost(sizes.width, sizes.words, sizes.frames)
    return sizes.pairs * cost.pair + sizes.videos * cost.prepared


HEAD = Head(similarity, inputs, multiply_adds)
SCORE = Head(score, features, score_multiply_adds)
