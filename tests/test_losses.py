"""The losses against sums written out pair by pair."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.losses import (
    LossWeights,
    contrastive,
    glscl_losses,
    inter_consistency,
    intra_diversity,
)

B, K, D = 5, 3, 8


@pytest.fixture
def queries():
    rng = np.random.default_rng(0)
    both = rng.normal(size=(2, B, K, D))
    return both / np.linalg.norm(both, axis=-1, keepdims=True)


def test_contrastive_is_the_mean_of_both_cross_entropies():
    scores = np.random.default_rng(0).normal(size=(B, B))
    logits = scores * np.exp(1.5)
    rows = [np.log(np.exp(logits[i]).sum()) - logits[i, i] for i in range(B)]
    columns = [np.log(np.exp(logits[:, i]).sum()) - logits[i, i] for i in range(B)]
    expected = (np.mean(rows) + np.mean(columns)) / 2
    assert contrastive(jnp.array(scores), jnp.array(1.5)) == pytest.approx(expected, rel=1e-5)


def test_intra_diversity_pair_by_pair(queries):
    video = queries[1]
    gram = sum(video[b] @ video[b].T for b in range(B)) / B
    total = 0.0
    for i, j in itertools.permutations(range(K), 2):
        total += max(0, 0.1 + gram[i, j] - gram[i, i]) + max(0, 0.1 + gram[i, j] - gram[j, j])
    # Random queries are far apart: pull them together so that the hinge is at work.
    close = video + 2
    close /= np.linalg.norm(close, axis=-1, keepdims=True)
    weights = LossWeights(alpha=1.0)
    assert intra_diversity(video, weights) == pytest.approx(total / (K * (K - 1)), abs=1e-6)
    assert intra_diversity(close, weights) > 0.01
    assert intra_diversity(video[:, :1], weights) == 0


@pytest.mark.parametrize(("per_pair", "divisor"), [(False, K), (True, B)])
def test_inter_consistency_pair_by_pair(queries, per_pair, divisor):
    text, video = queries
    centre = ((video.mean(0) - text.mean(0)) ** 2).mean()
    pull = 0.0
    for k in range(K):
        similarity = sum(video[b, k] @ text[b, k] for b in range(B)) / divisor
        pull += (similarity - 0.75) ** 2
    weights = LossWeights(beta=0.3, per_pair=per_pair)
    expected = centre + 0.3 * pull
    assert inter_consistency(text, video, weights) == pytest.approx(expected, rel=1e-5)


def test_total_is_the_plain_sum(queries):
    text, video = queries
    found = glscl_losses(jnp.eye(B), jnp.array(0.0), text, video, LossWeights())
    parts = found.contrastive + found.diversity + found.consistency
    assert found.total == pytest.approx(float(parts))
