"""Ranks and recalls, with ties explicit and several captions a video."""

import dataclasses

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.figures import DIRECTIONS, FIGURES, RECALLS_AT

TIES = ("mean", "optimistic", "pessimistic")


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
        return dict(zip(FIGURES, values, strict=True))


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
      ValueError: a score is not a number, which no order can place; a right item that is not
        among the items.
    """
    right = np.asarray(right)
    if np.any((right < 0) | (right >= scores.shape[1])):
        raise ValueError(f"a right item is not among the {scores.shape[1]} items")
    if not np.isfinite(scores).all():
        raise ValueError(f"{np.sum(~np.isfinite(scores))} of {scores.size} scores are not finite")
    own = np.take_along_axis(scores, right[:, None], axis=1)
    before = np.sum(scores > own, axis=1)
    level = np.sum(scores == own, axis=1)
    return Ranks((before + 1).astype(np.float64), (before + level).astype(np.float64))


def recalls(ranks: np.ndarray) -> Recalls:
    """The table's row for ranks [queries].

    Raises:
      ValueError: there is no query.
    """
    if not len(ranks):
        raise ValueError("no queries, so no recall")
    shares = (100.0 * np.mean(ranks <= k) for k in RECALLS_AT)
    middle = float(np.median(ranks)), float(np.mean(ranks))
    return Recalls(*map(float, shares), *middle)  # pyright: ignore[reportCallIssue]


def text_to_video(scores: np.ndarray, owner: np.ndarray) -> Ranks:
    """Ranks of every caption's video among the videos; arguments as in `retrieval`."""
    return ranks(scores, owner)


def video_to_text(scores: np.ndarray, owner: np.ndarray) -> Ranks:
    """Ranks of every video's captions; arguments and errors as in `retrieval`.

    What is ranked are the groups of captions that belong to one video, each group standing at
    its best caption's score.
    """
    owner, videos = np.asarray(owner), scores.shape[1]
    sizes = np.bincount(owner, minlength=videos)
    if missing := np.sum(sizes == 0):
        raise ValueError(f"{missing} of {videos} videos have no caption")
    if len(sizes) > videos:
        raise ValueError(f"a caption's video is not among the {videos} videos")
    starts = np.cumsum(sizes) - sizes
    groups = np.maximum.reduceat(scores[np.argsort(owner, kind="stable")], starts, axis=0)
    return ranks(groups.T, np.arange(videos))


def retrieval(scores: np.ndarray, owner: np.ndarray) -> Retrieval:
    """Ranks of a whole split, in both directions.

    Args:
      scores: [A,B], captions by videos, higher is better; A and B need not be equal.
      owner: int [A], the video that each caption describes; every video has at least one.

    Raises:
      ValueError: a video without a caption, a caption of no video here, or a score that is not
        finite.
    """
    return Retrieval(text_to_video(scores, owner), video_to_text(scores, owner))


def legacy_ranks(places: Ranks) -> np.ndarray:
    """The ranks that the released metric counts; float64 [queries + ties].

    It takes the place of every item that scores as the right one does for a hit of its own, so
    a query with n such items becomes n rows, from its optimistic rank to its pessimistic one.
    """
    rows = (places.pessimistic - places.optimistic + 1).astype(np.int64)
    within = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    return np.repeat(places.optimistic, rows) + within


def legacy_recalls(scores: np.ndarray, owner: np.ndarray) -> dict[str, Recalls]:
    """The released metric, by direction ("t2v", "v2t"); arguments and errors as `retrieval`.

    Where nothing ties it equals `recalls`. Where the right item ties, it scores more rows than
    there are queries (see `legacy_ranks`): only for comparing with figures made in that way.
    """
    result = retrieval(scores, owner)
    return {name: recalls(legacy_ranks(getattr(result, name))) for name in DIRECTIONS}


def check_finite(features_name: str, array: np.ndarray, names: list[str]) -> None:
    """Stops before an item that no score could place.

    Args:
      features_name: what the array holds, for the message ("video features").
      array: [items, ...], any floating type.
      names: the items' names, clip ids or captions.

    Raises:
      UserError: an item has a NaN or an infinity; the first is named, the others are counted.
    """
    if len(array) != len(names):
        raise ValueError(f"{len(names)} names for {len(array)} items")
    # A slice at a time: the mask of a whole split's frame features would be gigabytes.
    slices = (array[start : start + 1024] for start in range(0, len(names), 1024))
    finite = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in map(np.asarray, slices)]
    broken = np.flatnonzero(~np.concatenate(finite)) if finite else np.empty(0, int)
    if len(broken):
        name = names[broken[0]]
        shown = repr(name if len(name) <= 100 else name[:97] + "...")
        raise UserError(
            f"the {features_name} of {shown} are not finite ({len(broken)} of {len(names)} such "
            "items): look at that item, or take another checkpoint"
        )


def table(result: Retrieval, ties: str = "mean") -> str:
    """Both directions for the terminal.

    Where the right item ties with others, the rows of the other tie rules stand below that of
    the chosen one, and a warning says for how many queries.
    """
    lines = [" " * 14 + "".join(f"{name:>8}" for name in FIGURES)]
    warnings = []
    for direction, label in DIRECTIONS.items():
        places = getattr(result, direction)
        lines.append(_table_row(label, getattr(places, ties)))
        if places.tied:
            others = (tie for tie in TIES if tie != ties)
            lines += [_table_row(f"  {tie}", getattr(places, tie)) for tie in others]
            low, high = (recalls(x).r1 for x in (places.pessimistic, places.optimistic))
            warnings.append(
                f"warning: {places.tied} of {len(places.mean)} {label} queries tie with another "
                f"item; R@1 is between {low:.1f} and {high:.1f} (upper row: {ties})"
            )
    return "\n".join(lines + warnings)


def _table_row(label: str, places: np.ndarray) -> str:
    values = recalls(places).as_dict().values()
    return f"{label:<14}" + "".join(f"{value:8.1f}" for value in values)


def summary(result: Retrieval) -> dict:
    """Every figure under every tie rule, as JSON holds it."""
    return {name: _summary(getattr(result, name)) for name in DIRECTIONS}


def _summary(places: Ranks) -> dict:
    return {
        **{tie: recalls(getattr(places, tie)).as_dict() for tie in TIES},
        "queries": len(places.mean),
        "tied_queries": places.tied,
    }
