"""1,000 texts x 1,000 videos: scores as this project computes them, and as released.

The released evaluation runs the LIM decoder again in every block of 16 x 16 pairs, for the block's
texts and videos, and pools every video for every sentence; this project runs the decoder once an
item and never pools. The released way is timed on a part of the blocks, and that time multiplied
out: the table says so.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.similarity.features import BLOCKING, FRAMES, QUERIES, WIDTH, WORDS, Lim
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.retrieval.score_blocks import score_in_blocks

SIZE = flags.DEFINE_integer("size", 1000, "Part a: texts, and videos.", lower_bound=17)
BLOCKS = flags.DEFINE_integer("blocks", 40, "Part a: blocks of the released way that are timed.")

BLOCK = 16


def main():
    size = SIZE.value
    lim = Lim()
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(size, WORDS, WIDTH)).astype(np.float32)
    frames = rng.normal(size=(size, FRAMES, WIDTH)).astype(np.float32) / 4
    mask = np.ones((size, FRAMES), np.int32)

    block = released(lim)
    corner = min(4 * BLOCK, size // BLOCK * BLOCK)
    ours(lim, tokens, frames, mask)  # Compiles.
    expected = of_corner(block, tokens[:corner], frames[:corner], mask[:corner])

    start = time.perf_counter()
    scores = ours(lim, tokens, frames, mask)
    fast = time.perf_counter() - start
    difference = np.abs(expected - scores[:corner, :corner]).max()

    all_blocks = math.ceil(size / BLOCK) ** 2
    timed = min(BLOCKS.value, all_blocks)
    start = time.perf_counter()
    for number in range(timed):
        first = number * BLOCK % (size - BLOCK)
        at = slice(first, first + BLOCK)
        block(tokens[at], frames[at], mask[at]).block_until_ready()
    slow = (time.perf_counter() - start) / timed * all_blocks

    print(
        f"{size:,} x {size:,} scores, K {QUERIES}, V {FRAMES}, L {WORDS}, D {WIDTH}, float32, "
        "from encoder features"
    )
    print(f"{'this project':<40}{fast:10.2f} s")
    print(f"{f'as released ({timed} of {all_blocks:,} blocks,':<40}")
    print(f"{'  multiplied out)':<40}{slow:10.1f} s")
    print(f"{'ratio':<40}{slow / fast:10.1f}")
    print(f"{'largest difference of the scores':<40}{difference:10.1e}")


def ours(lim: Lim, tokens, frames, mask) -> np.ndarray:
    """The decoder once an item, then all pairs in blocks."""
    text = TextFeatures(tokens[:, -1], lim.text(tokens))
    video = VideoFeatures(frames, mask, lim.video(frames))
    return score_in_blocks(text, video, **BLOCKING)


def released(lim: Lim):
    """A block's scores: the decoder again, and every video pooled for every sentence."""

    @jax.jit
    def block(tokens, frames, mask):
        sentence = tokens[:, -1]
        logits = jnp.einsum("AD,BVD->ABV", sentence, frames)
        weights = jax.nn.softmax(logits / BLOCKING["head"].temperature, axis=-1) * mask
        pooled = jnp.einsum("ABV,BVD->ABD", weights, frames)
        pooled = pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
        unit = sentence / jnp.linalg.norm(sentence, axis=-1, keepdims=True)
        gim = jnp.einsum("AD,ABD->AB", unit, pooled)
        text, video = lim.read("text", tokens), lim.read("video", frames)
        lim_scores = jnp.einsum("AKD,BKD->ABK", text, video).mean(-1)
        return gim + BLOCKING["head"].lim_weight * lim_scores

    return block


def of_corner(block, tokens, frames, mask) -> np.ndarray:
    """The whole matrix of a few blocks."""
    starts = range(0, len(tokens), BLOCK)
    at = [slice(start, start + BLOCK) for start in starts]
    return np.block([[np.asarray(block(tokens[a], frames[b], mask[b])) for b in at] for a in at])
