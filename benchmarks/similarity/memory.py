"""The most memory that a process ever held that ranks 2,000 texts among 100,000 videos.

In a process of its own, because a process's peak never falls again.
"""

import multiprocessing
import resource
import sys
import time

import numpy as np
from absl import flags

TEXTS = flags.DEFINE_integer("texts", 2_000, "Part c: texts.")
VIDEOS = flags.DEFINE_integer("videos", 100_000, "Part c: videos.")


def main():
    # Spawned, not forked: a fork begins with its parent's memory.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(measured, (TEXTS.value, VIDEOS.value)))


def measured(texts: int, videos: int) -> str:
    from benchmarks.similarity import features
    from benchmarks.similarity.features import BFLOAT16, BLOCKING
    from glscl_jax.retrieval.ranking import text_ranks_in_blocks

    text = features.texts(texts, BFLOAT16)
    video = features.videos(videos, BFLOAT16)
    owner = np.arange(texts) * (videos // texts)
    held = sum(x.nbytes for x in (text.sentence, text.queries, video.frames, video.queries))
    before = peak()
    start = time.perf_counter()
    ranks = text_ranks_in_blocks(text, video, owner, **BLOCKING)
    seconds = time.perf_counter() - start
    lines = (
        f"text-to-video ranks of {texts:,} texts among {videos:,} videos, bfloat16 features",
        f"{'features':<40}{held / 1e9:10.2f} GB",
        f"{'most memory held before ranking':<40}{before / 1e9:10.2f} GB",
        f"{'most memory ever held':<40}{peak() / 1e9:10.2f} GB",
        f"{'the score matrix, never held':<40}{4 * texts * videos / 1e9:10.2f} GB",
        f"{'ranking, compilation included':<40}{seconds:10.1f} s",
        # Random features: half of the videos stand before the right one.
        f"{'median rank':<40}{np.median(ranks.mean):10,.0f}",
    )
    return "\n".join(lines)


def peak() -> int:
    """Bytes of this process's largest resident set."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
