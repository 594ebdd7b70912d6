"""Ranks, ties and recalls against slow counting and the reference's numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glscl_jax import metrics


def slow_mean_rank(row, right) -> float:
    """The average place of the right item over all orders of the items tied with it."""
    before = sum(score > row[right] for score in row)
    tied = sum(score == row[right] for score in row)
    return before + np.mean(range(1, tied + 1))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_ranks_agree_with_counting(queries, items, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 4, (queries, items)).astype(np.float32)
    right = rng.integers(items, size=queries)
    found = metrics.ranks(scores, right)
    assert found.mean.tolist() == [slow_mean_rank(scores[i], right[i]) for i in range(queries)]
    assert (found.optimistic <= found.mean).all()
    assert (found.mean <= found.pessimistic).all()


def test_ties_are_told_and_do_not_add_rows():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    result = metrics.retrieval(scores, np.arange(3))
    assert len(result.t2v.mean) == 3
    assert result.t2v.mean.tolist() == [1.5, 1, 1]
    assert metrics.recalls(result.t2v.optimistic).r1 == 100
    printed = metrics.table(result)
    assert "1 text-to-video queries tie" in printed
    assert "between 66.7 and 100.0" in printed


def test_permuting_the_gallery_changes_nothing():
    rng = np.random.default_rng(0)
    scores, owner = rng.normal(size=(30, 12)), np.concatenate([np.arange(12)] * 2 + [np.arange(6)])
    order = rng.permutation(12)
    before = metrics.retrieval(scores, owner)
    after = metrics.retrieval(scores[:, order], np.argsort(order)[owner])
    assert metrics.summary(before) == metrics.summary(after)


def test_a_video_without_a_caption_is_an_error():
    with pytest.raises(ValueError, match="1 of 3 videos have no caption"):
        metrics.retrieval(np.zeros((2, 3)), np.array([0, 1]))


def test_a_score_that_is_no_number_is_an_error():
    scores = np.eye(3)
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 9 scores"):
        metrics.retrieval(scores, np.arange(3))


def test_reference_metrics(golden):
    values = np.load(golden / "evaluation.npz")
    square = metrics.retrieval(values["sim"], np.arange(len(values["sim"])))
    several = metrics.retrieval(values["multi/sim"], values["multi/owner"])
    for result, name in ((square, "metrics"), (several, "multi")):
        for direction in ("t2v", "v2t"):
            found = metrics.recalls(getattr(result, direction).mean).as_dict().values()
            np.testing.assert_allclose(list(found), values[f"{name}/{direction}"], atol=1e-4)
