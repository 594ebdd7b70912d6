"""Groups, clips, schedule and decay of the optimiser on parameters small enough to see."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glscl_jax.training import optim
from glscl_jax.training.optim import OptimConfig


def test_schedule_is_the_reference_s():
    schedule = optim.warmup_cosine(total_steps=100, warmup=0.1)
    assert schedule(0) == 0
    assert schedule(5) == pytest.approx(0.5)
    # The reference steps down from 1 to 0.976 where warm-up ends, and ends near 0.
    assert schedule(10) == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.1)))
    assert schedule(99) == pytest.approx(0.5 * (1 + np.cos(np.pi * 0.99)), abs=1e-6)


def test_each_layer_of_a_stack_is_clipped_apart():
    grads = {"temporal": {"blocks": {"kernel": jnp.array([[3.0, 4.0], [0.3, 0.4]])}}}
    clipped, _ = optim.clip_tensor_norms(1.0).update(grads, optax.EmptyState())
    found = clipped["temporal"]["blocks"]["kernel"]
    np.testing.assert_allclose(found, [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
    # The same numbers outside a stack are one tensor.
    clipped, _ = optim.clip_tensor_norms(1.0).update({"kernel": found * 5}, optax.EmptyState())
    assert optax.global_norm(clipped) == pytest.approx(1, rel=1e-5)


@pytest.fixture
def params():
    leaf = jnp.full((2, 2), 0.5)
    return {
        "clip": {
            "vision": {"patch_embedding": leaf},
            "text": {"projection": leaf, "ln_final": {"bias": leaf}},
        },
        "lim": {"queries": leaf},
    }


def updates_of(config, params, steps=3):
    """What each parameter has moved by after some steps with the same gradient everywhere."""
    optimizer = optim.make_optimizer(config, total_steps=10)
    state, now = optimizer.init(params), params
    grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.1), params)
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, now)
        now = optax.apply_updates(now, updates)
    return jax.tree.map(lambda after, before: float(abs(after - before).max()), now, params), state


def test_groups_have_their_own_rates_and_the_frozen_stay(params):
    config = OptimConfig(learning_rate=1e-2, coef_lr=0.1, weight_decay=0.0)
    moved, state = updates_of(config, params)
    assert moved["clip"]["vision"]["patch_embedding"] == 0
    assert moved["lim"]["queries"] == pytest.approx(
        10 * moved["clip"]["text"]["projection"], rel=1e-3
    )
    # Two moments for each of the three trained parameters, none for the frozen one.
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (2, 2)]
    assert len(moments) == 6


def test_only_biases_do_not_decay(params):
    config = OptimConfig(learning_rate=1e-2, coef_lr=1.0, weight_decay=10.0, frozen=())
    moved, _ = updates_of(config, params)
    plain, _ = updates_of(
        OptimConfig(learning_rate=1e-2, coef_lr=1.0, weight_decay=0.0, frozen=()), params
    )
    assert moved["clip"]["text"]["ln_final"]["bias"] == pytest.approx(
        plain["clip"]["text"]["ln_final"]["bias"], rel=1e-6
    )
    assert moved["clip"]["text"]["projection"] > 1.5 * plain["clip"]["text"]["projection"]


def test_float16_rounding_is_the_hardware_s():
    rng = np.random.default_rng(0)
    # Normal numbers, subnormals, and what underflows to zero.
    wide = np.concatenate([rng.normal(size=1000) * scale for scale in (1, 1e-4, 1e-6, 1e-8)])
    wide = wide.astype(np.float32)
    found = jax.jit(optim._rounding(jnp.float16))(wide)
    np.testing.assert_array_equal(found, wide.astype(np.float16).astype(np.float32))


# Squares of the first two vanish in float16, those of the next are infinite; the norm of the last
# is, in PyTorch too.
@pytest.mark.parametrize("size", [1e-6, 1e-4, 1.0, 300.0, 2000.0, 40000.0])
@pytest.mark.parametrize("beside", [None, 1.0, 1e3])
def test_float16_gradients_are_clipped_as_pytorch_does(size, beside):
    reason = "PyTorch is missing: see requirements-torch.txt"
    torch = pytest.importorskip("torch", reason=reason)
    rng = np.random.default_rng(0)
    grads = {"half": (size * rng.uniform(-1, 1, (20, 50))).astype(np.float16)}
    if beside:
        grads["single"] = (beside * rng.normal(size=(7,))).astype(np.float32)
    parameters = [torch.nn.Parameter(torch.zeros_like(torch.tensor(x))) for x in grads.values()]
    for parameter, grad in zip(parameters, grads.values(), strict=True):
        parameter.grad = torch.tensor(grad)

    def assert_same(found):
        for ours, theirs in zip(found.values(), parameters, strict=True):
            assert ours.dtype == theirs.grad.numpy().dtype
            # Of float16 a unit in the last place: the order of a sum is each machine's own.
            tolerance = {"rtol": 2**-10, "atol": 2**-24} if ours.dtype == np.float16 else {}
            np.testing.assert_allclose(ours, theirs.grad.numpy(), **{"rtol": 1e-5} | tolerance)

    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    clips = [optim.clip_global_norm(1.0), optim.clip_tensor_norms(1.0)]
    clipped, _ = jax.jit(clips[0].update)(grads, optax.EmptyState(), None)
    assert_same(clipped)
    for parameter, grad in zip(parameters, clipped.values(), strict=True):
        parameter.grad = torch.tensor(np.asarray(grad))
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
    clipped, _ = jax.jit(clips[1].update)(clipped, optax.EmptyState(), None)
    assert_same(clipped)


def test_the_norm_of_float16_gradients_is_summed_in_float32():
    for size in (1e-5, 300.0):
        grads = {"half": jnp.full((9,), size, jnp.float16), "single": jnp.full((16,), size)}
        half = float(jnp.float16(size))
        expected = np.sqrt(9 * half**2 + 16 * size**2)
        assert optim.global_norm(grads) == pytest.approx(expected, rel=1e-5)


def test_float16_reference_keeps_clip_s_weights_in_half(params):
    config = OptimConfig(clip_numerics="float16_reference")
    cast = optim.cast_params(params, config)
    assert cast["clip"]["text"]["projection"].dtype == jnp.float16
    assert cast["clip"]["text"]["ln_final"]["bias"].dtype == jnp.float32
    assert cast["lim"]["queries"].dtype == jnp.float32
    state = optim.make_optimizer(config, 10).init(cast)
    assert jnp.dtype("float16") in {leaf.dtype for leaf in jax.tree.leaves(state)}


def test_unknown_numerics_are_refused():
    with pytest.raises(ValueError, match="float8"):
        OptimConfig(clip_numerics="float8")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"ema": 1.0}, "ema is 1.0"),
        ({"ema": -0.1}, "ema is -0.1"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5"),
        ({"frozen": ("^clip/(",)}, "frozen '.*' is no regular expression"),
        ({"no_decay": "*"}, "no_decay '.*' is no regular expression"),
        ({"frozen": "^clip/"}, "give a tuple of patterns"),
    ],
)
def test_a_bad_value_is_named(settings, told):
    with pytest.raises(ValueError, match=told):
        OptimConfig(**settings)
