"""The moving average of parameters: what it holds, and what checkpoints make of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.checkpoints.run_checkpoints import Checkpoints
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.runtime import sharding
from glscl_jax.training import ema, steps
from glscl_jax.training.optim import OptimConfig, make_optimizer
from glscl_jax.trees import part_of

AVERAGED = OptimConfig(ema=0.9, frozen=("^clip/vision/patch_embedding$", "blocks/0/"))
PLAIN = OptimConfig(frozen=AVERAGED.frozen)


def params(seed):
    rng = np.random.default_rng(seed)
    leaf = {"kernel": jnp.asarray(rng.normal(size=(2, 8, 16)), jnp.float32)}
    return {
        "clip": {
            "vision": {"patch_embedding": leaf["kernel"], "transformer": {"blocks": leaf}},
            "logit_scale": jnp.asarray(rng.normal(), jnp.float32),
        },
        "lim": {"queries": jnp.asarray(rng.normal(size=(3, 8)), jnp.float32)},
    }


def state(config, step=7):
    """As after some updates: parameters and their average differ."""
    begun = steps.init_state(params(0), make_optimizer(config, 10), config)
    if begun.ema is None:
        return begun.replace(step=jnp.int32(step))
    trained = part_of(params(1), begun.ema)
    return begun.replace(step=jnp.int32(step), ema=ema.update(begun.ema, trained, config))


def abstract(config, axes):
    shapes = jax.eval_shape(lambda: state(config))
    where = sharding.by_rules(shapes, sharding.make_mesh(jax.devices()[:8], axes))
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes,
        where,
    )


def saved(folder, config):
    checkpoints = Checkpoints(Workdir(folder), 1)
    checkpoints.save(state(config))
    checkpoints.wait()
    return checkpoints


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_it_begins_as_a_copy_and_goes_towards_the_parameters():
    first = ema.init(params(0), AVERAGED)
    assert "patch_embedding" not in first["clip"]["vision"]
    assert_same(first["lim"], params(0)["lim"])
    after = ema.update(first, params(1), AVERAGED)
    old, new = (params(seed)["lim"]["queries"] for seed in (0, 1))
    np.testing.assert_allclose(after["lim"]["queries"], 0.9 * old + 0.1 * new, rtol=1e-5)
    # What does not move has an average that does not either, not by a rounding.
    assert_same(ema.update(first, params(0), AVERAGED), first)
    assert ema.init(params(0), PLAIN) is None


def test_half_precision_is_averaged_in_float32():
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), params(0))
    first = ema.init(half, AVERAGED)
    after = ema.update(first, jax.tree.map(lambda leaf: leaf * 1.01, half), AVERAGED)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}


def test_checkpoints_hold_the_average_as_params_and_give_both_back(tmp_path):
    checkpoints, before = saved(tmp_path, AVERAGED), state(AVERAGED)
    restored = checkpoints.restore(abstract(AVERAGED, {"data": 2, "fsdp": 4}))
    assert_same(restored, before)
    assert jax.tree.structure(restored) == jax.tree.structure(before)
    assert restored.ema["lim"]["queries"].sharding.spec[-1] == "fsdp"
    # What evaluation reads.
    stored = checkpoints._orbax.load_checkpointables(7, {"params": jax.device_get(before.params)})
    assert_same(stored["params"], before.eval_params)
    with np.testing.assert_raises(AssertionError):
        assert_same(stored["params"], before.params)
    # A run that goes on without one has the parameters themselves.
    assert_same(checkpoints.restore(abstract(PLAIN, {"data": 8})).params, before.params)
    checkpoints.close()


def test_an_average_can_begin_at_a_checkpoint_that_has_none(tmp_path):
    checkpoints, before = saved(tmp_path, PLAIN), state(PLAIN)
    assert len(jax.tree.leaves(before)) == len(
        jax.tree.leaves((before.params, before.opt_state, 0, 0))
    )
    restored = checkpoints.restore(abstract(AVERAGED, {"data": 8}))
    checkpoints.close()
    assert_same(restored.replace(ema=None), before)
    assert_same(restored.ema, ema.init(before.params, AVERAGED))


def test_other_frozen_parameters_are_refused_and_the_way_out_named(tmp_path):
    checkpoints = saved(tmp_path, PLAIN)
    with pytest.raises(UserError, match=r"config\.optim\.frozen .* or give the run a --workdir"):
        checkpoints.restore(abstract(OptimConfig(), {"data": 8}))
    checkpoints.close()
