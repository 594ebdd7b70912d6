"""10,000 texts ranked among 1,000,000 videos that are made as they are asked for, on a GPU.

Beside the speed of a large matrix product of the same type: the most that any score could reach.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.similarity import features
from benchmarks.similarity.features import BFLOAT16, BLOCKING, FRAMES, PAIR_FLOPS, QUERIES, WIDTH
from glscl_jax.models.heads.features import VideoFeatures
from glscl_jax.retrieval.ranking import text_ranks_in_blocks

STREAM_TEXTS = flags.DEFINE_integer("stream_texts", 10_000, "Part d: texts.")
STREAM_VIDEOS = flags.DEFINE_integer("stream_videos", 1_000_000, "Part d: videos.")
ON_CPU = flags.DEFINE_bool("stream_on_cpu", False, "Part d: also without a GPU.")

TEXT_BLOCK, VIDEO_BLOCK = 2500, 8192


def main():
    if jax.default_backend() == "cpu" and not ON_CPU.value:
        print("skipped: there is no GPU here")
        return
    print("\n".join(lines(STREAM_TEXTS.value, STREAM_VIDEOS.value)))


def lines(texts: int, videos: int) -> list[str]:
    """Ranks once to compile, once to be timed; what came of it, a line each."""
    text = jax.tree.map(jnp.asarray, features.texts(texts, BFLOAT16))
    owner = np.arange(texts) * (videos // texts)
    blocking = {"text_block": TEXT_BLOCK, "video_block": VIDEO_BLOCK, **BLOCKING}

    def rank():
        return text_ranks_in_blocks(text, generated(videos), owner, **blocking)

    rank()
    start = time.perf_counter()
    ranks = rank()
    seconds = time.perf_counter() - start
    rate = PAIR_FLOPS * texts * videos / seconds
    ceiling = matmul_rate()
    return [
        f"text-to-video ranks of {texts:,} texts among {videos:,} videos, bfloat16, streamed",
        f"{'ranking, making the features included':<40}{seconds:10.2f} s",
        f"{'pairs':<40}{texts * videos / seconds / 1e9:10.2f} G/s",
        f"{'matrix products of the scores':<40}{rate / 1e12:10.2f} TFLOP/s",
        f"{'a large matrix product alone':<40}{ceiling / 1e12:10.2f} TFLOP/s",
        f"{'share':<40}{100 * rate / ceiling:10.1f} %",
        f"{'median rank':<40}{np.median(ranks.mean):10,.0f}",
    ]


class Generated:
    """An array that is never whole: its rows are made on the device when they are asked for."""

    def __init__(self, make, shape: tuple[int, ...]):
        self.make, self.shape = make, shape

    def __getitem__(self, rows: slice) -> jax.Array:
        start, stop, _ = rows.indices(self.shape[0])
        return self.make(start, (stop - start, *self.shape[1:]))


def generated(count: int) -> VideoFeatures:
    """Of `count` videos; the same rows are the same numbers however often they are made."""
    mask = Generated(lambda start, shape: jnp.ones(shape, jnp.int32), (count, FRAMES))
    return VideoFeatures(
        Generated(functools.partial(_numbers, 1), (count, FRAMES, WIDTH)),
        mask,
        Generated(functools.partial(_numbers, 2), (count, QUERIES, WIDTH)),
    )


@functools.partial(jax.jit, static_argnums=(0, 2))
def _numbers(seed: int, start: int, shape: tuple[int, ...]) -> jax.Array:
    """bfloat16, uniform, each row of length about 1."""
    # XLA's own generator: JAX's default would take longer than the scores.
    key = jax.random.fold_in(jax.random.key(seed, impl="rbg"), start)
    side = (3 / WIDTH) ** 0.5
    return jax.random.uniform(key, shape, jnp.bfloat16, -side, side)


def matmul_rate(size: int = 8192, repeats: int = 20) -> float:
    """FLOP/s of bfloat16 square products, summed in float32."""
    size = size if jax.default_backend() != "cpu" else 1024
    dot = jax.jit(functools.partial(jnp.dot, preferred_element_type=jnp.float32))
    a, b = (jnp.ones((size, size), jnp.bfloat16) for _ in range(2))
    dot(a, b).block_until_ready()
    start = time.perf_counter()
    for _ in range(repeats):
        product = dot(a, b)
    product.block_until_ready()
    return 2 * size**3 * repeats / (time.perf_counter() - start)
