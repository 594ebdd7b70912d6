"""One update: reproducible, not applied where it is not finite, and without TensorFlow."""

import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.training import objective, steps
from glscl_jax.training.nonfinite import NonFinite
from glscl_jax.training.optim import OptimConfig, make_optimizer
from glscl_jax.trees import part_of
from tests.builders import DROPOUT, train_batch
from tests.conftest import REPO

PATCHES = "^clip/vision/patch_embedding$"
CONFIG = OptimConfig(
    learning_rate=1e-3, coef_lr=1.0, ema=0.75, frozen=(PATCHES, "^clip/text/transformer/blocks/0/")
)


# Without the temporal module, whose blocks are the towers', to compile faster.
MODEL = GLSCL(dataclasses.replace(DROPOUT, temporal="None"))


@functools.cache
def compiled():
    """What makes a fresh state, and the step."""
    config, model = CONFIG, MODEL
    optimizer = make_optimizer(config, 10)
    step = functools.partial(
        steps.train_step,
        model=model,
        optimizer=optimizer,
        optim=config,
        weights=LossWeights(),
        seed=0,
    )
    begin = jax.jit(lambda: steps.init_state(init_params(model, 0), optimizer, config))
    return begin, jax.jit(step)


@functools.cache
def fresh():
    """The state before the first update."""
    return compiled()[0]()


def update(num_steps=2):
    """Losses and the state after some updates."""
    state, (_, step) = fresh(), compiled()
    shown = []
    for _ in range(num_steps):
        state, metrics = step(state, train_batch())
        shown.append(jax.device_get(metrics))
    return shown, jax.device_get(state)


def test_updates_are_counted_reproducible_and_change_the_loss():
    first, state = update()
    _, again = update()
    assert state.step == 2
    assert first[0].losses.total != first[1].losses.total
    for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dropout_depends_on_the_step():
    inputs, state = train_batch(), fresh()
    loss = jax.jit(
        lambda key: (
            objective.batch_losses(
                state.params, inputs, key, model=MODEL, weights=LossWeights()
            ).total
        )
    )
    losses = [loss(key) for key in (None, jax.random.key(0), jax.random.key(1))]
    assert len({float(loss) for loss in losses}) == 3


def test_logit_scale_is_held_to_a_hundred():
    held = steps.hold_logit_scale({"clip": {"logit_scale": np.float32(9.0)}})
    assert np.exp(held["clip"]["logit_scale"]) == pytest.approx(100, rel=1e-6)


def test_a_step_that_is_not_finite_is_counted_and_changes_nothing_else():
    _, good = update()
    _, step = compiled()
    # One number too large for what is computed with it.
    lim = good.params["lim"] | {"queries": np.full_like(good.params["lim"]["queries"], np.inf)}
    bad = good.replace(params=good.params | {"lim": lim})
    after, metrics = step(bad, train_batch())
    assert not np.isfinite(metrics.losses.total)
    assert (after.step, after.nonfinite, metrics.nonfinite) == (3, 1, 1)
    jax.tree.map(np.testing.assert_array_equal, after.params, bad.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, bad.opt_state)
    jax.tree.map(np.testing.assert_array_equal, after.ema, bad.ema)
    assert after.updates == 2
    assert counts(after) == {2}
    # The next one goes on.
    last, metrics = step(good.replace(nonfinite=after.nonfinite), train_batch())
    assert (last.step, last.nonfinite) == (3, 1)
    assert counts(last) == {3}
    assert np.isfinite(metrics.losses.total)
    changed = jax.tree.map(lambda one, other: (one != other).any(), last.params, good.params)
    assert any(jax.tree.leaves(changed))


def test_a_gradient_that_is_not_finite_is_told_though_the_loss_is():
    _, good = update()
    _, step = compiled()
    # So short before they are normalised that what turns them squares to more than float32 has.
    clip = good.params["clip"]
    text = clip["text"] | {"projection": clip["text"]["projection"] * np.float32(1e-19)}
    bad = good.replace(params=good.params | {"clip": clip | {"text": text}})
    after, metrics = step(bad, train_batch())
    assert np.isfinite(metrics.losses.total)
    assert not np.isfinite(metrics.grad_norm)
    assert (after.step, after.nonfinite) == (3, 1)
    jax.tree.map(np.testing.assert_array_equal, after.params, bad.params)
    jax.tree.map(np.testing.assert_array_equal, after.opt_state, bad.opt_state)


def counts(state) -> set[int]:
    """The updates that the optimiser's groups have counted: their place in the schedule."""
    return {int(count) for _, count in optax.tree.get_all_with_path(state.opt_state, "count")}


def test_the_average_follows_and_the_frozen_stay():
    state, (_, step) = fresh(), compiled()
    expected = jax.device_get(state.ema)
    start = jax.device_get(state.params)
    for _ in range(2):
        state, _ = step(state, train_batch())
        now = part_of(jax.device_get(state.params), expected)
        expected = jax.tree.map(lambda mean, param: 0.75 * mean + 0.25 * param, expected, now)
    # The second update is the first that moves anything: the first has rate 0.
    assert (expected["lim"]["queries"] != start["lim"]["queries"]).any()
    for found, mean in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-7)
    assert "patch_embedding" not in state.ema["clip"]["vision"]
    kernel, mean, before = (
        tree["clip"]["text"]["transformer"]["blocks"]["mlp_in"]["kernel"]
        for tree in (state.params, state.ema, start)
    )
    np.testing.assert_array_equal(kernel[0], before[0])
    np.testing.assert_array_equal(mean[0], before[0])
    assert (kernel[1] != before[1]).any()
    assert state.eval_params["lim"]["queries"] is state.ema["lim"]["queries"]


@dataclasses.dataclass(frozen=True)
class Figures:
    nonfinite: int


def test_steps_that_are_not_finite_are_told_and_end_the_run(capsys):
    watch = NonFinite(3, 1, lambda places: [f"clip{place}" for place in places])
    watch.add(5, Figures(1), [0])  # Counted before this start of the run.
    watch.add(6, Figures(2), [4, 7])
    assert capsys.readouterr().out == ""
    watch.add(7, Figures(3), [2])
    assert "step 6: " in (told := capsys.readouterr().out)
    assert "(2 of at most 3); clips clip4, clip7" in told
    with pytest.raises(UserError, match=r"step 7: .* \(3 of at most 3\); clips clip2: .*"):
        watch.look()


def test_training_on_arrays_needs_no_tensorflow():
    script = """
import sys
sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = sys.modules["torch"] = None
import jax
from tests.training.test_steps import compiled, train_batch
begin, step = compiled()
state, losses = jax.eval_shape(lambda: step(begin(), train_batch()))
assert state.step.dtype == "int32"
print("traced without TensorFlow")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "traced without TensorFlow" in done.stdout
