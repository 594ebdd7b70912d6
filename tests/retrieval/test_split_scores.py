"""Scores without the whole matrix against the whole matrix, and post-processed ones."""

import numpy as np
import pytest

from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.retrieval import metrics, rerank, split_scores
from glscl_jax.retrieval.encoded_split import EncodedSplit
from tests.builders import split

HEAD = GLSCLHead(temperature=2.0, lim_weight=0.7)


@pytest.fixture(scope="module")
def encoded():
    return split(videos=20, captions=2)


@pytest.fixture(scope="module")
def matrix(encoded):
    return np.asarray(HEAD.score(encoded.text, encoded.video))


def test_ranks_rows_and_best_items_are_those_of_the_matrix(encoded, matrix, monkeypatch):
    # Blocks of videos that do not divide them.
    monkeypatch.setattr(split_scores, "VIDEO_ROWS", 7)
    own = split_scores.Scored(encoded, HEAD)
    expected = metrics.retrieval(matrix, encoded.owner)
    found = own.retrieval()
    np.testing.assert_array_equal(found.t2v.mean, expected.t2v.mean)
    np.testing.assert_array_equal(found.v2t.mean, expected.v2t.mean)
    np.testing.assert_allclose(own.row(5), matrix[5], atol=1e-5)
    top = own.top(3)
    for name, scores in (("t2v", matrix), ("v2t", matrix.T)):
        order = np.argsort(-scores, axis=1)[:, :3]
        np.testing.assert_array_equal(top[name].items, order)
        np.testing.assert_allclose(
            top[name].scores, np.take_along_axis(scores, order, axis=1), atol=1e-5
        )


def test_the_bank_is_scored_on_the_right_sides(encoded, matrix):
    bank = split(videos=9, captions=3, seed=1)
    t2v, v2t = rerank.QBNorm(theta=2, beta=20), rerank.QBNorm(theta=1, beta=10)
    own = split_scores.Scored(encoded, HEAD)
    changed = split_scores.query_bank_norm(own, encoded, bank, t2v, v2t)
    captions = np.asarray(HEAD.score(bank.text, encoded.video))
    videos = np.asarray(HEAD.score(encoded.text, bank.video)).T
    assert captions.shape == (27, 20)
    assert videos.shape == (9, 40)
    expected = rerank.query_bank_norm(matrix, captions, t2v)
    other = rerank.query_bank_norm(matrix.T, videos, v2t)
    # Neither is the plain matrix, or this would show nothing.
    assert not np.allclose(expected, matrix)
    assert not np.allclose(other, matrix.T)
    np.testing.assert_allclose(changed.row(4), expected[4], rtol=1e-4)
    best = changed.top(1)["v2t"].scores[:, 0]
    np.testing.assert_allclose(best, other.max(axis=1), rtol=1e-4)
    found = changed.retrieval()
    np.testing.assert_array_equal(found.t2v.mean, metrics.ranks(expected, encoded.owner).mean)
    np.testing.assert_array_equal(
        found.v2t.mean, metrics.video_to_text(other.T, encoded.owner).mean
    )


def test_dual_softmax_normalises_each_direction_over_its_own_queries(encoded, matrix):
    changed = split_scores.dual_softmax(split_scores.Scored(encoded, HEAD), encoded, 30.0)
    shares = np.exp(30 * matrix.astype(float))
    np.testing.assert_allclose(changed.row(4), (matrix * shares / shares.sum(0))[4], rtol=1e-3)
    expected = (matrix * shares / shares.sum(1, keepdims=True)).T
    np.testing.assert_allclose(changed.top(1)["v2t"].scores[:, 0], expected.max(1), rtol=1e-3)


def test_a_shuffled_pairing_falls_to_chance():
    encoded = split(videos=200, captions=2, noise=0.3)
    own = split_scores.Scored(encoded, HEAD)
    assert metrics.recalls(own.retrieval().t2v.mean).r1 > 90
    shuffled = np.random.default_rng(3).permutation(encoded.owner)
    wrong = split_scores.Scored(
        EncodedSplit(
            encoded.text, encoded.video, shuffled, encoded.captions, encoded.clip_ids, 0, {}
        ),
        HEAD,
    ).retrieval()
    # Chance is 0.5 % and a mean rank of 100.5, of 400 queries with a deviation of 2.9.
    for places in (wrong.t2v, wrong.v2t):
        assert metrics.recalls(places.mean).r1 < 3
        assert 85 < metrics.recalls(places.mean).mean < 116
