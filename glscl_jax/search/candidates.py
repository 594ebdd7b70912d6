"""The best windows without scoring all: those nearest by one vector, and a bound of all others."""

import dataclasses

import jax
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.models.heads.features import Features
from glscl_jax.search.neighbours import Neighbours
from glscl_jax.search.scan import Scan

# What is done to prove that candidates hold the best: nothing; the bounds of all others are
# computed; and those that could be better are scored, too, until none is left.
PROOFS = ("none", "check", "complete")


@dataclasses.dataclass(frozen=True)
class Found:
    """The best windows of a query.

    Attributes:
      rows: int64 [k], the best first.
      scores: float32 [k].
      exact: whether no other window scores higher; None if that is not known.
      scored: how many were scored.
    """

    rows: np.ndarray
    scores: np.ndarray
    exact: bool | None
    scored: int


def best(
    scan: Scan,
    near: Neighbours,
    text: Features,
    rows: np.ndarray,
    k: int,
    count: int,
    proof: str,
) -> Found:
    """The k best of the `count` nearest windows, or of all.

    A window that is not scored is none of the k best where its bound is below the k-th score.

    Args:
      scan: of all windows.
      near: their neighbours.
      text: features of one query.
      rows: int64, ascending, the windows that are asked for.
      k: how many.
      count: how many of the nearest are scored, but no fewer than k.
      proof: one of `PROOFS`.

    Raises:
      UserError: the index has no neighbours, or the head has no single vector for a query.
    """
    vector = scan.head.text_vector(jax.tree.map(np.asarray, text))
    if vector is None:
        raise UserError(
            f"--candidates: the head {scan.head.name} has no one vector to find them by"
        )
    taken = near.nearest(np.asarray(vector)[0], max(count, k), rows)
    scores = scan.scores(text, taken)[0]
    if proof == "none" or not scan.bounded:
        return _of(taken, scores, k, None)
    left = np.setdiff1d(rows, taken, assume_unique=True)
    bounds = scan.scores(text, left, bound=True)[0]
    open_ = bounds >= _least(scores, k)
    if proof == "check" or not open_.any():
        return _of(taken, scores, k, not open_.any())
    # The highest bounds first: they raise the k-th score soonest.
    order = np.argsort(-bounds, kind="stable")
    for start in range(0, len(order), scan.block):
        part = order[start : start + scan.block]
        part = np.sort(left[part[bounds[part] >= _least(scores, k)]])
        if not len(part):
            break
        scores = np.concatenate([scores, scan.scores(text, part)[0]])
        taken = np.concatenate([taken, part])
    return _of(taken, scores, k, True)


def _least(scores: np.ndarray, k: int) -> float:
    """The k-th best score: a window below it is not among the best. -inf if there are fewer."""
    return np.partition(scores, -k)[-k] if len(scores) >= k else -np.inf


def _of(rows: np.ndarray, scores: np.ndarray, k: int, exact: bool | None) -> Found:
    # Of equal scores the lower row first, as in a scan.
    order = np.lexsort((rows, -scores))[:k]
    return Found(rows[order], scores[order], exact, len(rows))
