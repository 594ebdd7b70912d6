"""1,000 texts x 1,000 videos: scores as this project computes them, and as released.

    python -m benchmarks.similarity

Both start from what the towers give (text tokens and frame features). The released evaluation
runs the LIM decoder again in every block of 16 x 16 pairs, for the block's texts and videos, and
pools every video for every sentence; this project runs the decoder once an item and never pools.
The released way is timed on a part of the blocks, and that time multiplied out: it says so.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.machine import machine
from glscl_jax import program, steps
from glscl_jax.models.glscl import GLSCL, GLSCLConfig, TextFeatures, VideoFeatures
from glscl_jax.similarity import score_in_blocks

SIZE = flags.DEFINE_integer("size", 1000, "Texts, and videos.")
BLOCKS = flags.DEFINE_integer("blocks", 40, "Blocks of the released way that are timed.")

WORDS, FRAMES, WIDTH, BLOCK = 32, 12, 512, 16


def main(_):
    size = SIZE.value
    model = GLSCL(GLSCLConfig())
    lim = jax.jit(lambda: steps.init_params(model, 0)["lim"])()
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(size, WORDS, WIDTH)).astype(np.float32)
    frames = rng.normal(size=(size, FRAMES, WIDTH)).astype(np.float32) / 4
    mask = np.ones((size, FRAMES), np.int32)

    ours = Ours(model, lim)
    released = Released(model, lim)
    rows = columns = min(4 * BLOCK, size)
    ours(tokens, frames, mask)  # Compiles.
    corner = released.part(tokens[:rows], frames[:columns], mask[:columns])

    start = time.perf_counter()
    scores = ours(tokens, frames, mask)
    fast = time.perf_counter() - start
    difference = np.abs(corner - scores[:rows, :columns]).max()

    all_blocks = math.ceil(size / BLOCK) ** 2
    timed = min(BLOCKS.value, all_blocks)
    start = time.perf_counter()
    for number in range(timed):
        at = slice(number * BLOCK % (size - BLOCK), number * BLOCK % (size - BLOCK) + BLOCK)
        released.block(tokens[at], frames[at], mask[at]).block_until_ready()
    slow = (time.perf_counter() - start) / timed * all_blocks

    print(f"{size:,} x {size:,} scores, K 8, V {FRAMES}, L {WORDS}, D {WIDTH}, float32")
    print(machine())
    print(f"{'this project':<40}{fast:10.2f} s")
    print(f"{'as released (' + str(timed) + ' of ' + format(all_blocks, ',') + ' blocks,':<40}")
    print(f"{'  multiplied out)':<40}{slow:10.1f} s")
    print(f"{'ratio':<40}{slow / fast:10.1f}")
    print(f"{'largest difference of the scores':<40}{difference:10.1e}")


class Ours:
    """The decoder once an item, then all pairs in blocks."""

    def __init__(self, model, lim, batch: int = 200):
        self.batch = batch
        self._text = jax.jit(lambda tokens: _lim(model, lim, "text", tokens))
        self._video = jax.jit(lambda frames: _lim(model, lim, "video", frames))

    def __call__(self, tokens, frames, mask) -> np.ndarray:
        text = TextFeatures(tokens[:, -1], self._all(self._text, tokens))
        video = VideoFeatures(frames, mask, self._all(self._video, frames))
        return score_in_blocks(text, video, temperature=3.0, lim_weight=0.5)

    def _all(self, encode, items) -> np.ndarray:
        starts = range(0, len(items), self.batch)
        return np.concatenate([encode(items[i : i + self.batch]) for i in starts])


class Released:
    """The decoder again for every block, and every video pooled for every sentence."""

    def __init__(self, model, lim):
        @jax.jit
        def block(tokens, frames, mask):
            sentence = tokens[:, -1]
            logits = jnp.einsum("AD,BVD->ABV", sentence, frames)
            weights = jax.nn.softmax(logits / 3.0, axis=-1) * mask
            pooled = jnp.einsum("ABV,BVD->ABD", weights, frames)
            pooled = pooled / jnp.linalg.norm(pooled, axis=-1, keepdims=True)
            unit = sentence / jnp.linalg.norm(sentence, axis=-1, keepdims=True)
            gim = jnp.einsum("AD,ABD->AB", unit, pooled)
            text = _lim(model, lim, "text", tokens)
            video = _lim(model, lim, "video", frames)
            lim_scores = jnp.einsum("AKD,BKD->ABK", text, video).mean(-1)
            return gim + 0.5 * lim_scores

        self.block = block

    def part(self, tokens, frames, mask) -> np.ndarray:
        """The whole matrix of a few blocks."""
        return np.block(
            [
                [
                    np.asarray(
                        self.block(
                            tokens[a : a + BLOCK], frames[b : b + BLOCK], mask[b : b + BLOCK]
                        )
                    )
                    for b in range(0, len(frames), BLOCK)
                ]
                for a in range(0, len(tokens), BLOCK)
            ]
        )


def _lim(model, lim, side: str, memory):
    variables = {"params": {"lim": lim}}
    return model.apply(variables, memory, method=lambda module, x: getattr(module.lim, side)(x))


if __name__ == "__main__":
    program.run(main)
