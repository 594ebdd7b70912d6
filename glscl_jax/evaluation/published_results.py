"""The recalls that the paper reports, to print beside one's own.

Zhang et al., "Text-Video Retrieval with Global-Local Semantic Consistent Learning", 2024
(arXiv 2405.12710). The figures stand in each benchmark's record.
"""

import dataclasses

from glscl_jax.input_pipeline.annotations import BENCHMARKS
from glscl_jax.input_pipeline.annotations.benchmark import TEST, Figures

HEAD = "glscl"  # whose figures these are
SOURCE = "Zhang et al. 2024, arXiv 2405.12710"


@dataclasses.dataclass(frozen=True)
class Published:
    """A row of the paper's tables.

    Attributes:
      benchmark: what it was measured on, as papers write it.
      videos: the fewest and the most videos that the split has in papers.
      t2v, v2t: the figures.
    """

    benchmark: str
    videos: tuple[int, int]
    t2v: Figures
    v2t: Figures


def find(dataset: str, split: str, variant: str | None, rerank: str) -> Published | None:
    """The row to compare with, or None where the paper has none.

    Args:
      dataset: as prepared; which of 1k-A's training lists it has does not matter.
      split: of the prepared data set.
      variant: CLIP's, see `variant_of`.
      rerank: "none", "qbnorm" or "dual_softmax".
    """
    benchmark = BENCHMARKS.get(dataset)
    if benchmark is None or split != TEST:
        return None
    for result in benchmark.results:
        if (result.variant, result.rerank) == (variant, rerank):
            return Published(benchmark.title, benchmark.test.videos, result.t2v, result.v2t)
    return None


def differing_videos(row: Published, videos: int) -> str:
    """A sentence where a split has other videos than the paper's, "" where the number fits."""
    low, high = row.videos
    if low <= videos <= high:
        return ""
    expected = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return (
        f"{videos:,} videos here, {expected} in {row.benchmark}: recall over another gallery "
        "cannot be compared"
    )
