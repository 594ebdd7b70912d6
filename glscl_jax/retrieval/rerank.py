"""Scores changed after the fact: QB-Norm and dual softmax. Neither is on by default.

Both compare an item's score with what other queries give it, so that an item close to every
query (a hub) loses its advantage. They change the order of a row's items only: a changed row
means nothing beside another row, so rank each direction from its own changed matrix (queries
in rows) and never both from one.
"""

import dataclasses

import numpy as np

from glscl_jax.errors import UserError

QB_NORM = "QB-Norm (bank of training queries)"
DUAL_SOFTMAX = "dual softmax (transductive: each score depends on all test queries)"

# exp() of float64 holds down to about -708: below, items would silently tie at zero.
LARGEST_EXPONENT = 700.0

# Bank rows worked on at once, so that a bank of all training captions needs no second copy.
BANK_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class QBNorm:
    """Settings of Query Bank Normalisation (Bogolin et al., CVPR 2022, arXiv 2112.12777).

    Attributes:
      k: a bank query votes for its k best items.
      beta: inverse temperature. The reference has 70, on ActivityNet 50.
      theta: votes that make an item active. The reference has 3 for t2v and 5 for v2t.

    Raises:
      UserError: a setting that leaves nothing to compute.
    """

    k: int = 1
    beta: float = 70.0
    theta: int = 3

    def __post_init__(self):
        if self.k < 1 or self.theta < 1 or not 0 < self.beta < np.inf:
            raise UserError(f"{self}: k and theta are at least 1, beta is above 0")


def query_bank_norm(scores: np.ndarray, bank: np.ndarray, settings: QBNorm) -> np.ndarray:
    """The dynamic inverted softmax.

    A query whose best item is active gets the row exp(beta s) / sum_bank exp(beta s_bank), with
    the sum over the item's column of the bank; other queries keep theirs. Ties hang on no
    order: an item is among a bank query's best k if fewer than k items score above it, and of a
    query's equally best items one active item is enough.

    The bank comes from the training split, or it would be a peek at the test: for t2v training
    captions against the test videos, for v2t training videos against the test captions.

    Args:
      scores: float32 or float64 [queries, gallery].
      bank: the same type, [bank queries, gallery].
      settings: see there.

    Returns:
      float64 [queries, gallery].

    Raises:
      UserError: k larger than the gallery, or beta so large that the result has no numbers.
      ValueError: a bank of another gallery, an empty bank, or scores that are not finite.
    """
    gallery = scores.shape[1]
    if bank.ndim != 2 or bank.shape[1] != gallery or not len(bank):
        raise ValueError(f"a bank of shape {bank.shape} for a gallery of {gallery}")
    if settings.k > gallery:
        raise UserError(f"QB-Norm with k {settings.k}: the gallery has only {gallery} items")
    _check_finite(scores, bank)
    active = _votes(bank, settings.k) >= settings.theta
    best = scores == scores.max(axis=1, keepdims=True)
    chosen = np.any(best & active, axis=1)

    result = scores.astype(np.float64)
    # The quotient of the formula, as a difference of exponents: exp(70 * 1.5) is beyond float32.
    exponents = settings.beta * result[chosen] - _log_sums(bank, settings.beta)
    _check_exponents(exponents, f"QB-Norm with beta {settings.beta:g}")
    result[chosen] = np.exp(exponents)
    return result


def dual_softmax(scores: np.ndarray, temperature: float = 100.0) -> np.ndarray:
    """Each score times the share of its item that its query wins. Transductive.

    The share is a softmax over all queries of the test, for each item (Cheng et al., 2021,
    arXiv 2109.04290). No user's query could be answered in this way alone: its result depends
    on which other test queries are asked, and it gains from a test that pairs queries and items
    one to one. Say so wherever a figure of it stands (`DUAL_SOFTMAX`). A negative score comes
    nearer to zero by a small share, as the formula has it.

    Args:
      scores: float32 or float64 [queries, gallery]; for v2t videos by captions.
      temperature: scores are multiplied by it before the softmax.

    Returns:
      float64 [queries, gallery].

    Raises:
      UserError: a temperature that is not above 0, or so large that the shares have no numbers.
      ValueError: scores that are not finite.
    """
    if not 0 < temperature < np.inf:
        raise UserError(f"dual softmax with temperature {temperature}: it is to be above 0")
    _check_finite(scores)
    scores = scores.astype(np.float64)
    exponents = temperature * scores - _log_sums(scores, temperature)
    _check_exponents(exponents, f"dual softmax with temperature {temperature:g}")
    return scores * np.exp(exponents)


def _votes(bank: np.ndarray, k: int) -> np.ndarray:
    """Of how many bank queries each item is among the best k: int [gallery]."""
    votes = np.zeros(bank.shape[1], np.int64)
    for start in range(0, len(bank), BANK_BLOCK):
        block = bank[start : start + BANK_BLOCK]
        worst_of_k = np.partition(block, -k, axis=1)[:, -k, None]
        votes += np.sum(block >= worst_of_k, axis=0)
    return votes


def _log_sums(scores: np.ndarray, factor: float) -> np.ndarray:
    """log sum over the rows of exp(factor * scores): float64 [gallery]."""
    highest = scores.max(axis=0).astype(np.float64)
    sums = np.zeros(scores.shape[1])
    for start in range(0, len(scores), BANK_BLOCK):
        block = scores[start : start + BANK_BLOCK].astype(np.float64)
        sums += np.sum(np.exp(factor * (block - highest)), axis=0)
    return np.log(sums) + factor * highest


def _check_finite(*matrices: np.ndarray) -> None:
    for matrix in matrices:
        if broken := np.sum(~np.isfinite(matrix)):
            raise ValueError(f"{broken} of {matrix.size} scores are not finite")


def _check_exponents(exponents: np.ndarray, what: str) -> None:
    if np.max(np.abs(exponents), initial=0.0) > LARGEST_EXPONENT:
        raise UserError(
            f"{what}: exp of {exponents.min():.0f} to {exponents.max():.0f} is beyond float64; "
            "take a smaller value"
        )
