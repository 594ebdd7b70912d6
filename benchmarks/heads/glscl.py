"""GLSCL's score: as this project computes it, as its formulas are written, and the LIM decoder.

`sim = GIM + 0.5 LIM`. (Zhang et al., "Text-Video Retrieval with Global-Local Semantic Consistent
Learning", 2024, sections 3.2 to 3.5.) The score starts from features: sentence c [A,D] and
frames f [B,V,D] for the GIM, and what the LIM's queries read, q^t [A,K,D] and q^v [B,K,D].
Making q^t and q^v is the decoder's work and is counted apart: it depends on one item only, so
once an item is enough. The released evaluation has it in the head, in every block of pairs.
"""

import jax
import jax.numpy as jnp

from benchmarks.heads.head import Head, Sizes, float32, sentences_and_frames, unit
from glscl_jax.models.glscl import GLSCLConfig
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.gim import frame_weights
from glscl_jax.models.heads.lim import LIM

CONFIG = GLSCLConfig()
BLOCK = 16  # Texts, and videos, for which the released evaluation runs the decoder anew.


def score(text: TextFeatures, video: VideoFeatures) -> jax.Array:
    """[A,B] as this project computes it: Gram matrices and one inner product of K*D."""
    return CONFIG.head.score(text, video)


def score_as_written(text: TextFeatures, video: VideoFeatures) -> jax.Array:
    """[A,B] by the paper's formulas: p_ab as a tensor [A,B,D], K inner products a pair."""
    logits = jnp.einsum("AD,BVD->ABV", text.sentence, video.frames)
    weights = frame_weights(logits, video.mask, CONFIG.head.temperature)
    pooled = jnp.einsum("ABV,BVD->ABD", weights, video.frames)
    gim = jnp.einsum("AD,ABD->AB", unit(text.sentence), unit(pooled))
    lim = jnp.einsum("AKD,BKD->ABK", text.queries, video.queries).mean(axis=-1)
    return gim + CONFIG.head.lim_weight * lim


def features(sizes: Sizes) -> tuple[TextFeatures, VideoFeatures]:
    sentence, frames, mask = sentences_and_frames(sizes)
    text_queries = float32(sizes.texts, sizes.queries, sizes.width)
    video_queries = float32(sizes.videos, sizes.queries, sizes.width)
    return TextFeatures(sentence, text_queries), VideoFeatures(frames, mask, video_queries)


def score_multiply_adds(sizes: Sizes) -> int:
    """`A B (V D + V^2 + K D) + B V^2 D`.

    A pair takes V D for the weights, V^2 for a row of weights times the Gram matrix, K D for the
    LIM; a video V^2 D for its Gram matrix. The two sums over V that follow are elementwise.
    """
    pair = sizes.frames * (sizes.width + sizes.frames) + sizes.queries * sizes.width
    return sizes.pairs * pair + sizes.videos * sizes.frames**2 * sizes.width


def written_multiply_adds(sizes: Sizes) -> int:
    """`A B (2 V D + D + K D)`: the weights, the sum over frames, the cosine, and the LIM."""
    return sizes.pairs * sizes.width * (2 * sizes.frames + 1 + sizes.queries)


def decode_text(lim: dict, tokens: jax.Array) -> jax.Array:
    """LIM parameters, tokens [A,L,D] -> q^t [A,K,D]."""
    return _lim(*lim["params"]["queries"].shape).apply(lim, tokens, method=LIM.text)


def decode_video(lim: dict, frames: jax.Array) -> jax.Array:
    """LIM parameters, frames [B,V,D] -> q^v [B,K,D]."""
    return _lim(*lim["params"]["queries"].shape).apply(lim, frames, method=LIM.video)


def decoder_multiply_adds(sizes: Sizes, memory: int) -> int:
    """One item with M memory rows: `N (6 K D^2 + 2 K^2 D + 2 M D^2 + 2 K M D + 2 K D F)`.

    In each of the N layers, of feed-forward width F: self-attention has four projections of K
    rows, K^2 D for the weights and K^2 D for the sum; cross-attention two of K rows (queries,
    output), two of M rows (keys, values), and K M D twice; the feed-forward K D F twice.
    """
    square = sizes.width**2
    layer = (
        6 * sizes.queries * square
        + 2 * sizes.queries**2 * sizes.width
        + 2 * memory * square
        + 2 * sizes.queries * memory * sizes.width
        + 2 * sizes.queries * sizes.width * CONFIG.head.lim_feed_forward
    )
    return CONFIG.head.lim_layers * layer


def _lim(queries: int, width: int) -> LIM:
    return LIM(
        queries=queries,
        layers=CONFIG.head.lim_layers,
        width=width,
        heads=CONFIG.head.lim_heads,
        feed_forward=CONFIG.head.lim_feed_forward,
        dropout=CONFIG.head.lim_dropout,
        share_queries=True,
        share_decoder=True,
        dtype=jnp.float32,
        scan=False,  # XLA counts a loop's body once.
    )


def _decoder_inputs(sizes: Sizes, items: int, memory: int) -> tuple:
    rows = float32(items, memory, sizes.width)
    lim = _lim(sizes.queries, sizes.width)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(lambda k, x: lim.init(k, x, method=LIM.text), key, rows), rows


SCORE = Head(score, features, score_multiply_adds)
WRITTEN = Head(score_as_written, features, written_multiply_adds)
TEXT_DECODER = Head(
    decode_text,
    lambda sizes: _decoder_inputs(sizes, sizes.texts, sizes.words),
    lambda sizes: sizes.texts * decoder_multiply_adds(sizes, sizes.words),
)
VIDEO_DECODER = Head(
    decode_video,
    lambda sizes: _decoder_inputs(sizes, sizes.videos, sizes.frames),
    lambda sizes: sizes.videos * decoder_multiply_adds(sizes, sizes.frames),
)
