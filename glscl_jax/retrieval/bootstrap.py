"""How far a figure may lie from its true value, and whether two runs differ.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, chapters 13 and
16): the queries of a split are a sample of the queries one might have asked, so draw as many
again from them, with replacement, and see how the figures move.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from glscl_jax.figures import RECALLS_AT
from glscl_jax.retrieval import metrics

# Weights held at once: 32 MB of float64.
BLOCK = 4_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
    """A figure and the bounds of its confidence interval, in the figure's own unit."""

    low: float
    value: float
    high: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """A figure of two runs, or of two groups of runs, on the same queries.

    Attributes:
      a, b: the figure of each run; of a group the mean of its runs'.
      difference: b - a. More is better for R@k, worse for MdR and MnR.
      low, high: the confidence interval of the difference.
      within_noise: zero lies in that interval, so the runs cannot be told apart by this figure.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    within_noise: bool


def intervals(
    ranks: np.ndarray,
    *,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    groups: np.ndarray | list[str] | None = None,
) -> dict[str, Interval]:
    """The interval of every figure of a table's row, by its name (R@1 ... MdR, MnR).

    A share that is exactly 0 or 100 gets an interval without width: no sample of these queries
    can say otherwise.

    Args:
      ranks: float [queries], counted from 1.
      samples: how often to draw.
      seed: the same seed, ranks and settings give the same bounds.
      confidence: share of such intervals that hold the true value.
      groups: [queries], numbers or names; those of one group are drawn together. Captions of a
        video are not independent: pass the video of each (`owner`) where it has several, or the
        interval is too narrow. Without it every query is drawn by itself.

    Raises:
      ValueError: no ranks, a rank that is none, or settings outside their range.
    """
    return intervals_of_means(
        [ranks], samples=samples, seed=seed, confidence=confidence, groups=groups
    )


def intervals_of_means(
    runs: Sequence[np.ndarray],
    *,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    groups: np.ndarray | list[str] | None = None,
) -> dict[str, Interval]:
    """The interval of every figure of a recipe, the mean of several runs that differ by seed.

    Over queries and seeds, drawn as in `paired_means`.

    Args:
      runs: of each run float [queries], of the same queries in the same order.
      samples, seed, confidence, groups: as in `intervals`.

    Raises:
      ValueError: as in `intervals`, no runs, and where they differ in the number of queries.
    """
    runs = _same_queries(runs)
    drawn = _bootstrap(runs, groups, samples, seed)
    drawn = _mean_of_drawn(drawn, np.random.default_rng([seed, len(drawn)]))
    low, high = _bounds(drawn, confidence)
    return {
        name: Interval(float(low[i]), value, float(high[i]))
        for i, (name, value) in enumerate(_mean_figures(runs).items())
    }


def paired(
    ranks_a: np.ndarray,
    ranks_b: np.ndarray,
    *,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    groups: np.ndarray | list[str] | None = None,
) -> dict[str, Difference]:
    """Whether run B's figures differ from run A's, by the name of the figure.

    Both runs see the same draw, so what makes a query hard for both cancels out. Six figures a
    direction are looked at, each with its own interval; no correction is made for that.

    Args:
      ranks_a, ranks_b: float [queries], of the same queries in the same order.
      samples, seed, confidence, groups: as in `intervals`.

    Raises:
      ValueError: as in `intervals`, and where the runs differ in the number of queries.
    """
    return paired_means(
        [ranks_a],
        [ranks_b],
        samples=samples,
        seed=seed,
        confidence=confidence,
        groups=groups,
    )


def paired_means(
    runs_a: Sequence[np.ndarray],
    runs_b: Sequence[np.ndarray],
    *,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    groups: np.ndarray | list[str] | None = None,
) -> dict[str, Difference]:
    """Whether a recipe's figures differ from another's, each of several runs that differ by seed.

    A figure is the mean of the runs'. A draw is of the queries, the same for all runs, and of the
    seeds: of n runs of a recipe n - 1 are taken, with replacement, so that the mean varies as much
    as the mean of n others would (Rao and Wu, "Resampling Inference with Complex Survey Data",
    1988). A recipe of one run has no say on seeds: its interval is over queries alone.

    Args:
      runs_a, runs_b: of each run float [queries], of the same queries in the same order.
      samples, seed, confidence, groups: as in `intervals`.

    Raises:
      ValueError: as in `intervals`, no runs, and where they differ in the number of queries.
    """
    if not runs_a or not runs_b:
        raise ValueError("a recipe without runs")
    both = _same_queries([*runs_a, *runs_b])
    runs_a, runs_b = both[: len(runs_a)], both[len(runs_a) :]
    drawn = _bootstrap(runs_a + runs_b, groups, samples, seed)
    seeds = np.random.default_rng([seed, len(drawn)])
    drawn_a, drawn_b = (
        _mean_of_drawn(part, seeds) for part in (drawn[: len(runs_a)], drawn[len(runs_a) :])
    )
    low, high = _bounds(drawn_b - drawn_a, confidence)
    value_a, value_b = (_mean_figures(runs) for runs in (runs_a, runs_b))
    return {
        name: Difference(
            a=a,
            b=value_b[name],
            difference=value_b[name] - a,
            low=float(low[i]),
            high=float(high[i]),
            within_noise=bool(low[i] <= 0 <= high[i]),
        )
        for i, (name, a) in enumerate(value_a.items())
    }


def _same_queries(runs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The runs' ranks, checked."""
    runs = list(map(_checked, runs))
    if not runs:
        raise ValueError("a recipe without runs")
    counts = list(dict.fromkeys(map(len, runs)))
    if len(counts) > 1:
        raise ValueError(f"{counts[0]} queries cannot be paired with {counts[1]}")
    return runs


def _mean_figures(runs: list[np.ndarray]) -> dict[str, float]:
    """The means of the runs' figures, by name."""
    figures = [metrics.recalls(ranks).as_dict() for ranks in runs]
    return {name: float(np.mean([x[name] for x in figures])) for name in figures[0]}


def _mean_of_drawn(runs: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """The mean of drawn runs for every draw of queries: figures [samples, 6] of each run -> one."""
    if len(runs) == 1:
        return runs[0]
    samples, count = len(runs[0]), len(runs)
    taken = rng.integers(count, size=(samples, count - 1))
    times = (taken[:, :, None] == np.arange(count)).sum(axis=1) / (count - 1)
    return np.einsum("SR,RSF->SF", times, np.stack(runs))


def _checked(ranks: np.ndarray) -> np.ndarray:
    ranks = np.asarray(ranks, np.float64)
    if ranks.ndim != 1 or not ranks.size:
        raise ValueError(f"ranks of shape {ranks.shape}: one rank a query is wanted")
    if not np.all(np.isfinite(ranks) & (ranks >= 1)):
        raise ValueError("a rank is a finite number, counted from 1")
    return ranks


def _bounds(drawn: np.ndarray, confidence: float) -> np.ndarray:
    """[samples, figures] -> the two quantiles that leave half of the rest outside, [2, figures]."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence} is not between 0 and 1")
    return np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)


def _bootstrap(
    runs: list[np.ndarray], groups: np.ndarray | list[str] | None, samples: int, seed: int
) -> list[np.ndarray]:
    """For each run the figures [samples, 6] of every draw, in the order of `metrics.Recalls`."""
    blocks = []
    for weights in _draws(len(runs[0]), groups, samples, seed):
        blocks.append([_figures(ranks, weights) for ranks in runs])
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def _draws(
    queries: int, groups: np.ndarray | list[str] | None, samples: int, seed: int
) -> Iterator[np.ndarray]:
    """How often each draw holds each query: float64 [some samples, queries], blockwise."""
    if samples < 1:
        raise ValueError(f"{samples} samples give no interval")
    groups = np.arange(queries) if groups is None else np.asarray(groups)
    if groups.shape != (queries,):
        raise ValueError(f"groups of shape {groups.shape} for {queries} queries")
    names, group_of = np.unique(groups, return_inverse=True)
    rng, block = np.random.default_rng(seed), max(1, BLOCK // queries)
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        drawn = rng.integers(len(names), size=(rows, len(names)))
        # One count over all rows of the block: each row's groups get numbers of their own.
        numbered = drawn + len(names) * np.arange(rows)[:, None]
        counts = np.bincount(numbered.ravel(), minlength=rows * len(names))
        yield counts.reshape(rows, len(names))[:, group_of].astype(np.float64)


def _figures(ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`metrics.recalls` of ranks [queries] taken weights [samples, queries] times each."""
    total = weights.sum(axis=1)
    hits = np.stack([ranks <= k for k in RECALLS_AT], axis=1)
    shares = 100.0 * (weights @ hits) / total[:, None]
    return np.column_stack([shares, _medians(ranks, weights, total), weights @ ranks / total])


def _medians(ranks: np.ndarray, weights: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The middle of each draw, or the mean of its two middle ranks: float64 [samples]."""
    order = np.argsort(ranks)
    reached = np.cumsum(weights[:, order], axis=1)
    # The rank at place p of a draw (from 0) is the first whose count up to it exceeds p.
    middles = [
        ranks[order][np.argmax(reached > place[:, None], axis=1)]
        for place in ((total - 1) // 2, total // 2)
    ]
    return (middles[0] + middles[1]) / 2
