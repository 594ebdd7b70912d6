"""Groups, clips, schedule and decay of the optimiser on parameters small enough to see."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.training import optim
from glscl_jax.training.groups import check_patterns, groups_of, trained_layers
from glscl_jax.training.optim import OptimConfig
from tests.builders import SHORT


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


def towers(seed=0):
    """Parameters with the model's names: two towers of 3 and 2 blocks, and what is on top."""
    rng = np.random.default_rng(seed)

    def leaf(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    def blocks(layers):
        return {"blocks": {"mlp_in": {"kernel": leaf(layers, 2, 3), "bias": leaf(layers, 3)}}}

    vision = {name: leaf(2, 3) for name in ("patch_embedding", "class_embedding", "projection")}
    vision |= {"ln_pre": {"scale": leaf(3)}, "transformer": blocks(3), "ln_post": {"bias": leaf(3)}}
    text = {"token_embedding": leaf(5, 3), "transformer": blocks(2), "projection": leaf(3, 2)}
    return {
        "clip": {"vision": vision, "text": text, "logit_scale": leaf()},
        "temporal": {"transformer": blocks(2)},
        "lim": {"queries": leaf(2, 3), "decoder": {"linear_1": {"kernel": leaf(3, 2, 2)}}},
    }


def unstacked(tree):
    """Every tensor by its name, a layer of a stack by its number."""
    tensors = {}
    for path, leaf in traverse_util.flatten_dict(jax.device_get(tree)).items():
        stack = next((x for x in ("blocks", "decoder") if x in path), None)
        if stack is None:
            tensors["/".join(path)] = leaf.astype(np.float64)
            continue
        place = path.index(stack) + 1
        for layer in range(len(leaf)):
            name = "/".join((*path[:place], str(layer), *path[place:]))
            tensors[name] = leaf[layer].astype(np.float64)
    return tensors


# Written out by hand; the first that a name begins with counts.
HEIGHTS = {
    "clip/vision/transformer/blocks/0/": 3,
    "clip/vision/transformer/blocks/1/": 2,
    "clip/vision/transformer/blocks/2/": 1,
    "clip/vision/projection": 0,
    "clip/vision/ln_post": 0,
    "clip/vision/": 4,
    "clip/text/transformer/blocks/0/": 2,
    "clip/text/transformer/blocks/1/": 1,
    "clip/text/token_embedding": 3,
    "": 0,
}


def plain_loop(params, grads_by_step, config, total):
    """BertAdam as a loop over tensors: the slow oracle."""
    params = unstacked(params)
    trained = [name for name in params if not any(re.search(x, name) for x in config.frozen)]
    first, second = (dict.fromkeys(trained, 0.0) for _ in range(2))
    for step, grads in enumerate(grads_by_step):
        grads = unstacked(grads)
        norm = np.sqrt(sum((grads[name] ** 2).sum() for name in trained))
        factor = float(optim.warmup_cosine(total, config.warmup)(step))
        for name in trained:
            grad = grads[name] * min(1, config.max_global_norm / (norm + 1e-6))
            grad = grad * min(1, config.max_tensor_norm / (np.linalg.norm(grad) + 1e-6))
            first[name] = config.b1 * first[name] + (1 - config.b1) * grad
            second[name] = config.b2 * second[name] + (1 - config.b2) * grad**2
            change = first[name] / (np.sqrt(second[name]) + config.eps)
            if not name.endswith("bias"):
                change = change + config.weight_decay * params[name]
            height = next(x for start, x in HEIGHTS.items() if name.startswith(start))
            rate = config.learning_rate * config.layer_decay**height
            rate *= config.coef_lr if name.startswith("clip/") else 1
            params[name] = params[name] - rate * factor * change
    return params, trained


@pytest.mark.parametrize(
    ("frozen", "layer_decay"),
    [
        ((), 0.6),
        ((r"^clip/vision/(.*_embedding$|ln_pre/|transformer/blocks/[0-1]/)",), 1.0),
        # Layers that are no neighbours, a bias alone, and a whole tower.
        ((r"decoder/1/", r"^clip/vision/.*/1/.*bias$", "^clip/text/", "logit"), 0.6),
    ],
)
def test_frozen_layers_and_rates_by_layer_are_those_of_a_loop_over_tensors(frozen, layer_decay):
    config = OptimConfig(
        learning_rate=1e-2, coef_lr=0.5, layer_decay=layer_decay, frozen=frozen, max_tensor_norm=0.3
    )
    params, grads = towers(), [towers(seed) for seed in (1, 2, 3, 4)]
    optimizer = optim.make_optimizer(config, total_steps=10)

    @jax.jit
    def run(params, grads):
        def step(carry, grads):
            params, state = carry
            updates, state = optimizer.update(grads, state, params)
            norm = optax.global_norm(optim.trainable(grads, config))
            return (optax.apply_updates(params, updates), state), norm

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
        return jax.lax.scan(step, (params, optimizer.init(params)), stacked)

    (found, state), norms = run(params, grads)
    expected, trained = plain_loop(params, grads, config, 10)
    for name, value in unstacked(found).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
        if name not in trained:
            np.testing.assert_array_equal(value, unstacked(params)[name])
    # Two moments of what trains and two counters: of the frozen layers there is nothing.
    size = sum(unstacked(params)[name].size for name in trained)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2 * size + 2
    last = unstacked(grads[-1])
    norm = np.sqrt(sum((last[name] ** 2).sum() for name in trained))
    assert norms[-1] == pytest.approx(norm, rel=1e-5)


STACK = {"clip": {"text": {"transformer": {"blocks": {"kernel": np.zeros((4, 2))}}}}}
TWO_LAYERS = "^clip/text/transformer/blocks/[01]/"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        # The moments have equal shapes.
        ({"frozen": ("blocks/[23]/",)}, "blocks/kernel: clip, layers 2 3, now clip, layers 0 1)"),
        ({"frozen": ()}, "blocks/kernel: clip, layers 2 3, now clip)"),
        ({"clip_group": "^lim/"}, "blocks/kernel: clip, layers 2 3, now new, layers 2 3; and 1"),
    ],
)
def test_a_run_goes_on_with_the_groups_that_it_had(params, tmp_path, changed, told):
    params = {"lim": params["lim"], **STACK}
    config = OptimConfig(frozen=(TWO_LAYERS,), clip_group="^clip/")
    workdir = Workdir(tmp_path / "run")
    for _ in range(2):
        # Rates and decay are no part of it.
        config = dataclasses.replace(config, learning_rate=config.learning_rate / 2)
        workdir.begin(ConfigDict({"num_steps": 1}), SHORT, groups=trained_layers(params, config))
    other = trained_layers(params, dataclasses.replace(config, **changed))
    with pytest.raises(UserError, match=re.escape(told)):
        workdir.begin(ConfigDict({"num_steps": 2}), SHORT, groups=other)
    assert workdir.config().num_steps == 1


def test_layers_have_the_same_names_written_out_or_not():
    def names(scan):
        model = GLSCL(dataclasses.replace(SHORT, scan=scan))
        params = jax.eval_shape(lambda: init_params(model, 0))
        groups = groups_of(params, OptimConfig(frozen=("^clip/text/transformer/blocks/0/",)))
        return {name: (group.label, group.rows) for name, group in groups.items()}

    assert names(True) == names(False)
    assert names(True)["clip/text/transformer/blocks/mlp_in/kernel"] == ("clip", slice(1, 2))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"frozen": ("^clip/vision/", "^clip/visual/")}, "frozen: '.clip/visual/' matches no"),
        # The layer's number is part of its name.
        ({"frozen": ("blocks/mlp_in",)}, "frozen: .* have names like clip/.*/blocks/0/mlp_in/"),
        ({"frozen": ("",)}, "frozen matches every parameter"),
        ({"clip_group": "blocks/0/", "frozen": ()}, "clip_group: .* all layers of a stack or none"),
    ],
)
def test_patterns_that_do_not_suit_the_parameters_are_refused(settings, told):
    with pytest.raises(UserError, match=f"config.optim.{told}"):
        check_patterns(towers(), OptimConfig(**settings))


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
