"""The losses against sums written out pair by pair."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.models.heads.concept_losses import (
    LossWeights,
    inter_consistency,
    intra_diversity,
)
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.profiling import collectives, hlo
from glscl_jax.runtime import sharding
from glscl_jax.training.blocked_loss import block_count, blocked_contrastive
from glscl_jax.training.losses import Losses, contrastive

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
    concepts, weights = queries, LossWeights()
    text, video = features(B)
    text, video = text.replace(queries=concepts[0]), video.replace(queries=concepts[1])
    own = GLSCLHead().losses(text, video, weights)
    assert own == {
        "diversity": intra_diversity(concepts[1], weights),
        "consistency": inter_consistency(*concepts, weights),
    }
    found = Losses.of(contrastive(jnp.eye(B), jnp.array(0.0)), own)
    assert found.total == pytest.approx(float(found.contrastive) + float(sum(own.values())))
    assert Losses.of(jnp.array(2.0), {}).total == 2.0


SCORE = GLSCLHead(temperature=3.0, lim_weight=0.5).score


def features(count, frames=4):
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=(count, *shape)), jnp.float32)

    mask = np.ones((count, frames), np.int32)
    mask[::3, -1] = 0
    text = TextFeatures(normal(D), normal(K, D))
    return text, VideoFeatures(normal(frames, D), jnp.asarray(mask), normal(K, D))


def plain(text, frames, queries, mask, logit_scale):
    return contrastive(SCORE(text, VideoFeatures(frames, mask, queries)), logit_scale)


def blocked(text, frames, queries, mask, logit_scale, blocks, mesh=None):
    video = VideoFeatures(frames, mask, queries)
    return blocked_contrastive(text, video, logit_scale, score=SCORE, blocks=blocks, mesh=mesh)


def slopes(loss):
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 4)))


@pytest.mark.parametrize("blocks", [1, 3, 24])
def test_in_blocks_the_contrastive_loss_and_its_gradient_are_the_same(blocks):
    text, video = features(24)
    arguments = (text, video.frames, video.queries, video.mask, jnp.array(3.0))
    expected, expected_grads = slopes(plain)(*arguments)
    found, grads = slopes(functools.partial(blocked, blocks=blocks))(*arguments)
    assert found == pytest.approx(float(expected), rel=1e-6)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


@pytest.mark.parametrize("axes", [{"data": 4, "fsdp": 2}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_blocks_on_a_mesh(axes):
    mesh = sharding.make_mesh(jax.devices()[:8], axes)
    text, video = features(32)
    alone = (text, video.frames, video.queries, video.mask)
    shared = jax.device_put(alone, sharding.by_batch(mesh))
    expected = slopes(plain)(*alone, jnp.array(3.0))
    found = slopes(functools.partial(blocked, blocks=4, mesh=mesh))(*shared, jnp.array(3.0))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


def test_texts_and_their_gradient_are_sent_once_however_many_blocks():
    axes = {"data": 4, "fsdp": 2}
    mesh = sharding.make_mesh(jax.devices()[:8], axes)
    text, video = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.by_batch(mesh)),
        jax.eval_shape(lambda: features(64)),
    )
    loss = slopes(functools.partial(blocked, blocks=8, mesh=mesh))
    compiled = loss.lower(text, video.frames, video.queries, video.mask, jnp.array(3.0)).compile()
    moved = collectives.collectives(hlo.Module(compiled.as_text()), {**axes, "tensor": 1})
    # In the loop over blocks nothing is sent, forward or backward.
    assert {x.times for x in moved} == {1}
    once = sum(4 * x.size for x in jax.tree.leaves(text)) * 7 / 8
    sent = {kind: sum(x.sent for x in moved if x.kind == kind) for kind in collectives.SENT}
    assert sent["all-gather"] == once
    # The gradient, and what is of one number a text: its sum, its largest and its right score.
    assert once <= sent["reduce-scatter"] + sent["all-reduce"] <= once + 6 * 2 * 4 * 64


def test_in_blocks_no_tensor_of_all_pairs_is_ever_whole():
    count, frames = 2048, 12
    text, video = jax.eval_shape(lambda: features(count, frames))
    arguments = (text, video.frames, video.queries, video.mask, jnp.array(3.0))

    def memory(loss):
        return slopes(loss).lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    scores = 4 * count * count
    whole, in_blocks = memory(plain), memory(functools.partial(blocked, blocks=64))
    print(f"MB: {whole / 1e6:.0f} whole, {in_blocks / 1e6:.0f} in blocks")
    # Both hold about ten such tensors at once.
    assert whole > frames * scores
    assert in_blocks < frames * scores / 4
    assert in_blocks < whole / 32


def test_blocks_divide_the_batch_and_suit_the_devices():
    mesh = sharding.make_mesh(jax.devices()[:8])
    assert block_count(2048, 1024) == 2
    assert block_count(32768, 1024, mesh) == 32
    # 1,500 = 2 * 750; 3 * 8 texts go to 8 devices in blocks of 24 or of 8.
    assert block_count(1500, 1024) == 2
    assert block_count(24, 10, mesh) == 3
    assert block_count(24, 4, mesh) == 3
