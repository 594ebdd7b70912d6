"""The recalls that the paper reports, to print beside one's own.

Zhang et al., "Text-Video Retrieval with Global-Local Semantic Consistent Learning", 2024
(arXiv 2405.12710); rows with QB-Norm are its starred ones.
"""

import dataclasses
from types import MappingProxyType

HEAD = "glscl"  # whose figures these are
SOURCE = "Zhang et al. 2024, arXiv 2405.12710"


@dataclasses.dataclass(frozen=True)
class Figures:
    """One direction: recall in percent, median rank where it was reported, mean rank."""

    r1: float
    r5: float
    r10: float
    median: float | None
    mean: float

    def as_dict(self) -> dict[str, float | None]:
        """By the field's names; R@50 was not reported."""
        values = (self.r1, self.r5, self.r10, self.median, self.mean)
        return dict(zip(("R@1", "R@5", "R@10", "MdR", "MnR"), values, strict=True))


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


_NONE, _QB = "none", "qbnorm"
_MSRVTT = ("MSR-VTT 1k-A", (1000, 1000))

# Prepared data sets with the test split of one benchmark. MSR-VTT's official split has another.
_TESTED_AS = {"msrvtt_9k": "msrvtt", "msrvtt_7k": "msrvtt"}

# (benchmark, split as prepared here, variant, post-processing); the paper's ActivityNet figures
# are of val_1, which is prepared as the test split.
TABLE: MappingProxyType[tuple[str, str, str, str], Published] = MappingProxyType(
    {
        ("msrvtt", "test", "ViT-B/32", _NONE): Published(
            *_MSRVTT, Figures(48.1, 73.9, 82.3, 2, 13.8), Figures(47.1, 73.0, 83.2, 2, 10.3)
        ),
        ("msrvtt", "test", "ViT-B/32", _QB): Published(
            *_MSRVTT, Figures(50.0, 73.7, 82.8, 1.5, 14.2), Figures(49.4, 74.5, 83.9, 2, 9.6)
        ),
        ("msrvtt", "test", "ViT-B/16", _NONE): Published(
            *_MSRVTT, Figures(49.5, 75.1, 83.9, 2, 12.6), Figures(48.9, 76.3, 85.8, 2, 8.4)
        ),
        ("msrvtt", "test", "ViT-B/16", _QB): Published(
            *_MSRVTT, Figures(50.5, 75.2, 83.8, 1, 12.8), Figures(49.2, 76.1, 86.2, 2, 8.5)
        ),
        ("msvd", "test", "ViT-B/32", _NONE): Published(
            "MSVD",
            (670, 670),
            Figures(47.5, 76.3, 86.1, None, 9.8),
            Figures(69.1, 91.5, 94.8, None, 3.2),
        ),
        ("didemo", "test", "ViT-B/32", _NONE): Published(
            "DiDeMo",
            (1003, 1004),
            Figures(46.7, 75.0, 82.9, None, 13.0),
            Figures(45.9, 74.5, 83.1, None, 9.5),
        ),
        ("lsmdc", "test", "ViT-B/32", _NONE): Published(
            "LSMDC",
            (1000, 1000),
            Figures(23.4, 42.4, 49.8, None, 56.2),
            Figures(22.2, 41.4, 50.0, None, 50.3),
        ),
        ("activitynet", "test", "ViT-B/32", _NONE): Published(
            "ActivityNet val_1",
            (4917, 4917),
            Figures(41.4, 72.1, 83.9, None, 7.5),
            Figures(40.6, 71.8, 84.1, None, 7.1),
        ),
    }
)


def published(dataset: str, split: str, variant: str | None, rerank: str) -> Published | None:
    """The row to compare with, or None where the paper has none.

    Args:
      dataset: as prepared; which of 1k-A's training lists it has does not matter.
      split: of the prepared data set.
      variant: CLIP's, see `variant_of`.
      rerank: "none", "qbnorm" or "dual_softmax".
    """
    return TABLE.get((_TESTED_AS.get(dataset, dataset), split, variant, rerank))


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
