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


# Files with so many rows, in place of 1,000, circulate under the name of a test split.
_CIRCULATING = {"MSR-VTT 1k-A": (879, 1_758)}


def differing_gallery(dataset: str, split: str, videos: int, texts: int) -> str:
    """A sentence where a benchmark's test split is not of the size that papers report; else "".

    Whatever the model: recall over another gallery does not compare.

    Args:
      dataset: as prepared.
      split: of the prepared data set.
      videos: how many are ranked.
      texts: how many captions are ranked.
    """
    benchmark = BENCHMARKS.get(dataset)
    if benchmark is None or split != TEST:
        return ""
    differing = []
    for name, count, (low, high) in (
        ("videos", videos, benchmark.test.videos),
        ("captions", texts, benchmark.test.captions),
    ):
        if not low <= count <= high:
            expected = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            differing.append(f"{count:,} {name} here, {expected} in {benchmark.title}")
    if not differing:
        return ""
    known = _CIRCULATING.get(benchmark.title, ())
    circulates = ""
    if videos in known or texts in known:
        rows = " and ".join(f"{count:,}" for count in known)
        circulates = f" (lists of {rows} rows circulate under that name)"
    told = "; ".join(differing)
    return f"{told}{circulates}: recall over another gallery cannot be compared"


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
