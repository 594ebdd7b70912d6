"""Concepts that differ are told from concepts that are one vector."""

import numpy as np
import pytest

from glscl_jax.models.heads.concept_figures import concept_figures
from glscl_jax.models.heads.glscl import GLSCLHead
from tests.builders import features, unit


def slow(queries):
    """Pair by pair, and by the eigenvalues of each item's Gram matrix."""
    cosines, effective = [], []
    for item in np.asarray(queries, np.float64):
        pairs = [(i, j) for i in range(len(item)) for j in range(len(item)) if i != j]
        cosines.append(np.mean([item[i] @ item[j] for i, j in pairs]))
        values = np.linalg.eigvalsh(item @ item.T)
        effective.append(values.sum() ** 2 / np.square(values).sum())
    return np.mean(cosines), np.mean(effective)


def test_figures_are_those_of_each_item_s_pairs(monkeypatch):
    queries = unit(np.random.default_rng(0).normal(size=(7, 4, 8)) + 0.5)
    assert concept_figures(queries) == pytest.approx(slow(queries), rel=1e-5)
    monkeypatch.setattr("glscl_jax.models.heads.concept_figures._BLOCK", 3)
    assert concept_figures(queries) == pytest.approx(slow(queries), rel=1e-5)


def test_orthogonal_ones_are_k_and_equal_ones_are_one():
    apart = np.broadcast_to(np.eye(8, dtype=np.float32)[:5], (3, 5, 8))
    assert concept_figures(apart) == pytest.approx((0.0, 5.0))
    alike = np.broadcast_to(apart[:, :1], (3, 5, 8))
    assert concept_figures(alike) == pytest.approx((1.0, 1.0))


def test_the_head_says_where_they_are_alike():
    head = GLSCLHead(queries=4)
    text, video = features(3, 4, queries=4)
    figures = head.figures(text, video)
    for side, part in (("text", text), ("video", video)):
        cosine, effective = slow(part.queries)
        assert figures[f"lim/concept_cosine/{side}"] == pytest.approx(cosine, abs=1e-5)
        assert figures[f"lim/effective_concepts/{side}"] == pytest.approx(effective, abs=1e-4)
    apart = np.broadcast_to(np.eye(8, dtype=np.float32)[:4], (3, 4, 8))
    far = head.figures(text.replace(queries=apart), video.replace(queries=apart))
    assert head.remarks(far) == []
    alike = np.broadcast_to(apart[:, :1], (3, 4, 8))
    near = head.figures(text.replace(queries=apart), video.replace(queries=alike))
    (told,) = head.remarks(near)
    assert told.startswith("the concepts are alike: of the 4 of an item there are in effect 4.0")
    assert "1.0 (videos)" in told
    one = text.replace(queries=apart[:, :1])
    assert head.figures(one, video.replace(queries=apart[:, :1])) == {}
    assert head.remarks({}) == []
