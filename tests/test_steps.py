"""One update on one device and on eight, and without TensorFlow."""

import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest

from glscl_jax import sharding, steps
from glscl_jax.errors import UserError
from glscl_jax.losses import LossWeights
from glscl_jax.models.glscl import GLSCL
from glscl_jax.optim import OptimConfig, make_optimizer
from tests.conftest import REPO
from tests.test_models import TINY, batch

DROPOUT = dataclasses.replace(TINY, lim_dropout=0.1)


def train_batch(size=8):
    inputs = batch(texts=size, videos=size)
    inputs["text_ids"] = inputs.pop("ids")
    return inputs


def update(devices, num_steps=2):
    """Losses and parameters after some updates on that many devices."""
    mesh = sharding.make_mesh(jax.devices()[:devices])
    config = OptimConfig(learning_rate=1e-3, coef_lr=1.0)
    model, optimizer = GLSCL(DROPOUT), make_optimizer(config, 10)
    params = steps.init_params(model, 0)
    state = steps.init_state(params, optimizer, config)
    state = jax.device_put(state, sharding.replicated(mesh))
    step = jax.jit(
        functools.partial(
            steps.train_step,
            model=model,
            optimizer=optimizer,
            optim=config,
            weights=LossWeights(),
            seed=0,
        )
    )
    shown = []
    for _ in range(num_steps):
        state, metrics = step(state, sharding.put_batch(train_batch(), mesh))
        shown.append(jax.device_get(metrics))
    return shown, jax.device_get(state)


def gradients(devices):
    mesh = sharding.make_mesh(jax.devices()[:devices])
    model = GLSCL(DROPOUT)
    params = jax.device_put(steps.init_params(model, 0), sharding.replicated(mesh))

    def loss(params, inputs):
        key = jax.random.key(7)
        return steps.batch_losses(params, inputs, key, model=model, weights=LossWeights()).total

    return jax.device_get(
        jax.jit(jax.value_and_grad(loss))(params, sharding.put_batch(train_batch(), mesh))
    )


def test_eight_devices_compute_what_one_does():
    loss_one, grads_one = gradients(1)
    loss_eight, grads_eight = gradients(8)
    assert loss_eight == pytest.approx(float(loss_one), rel=1e-5)
    for one, eight in zip(jax.tree.leaves(grads_one), jax.tree.leaves(grads_eight), strict=True):
        assert np.linalg.norm(eight - one) <= 1e-5 * max(np.linalg.norm(one), 1e-3)


def test_updates_are_counted_reproducible_and_change_the_loss():
    first, state = update(1)
    _, again = update(1)
    assert state.step == 2
    assert first[0].losses.total != first[1].losses.total
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_depends_on_the_step():
    model, inputs = GLSCL(DROPOUT), train_batch()
    params = steps.init_params(model, 0)
    losses = [
        steps.batch_losses(params, inputs, key, model=model, weights=LossWeights()).total
        for key in (None, jax.random.key(0), jax.random.key(1))
    ]
    assert len({float(loss) for loss in losses}) == 3


def test_logit_scale_is_held_to_a_hundred():
    held = steps.hold_logit_scale({"clip": {"logit_scale": np.float32(9.0)}})
    assert np.exp(held["clip"]["logit_scale"]) == pytest.approx(100, rel=1e-6)


def test_batch_size_must_suit_the_devices():
    mesh = sharding.make_mesh(jax.devices()[:8])
    sharding.check_batch_size(16, mesh)
    with pytest.raises(UserError, match=r"batch_size 12 .* 8 devices: try 16"):
        sharding.check_batch_size(12, mesh)


def test_training_on_arrays_needs_no_tensorflow():
    script = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = sys.modules["torch"] = None
from tests.test_steps import update
losses, state = update(1, num_steps=1)
assert state.step == 1, state.step
print("trained without TensorFlow")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "trained without TensorFlow" in done.stdout
