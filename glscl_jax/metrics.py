"""Ranks and recalls, with ties explicit and several captions a video."""

import dataclasses

import numpy as np

TIES = ("mean", "optimistic", "pessimistic")
RECALLS_AT = (1, 5, 10, 50)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The right item's place for every query, counted from 1; float64 [queries].

    Items that score exactly as the right one make its place ambiguous. `optimistic` counts
    them behind it, `pessimistic` before it, and `mean` is the middle of the two: what a random
    order would give on average.
    """

    optimistic: np.ndarray
    pessimistic: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        return (self.optimistic + self.pessimistic) / 2

    @property
    def tied(self) -> int:
        """How many queries have a tie with the right item."""
        return int(np.sum(self.optimistic != self.pessimistic))


@dataclasses.dataclass(frozen=True)
class Recalls:
    """A row of a retrieval table.

    Attributes:
      r1, r5, r10, r50: share of queries whose right item is among the first k, in percent.
      median: median rank.
      mean: mean rank.
    """

    r1: float
    r5: float
    r10: float
    r50: float
    median: float
    mean: float

    def as_dict(self) -> dict[str, float]:
        """By the names the field uses: R@k, MdR, MnR."""
        values = dataclasses.astuple(self)
        return dict(zip(("R@1", "R@5", "R@10", "R@50", "MdR", "MnR"), values, strict=True))


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Ranks in both directions: one query a caption (t2v) and one a video (v2t)."""

    t2v: Ranks
    v2t: Ranks


def ranks(scores: np.ndarray, right: np.ndarray) -> Ranks:
    """Where each query's right item stands.

    Args:
      scores: [queries, items], higher is better.
      right: int [queries], the right item's column.

    Raises:
      ValueError: a score is not a number, which no order can place.
    """
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.sum(~np.isfinite(scores))} of {scores.size} scores are not finite")
    own = np.take_along_axis(scores, np.asarray(right)[:, None], axis=1)
    before = np.sum(scores > own, axis=1)
    level = np.sum(scores == own, axis=1)
    return Ranks((before + 1).astype(np.float64), (before + level).astype(np.float64))


def recalls(ranks: np.ndarray) -> Recalls:
    """The table's row for ranks [queries]."""
    shares = (100.0 * np.mean(ranks <= k) for k in RECALLS_AT)
    return Recalls(*map(float, shares), float(np.median(ranks)), float(np.mean(ranks)))


def retrieval(scores: np.ndarray, owner: np.ndarray) -> Retrieval:
    """Ranks of a whole split.

    A caption is ranked over the videos. A video is ranked over the groups of captions that
    belong to one video, each group standing at its best caption's score.

    Args:
      scores: [A,B], captions by videos.
      owner: int [A], the video that each caption describes; every video has at least one.

    Raises:
      ValueError: a video without a caption, or a score that is not finite.
    """
    videos = scores.shape[1]
    groups = np.full((videos, videos), -np.inf, scores.dtype)
    np.maximum.at(groups, np.asarray(owner), scores)
    if missing := videos - len(np.unique(owner)):
        raise ValueError(f"{missing} of {videos} videos have no caption")
    return Retrieval(ranks(scores, owner), ranks(groups.T, np.arange(videos)))


def table(result: Retrieval, ties: str = "mean") -> str:
    """Both directions for the terminal, and a warning where ties change a figure."""
    rows = {"text-to-video": result.t2v, "video-to-text": result.v2t}
    names = ("R@1", "R@5", "R@10", "R@50", "MdR", "MnR")
    lines = [" " * 14 + "".join(f"{name:>8}" for name in names)]
    for label, places in rows.items():
        values = recalls(getattr(places, ties)).as_dict().values()
        lines.append(f"{label:<14}" + "".join(f"{value:8.1f}" for value in values))
    for label, places in rows.items():
        if places.tied:
            low, high = (recalls(x).r1 for x in (places.pessimistic, places.optimistic))
            lines.append(
                f"warning: {places.tied} {label} queries tie with another item; "
                f"R@1 is between {low:.1f} and {high:.1f}"
            )
    return "\n".join(lines)


def summary(result: Retrieval) -> dict:
    """Every figure under every tie rule, as JSON holds it."""
    return {
        name: {
            **{tie: recalls(getattr(places, tie)).as_dict() for tie in TIES},
            "queries": len(places.mean),
            "tied_queries": places.tied,
        }
        for name, places in (("t2v", result.t2v), ("v2t", result.v2t))
    }
