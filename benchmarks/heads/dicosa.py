"""DiCoSA's head: the cosines of K concepts, each with a confidence of its own.

A video is pooled for every sentence, `p_ab = sum_v w_abv f_bv` with
`w = softmax_v(<c_a, f_bv> / temperature)`. Sentence and pooled video are cut into K concepts of
D/K numbers, `t_ak` and `p_abk`, and adaptive pooling adds up
`sim[a,b] = sum_k g_abk cos(t_ak, p_abk)` with the confidence `g_abk = MLP([t_ak, p_abk])`.
(Jin et al., "Text-Video Retrieval with Disentangled Conceptualization and Set-to-Set Alignment",
2023.) The sizes are those of its released model: concepts are slices of the features, and the
MLP, shared by all concepts, has one hidden layer of 4 D/K. Left out: the MLP's biases, and the
losses that only training has.
"""

import flax.struct
import jax
import jax.numpy as jnp

from benchmarks.heads.head import Head, Sizes, float32, sentences_and_frames, unit
from glscl_jax.models.heads.gim import frame_weights

TEMPERATURE = 3.0


@flax.struct.dataclass
class Confidence:
    """The MLP, of which the shapes also say what K is.

    Attributes:
      hidden: [2D/K,4D/K].
      out: [4D/K].
    """

    hidden: jax.Array
    out: jax.Array


def similarity(
    confidence: Confidence, sentence: jax.Array, frames: jax.Array, mask: jax.Array
) -> jax.Array:
    """Sentences [A,D], frames [B,V,D], mask [B,V] with 1 on real frames -> scores [A,B].

    The einsum letter C is a concept's width, D/K.
    """
    logits = jnp.einsum("AD,BVD->ABV", sentence, frames)
    weights = frame_weights(logits, mask, TEMPERATURE)
    pooled = jnp.einsum("ABV,BVD->ABD", weights, frames)

    width = confidence.hidden.shape[0] // 2
    video = pooled.reshape(*pooled.shape[:2], -1, width)
    text = sentence.reshape(len(sentence), -1, width)
    both = jnp.concatenate([jnp.broadcast_to(text[:, None], video.shape), video], axis=-1)
    hidden = jax.nn.relu(jnp.einsum("ABKI,IJ->ABKJ", both, confidence.hidden))
    gate = jnp.einsum("ABKJ,J->ABK", hidden, confidence.out)
    cosines = jnp.einsum("AKC,ABKC->ABK", unit(text), unit(video))
    return jnp.einsum("ABK,ABK->AB", gate, cosines)


def inputs(sizes: Sizes) -> tuple:
    width = sizes.width // sizes.queries
    confidence = Confidence(float32(2 * width, 4 * width), float32(4 * width))
    return confidence, *sentences_and_frames(sizes)


def multiply_adds(sizes: Sizes) -> int:
    """`A B (2 V D + K (8 C^2 + 4 C) + D + K)` with C = D/K.

    A pair's pooling takes V D for the weights and V D for the sum; each concept's MLP
    2C x 4C and 4C; the cosines K C = D; their weighted sum K.
    """
    width = sizes.width // sizes.queries
    pooling = 2 * sizes.frames * sizes.width
    gates = sizes.queries * (8 * width**2 + 4 * width)
    return sizes.pairs * (pooling + gates + sizes.width + sizes.queries)


HEAD = Head(similarity, inputs, multiply_adds)
