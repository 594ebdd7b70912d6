"""What a query finds."""

import dataclasses
import datetime
import math
from typing import Any

# Columns of the table that are the index's own affair.
_INNER = ("row", "windows", "size", "modified", "sha256", "video", "start", "end")

# Weights that are nearer than this are one number, rounded; page.html.j2 has it, too.
_EVEN = 1e-6


@dataclasses.dataclass(frozen=True)
class Hit:
    """A window that was found, and why.

    Attributes:
      rank: from 1.
      score: the head's.
      row: the window's number in the index; it stays while the index is not compacted.
      video: its file, from the folder of the videos; of a prepared data set the clip's id.
      start, end: of the window, in seconds.
      time: of the frame that the query looked at most, in seconds from the video's first frame; of
        the first one where all count alike.
      times: of all its frames, likewise.
      weights: how much each of them counted.
      metadata: the columns of metadata.csv; of a prepared data set `file` and `captions`.
    """

    rank: int
    score: float
    row: int
    video: str
    start: float
    end: float
    time: float
    times: list[float]
    weights: list[float]
    metadata: dict[str, Any]

    @classmethod
    def of(cls, rank: int, score: float, record: dict, times, weights) -> "Hit":
        """From a row of the table and a head's `Explanation.weights`."""
        # A place without a frame has no time.
        real = [(float(t), float(w)) for t, w in zip(times, weights, strict=True) if t == t]
        best = max(real, key=lambda one: one[1])
        return cls(
            rank,
            score,
            record["row"],
            record["video"],
            record["start"],
            record["end"],
            best[0],
            [time for time, _ in real],
            [weight for _, weight in real],
            {name: value for name, value in record.items() if name not in _INNER},
        )

    @property
    def looks_evenly(self) -> bool:
        """Whether the head weighs no frame more than another, so that `time` says nothing."""
        return max(self.weights) - min(self.weights) < _EVEN

    def as_json(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a query found.

    Attributes:
      query: the sentence, or the name of the file.
      hits: the best windows, the best first.
      searched: how many windows there were to find: all, or those that a filter left.
      exact: whether these are the best of all that were searched: they were all scored, or a bound
        proves it. None if that is not known.
      scored: how many were scored.
    """

    query: str
    hits: list[Hit]
    searched: int
    exact: bool | None
    scored: int

    def as_json(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        told = {"query": self.query, "searched": self.searched, "scored": self.scored}
        return told | {"exact": self.exact, "hits": [hit.as_json() for hit in self.hits]}

    @property
    def told(self) -> str:
        """A line on how sure it is that these are the best."""
        if self.scored == self.searched:
            return f"the best of {self.searched:,} windows, all of them scored"
        how = {True: "proved", False: "not proved", None: "not proved"}[self.exact]
        return f"the best of {self.scored:,} scored windows of {self.searched:,}: {how}"


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
