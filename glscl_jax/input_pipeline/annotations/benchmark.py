"""What is known of a benchmark: who reads it, what it holds, what the paper reports on it.

One record a benchmark, in the file of its reader; `annotations.BENCHMARKS` has them all.
"""

import dataclasses
import pathlib
from collections.abc import Callable

from glscl_jax.figures import FIGURES
from glscl_jax.input_pipeline.annotations.clip import Clip

# The split that results are of, as it is called here in every benchmark.
TEST = "test"

Reader = Callable[[pathlib.Path, pathlib.Path | None], list[Clip]]


@dataclasses.dataclass(frozen=True)
class Count:
    """What one published split holds.

    Attributes:
      splits: the splits here that it is divided into, in which a validation split is carved.
      videos: fewest and most videos; papers differ by a few that are gone.
      captions: fewest and most captions, of paragraph sets one a video.
    """

    splits: tuple[str, ...]
    videos: tuple[int, int]
    captions: tuple[int, int]

    @classmethod
    def exactly(cls, splits: tuple[str, ...], videos: int, captions: int) -> "Count":
        """Numbers on which all agree."""
        return cls(splits, (videos, videos), (captions, captions))

    @classmethod
    def paragraphs(cls, splits: tuple[str, ...], fewest: int, most: int) -> "Count":
        """Of a split with one paragraph a video."""
        return cls(splits, (fewest, most), (fewest, most))


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
        names = (name for name in FIGURES if name != "R@50")
        return dict(zip(names, dataclasses.astuple(self), strict=True))


@dataclasses.dataclass(frozen=True)
class Result:
    """A row of the tables of Zhang et al. 2024 (GLSCL, arXiv 2405.12710), on a test split.

    Attributes:
      variant: CLIP's.
      t2v, v2t: the figures.
      rerank: post-processing; the paper's starred rows are with QB-Norm.
    """

    variant: str
    t2v: Figures
    v2t: Figures
    rerank: str = "none"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A published data set in one of its splits.

    Attributes:
      name: what `--dataset` takes.
      title: what papers call it and what they test on.
      read: its reader, which takes the folder of the annotations, and that of the videos where it
        is another.
      counts: what its splits hold, as published. "Counted" beside a number is what the published
        files hold, where the tests could read them.
      source: where those are from.
      validation_size: training videos that are held out by default, where it has no validation
        videos. The reference picks its best epoch on the test split, which then says nothing of
        unseen videos.
      results: what the paper reports.
    """

    name: str
    title: str
    read: Reader
    counts: tuple[Count, ...]
    source: str
    validation_size: int = 0
    results: tuple[Result, ...] = ()

    @property
    def test(self) -> Count:
        """The split that papers report."""
        (count,) = (count for count in self.counts if TEST in count.splits)
        return count
