"""Cost against N, for N texts and N videos: what grows with the items, what with the pairs.

The part of every item is the LIM's decoder; that of every pair the blocks of scores. Beside it
stand the bare matrix products that those blocks contain, run alone in the same blocks.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.similarity import features
from benchmarks.similarity.features import BLOCKING, FRAMES, QUERIES, WIDTH, WORDS, Lim
from glscl_jax.retrieval.score_blocks import Blocks, score_in_blocks

SIZES = flags.DEFINE_list("sizes", ["1000", "2000", "4000", "8000"], "Part b: the Ns.")


def main():
    sizes = [int(size) for size in SIZES.value]
    lim = Lim()
    per_item(lim, 1)  # Compiles.
    largest = features.texts(max(sizes)), features.videos(max(sizes))
    print(f"N texts x N videos, K {QUERIES}, V {FRAMES}, L {WORDS}, D {WIDTH}, float32")
    print(f"{'N':>8}{'items, s':>12}{'pairs, s':>12}{'bare, s':>12}{'pairs / bare':>14}")
    rows = []
    for size in sizes:
        text, video = (jax.tree.map(lambda x, n=size: x[:n], side) for side in largest)
        items = seconds_of(lambda n=size: per_item(lim, n))
        pairs, bare = fastest(
            lambda t=text, v=video: score_in_blocks(t, v, **BLOCKING), bare_products(text, video)
        )
        rows.append((items, pairs, bare))
        print(f"{size:>8,}{items:12.2f}{pairs:12.3f}{bare:12.3f}{pairs / bare:14.2f}", flush=True)
    fitted = [exponent(sizes, seconds) for seconds in zip(*rows, strict=True)]
    print(f"{'exponent':>8}" + "".join(f"{value:12.2f}" for value in fitted))


def per_item(lim: Lim, count: int) -> None:
    """The LIM's decoder for `count` texts and videos. One batch's memory serves all of them."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(lim.batch, WORDS, WIDTH)).astype(np.float32)
    frames = rng.normal(size=(lim.batch, FRAMES, WIDTH)).astype(np.float32)
    for _ in range(0, count, lim.batch):
        lim.text(tokens)
        lim.video(frames)


def bare_products(text, video) -> Callable[[], None]:
    """All products that `score_in_blocks` computes, each as one matrix product and no more."""
    blocks = Blocks(text, video, **BLOCKING)

    @jax.jit
    def products(text, video, gram, weights):
        dot = {"preferred_element_type": jnp.float32}
        frames = video.frames.reshape(-1, WIDTH)
        concepts = [side.queries.reshape(len(side.queries), -1) for side in (text, video)]
        return (
            jax.lax.dot_general(frames, text.sentence, (((1,), (1,)), ((), ())), **dot),
            jax.lax.dot_general(gram, weights, (((2,), (1,)), ((0,), (0,))), **dot),
            jax.lax.dot_general(*concepts, (((1,), (1,)), ((), ())), **dot),
        )

    weights = np.full((blocks.video_block, FRAMES, blocks.text_block), 1 / FRAMES, np.float32)
    weights = blocks.place(weights, split=True)

    def run():
        for videos in blocks.video_parts():
            for texts in blocks.text_parts:
                jax.block_until_ready(
                    products(texts.features, videos.features, videos.prepared, weights)
                )

    return run


def fastest(*runs: Callable[[], object], budget: float = 10.0) -> list[float]:
    """Seconds of each one's fastest run, taking turns for some `budget` seconds, at least twice."""
    for run in runs:
        run()  # Compiles.
    turns, began = [], time.perf_counter()
    while len(turns) < 2 or time.perf_counter() - began < budget:
        turns.append([seconds_of(run) for run in runs])
    return [min(seconds) for seconds in zip(*turns, strict=True)]


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def exponent(sizes, seconds) -> float:
    """e of the power law `seconds = c * size**e`, by least squares of the logarithms."""
    return np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
