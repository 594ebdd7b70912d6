"""SigLIP's loss against its definition, in blocks and on meshes, and how a run takes it."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.common import base
from glscl_jax.models.glscl import GLSCL
from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.runtime import sharding
from glscl_jax.training import inherited, objective
from glscl_jax.training.blocked_loss import blocked_sigmoid
from glscl_jax.training.losses import sigmoid_contrastive
from glscl_jax.training.warm_start import start_params
from tests.builders import SHORT, random_params

HEAD = GLSCLHead(temperature=3.0, lim_weight=0.5)
SCALE, BIAS = jnp.array(1.5), jnp.array(-3.0)


def test_every_pair_is_asked_by_itself():
    scores = np.random.default_rng(0).normal(size=(5, 5))
    scale, bias = 2.5, -1.5
    expected = 0.0
    for text in range(5):
        for video in range(5):
            right = 1 if text == video else -1
            expected -= np.log(1 / (1 + np.exp(-right * (scale * scores[text, video] + bias))))
    found = sigmoid_contrastive(jnp.asarray(scores), jnp.log(scale), jnp.array(bias))
    assert found == pytest.approx(expected / 5, rel=1e-6)


def test_far_from_right_it_is_finite_and_so_is_its_slope():
    def loss(scores):
        return sigmoid_contrastive(scores, jnp.array(0.0), jnp.array(0.0))

    found, slope = jax.value_and_grad(loss)(jnp.full((2, 2), 1e4))
    # Two wrong pairs of logit 10,000, for two texts.
    assert found == pytest.approx(1e4)
    np.testing.assert_allclose(slope, [[0, 0.5], [0.5, 0]], atol=1e-6)


def features(count):
    rng = np.random.default_rng(0)

    def unit(*shape):
        x = rng.normal(size=(count, *shape))
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)

    mask = np.ones((count, 3), np.int32)
    mask[::3, -1] = 0
    return TextFeatures(unit(8), unit(2, 8)), VideoFeatures(
        unit(3, 8), jnp.asarray(mask), unit(2, 8)
    )


def whole(text, frames, queries, scale, bias, mask):
    return sigmoid_contrastive(HEAD.score(text, VideoFeatures(frames, mask, queries)), scale, bias)


def blocked(text, frames, queries, scale, bias, mask, blocks, mesh=None):
    video = VideoFeatures(frames, mask, queries)
    return blocked_sigmoid(text, video, scale, bias, score=HEAD.score, blocks=blocks, mesh=mesh)


def slopes(loss, *arguments):
    return jax.tree.leaves(jax.jit(jax.value_and_grad(loss, argnums=range(5)))(*arguments))


@pytest.mark.parametrize(
    ("axes", "blocks"),
    [
        (None, 1),
        (None, 4),
        ({"data": 4, "fsdp": 2}, 4),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 2),
    ],
)
def test_in_blocks_and_on_a_mesh_it_is_the_same(axes, blocks):
    text, video = features(32)
    arguments = (text, video.frames, video.queries, SCALE, BIAS, video.mask)
    expected = slopes(whole, *arguments)
    mesh = axes and sharding.make_mesh(jax.devices()[:8], axes)
    if mesh:
        where = sharding.by_batch(mesh)
        laid = jax.device_put((text, video), where)
        arguments = (laid[0], laid[1].frames, laid[1].queries, SCALE, BIAS, laid[1].mask)
    found = slopes(functools.partial(blocked, blocks=blocks, mesh=mesh), *arguments)
    for one, other in zip(found, expected, strict=True):
        assert np.linalg.norm(one - other) <= 1e-5 * np.linalg.norm(other)


# Without the module over time, to compile faster.
PLAIN = dataclasses.replace(SHORT, head=dataclasses.replace(SHORT.head, lim_layers=1))
BIASED = dataclasses.replace(PLAIN, clip=dataclasses.replace(PLAIN.clip, logit_bias=True))


def test_the_model_s_scale_and_bias_are_the_loss_s():
    text, video = features(4)
    params = {"clip": {"logit_scale": SCALE, "logit_bias": BIAS}}
    pairs, model = objective.PairFeatures(text, video), GLSCL(BIASED)
    options = {"model": model, "weights": BIASED.head.loss_weights(), "joint": "sigmoid"}
    expected = sigmoid_contrastive(BIASED.head.score(text, video), SCALE, BIAS)
    for block in (2, 4):  # in blocks, and whole
        losses = objective.feature_losses(params, pairs, loss_block=block, **options)
        assert losses.contrastive == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.slow
def test_a_run_learns_by_it(shapes, forks, tmp_path):
    printed = forks(
        "glscl_jax.train",
        "--config=configs/demo.py:tiny",
        f"--workdir={tmp_path}",
        f"--config.data.dir={shapes / 'data'}",
        "--config.contrastive=sigmoid",
        "--config.num_steps=40",
        "--config.log_every=1",
    ).stdout
    first, *_, last = re.findall(r"\(contrastive ([\d.e+-]+),", printed)
    # All pairs are taken for wrong ones at first: 10 for each text's right one.
    assert float(first) == pytest.approx(10, abs=3)
    assert float(last) < 0.6 * float(first)


def test_a_clip_without_a_bias_begins_with_a_fresh_one():
    fresh, loaded = random_params(BIASED, 0), random_params(PLAIN, 1)
    begun = start_params(fresh, {"clip": loaded["clip"]}, BIASED)
    assert begun["clip"]["logit_bias"] == fresh["clip"]["logit_bias"]
    assert begun["clip"]["logit_scale"] == loaded["clip"]["logit_scale"]


def test_the_config_s_word_gives_the_model_its_bias():
    config = base()
    chosen = inherited.Chosen.of(config, {})
    assert not inherited.resolve(config, None, chosen).model.clip.logit_bias
    config.contrastive = "sigmoid"
    assert inherited.resolve(config, None, chosen).model.clip.logit_bias
