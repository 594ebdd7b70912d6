"""Groups of parameters: which layers train and how fast, by patterns on their names."""

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
def test_a_run_goes_on_with_the_groups_that_it_had(tmp_path, changed, told):
    params = {"lim": {"queries": np.zeros((2, 2))}, **STACK}
    config = OptimConfig(frozen=(TWO_LAYERS,), clip_group="^clip/")
    workdir = Workdir(tmp_path / "run")
    for _ in range(2):
        # Rates and decay are no part of it.
        config = dataclasses.replace(config, learning_rate=config.learning_rate / 2)
        workdir.begin(
            ConfigDict({"num_steps": 1, "model": {}}), SHORT, groups=trained_layers(params, config)
        )
    other = trained_layers(params, dataclasses.replace(config, **changed))
    with pytest.raises(UserError, match=re.escape(told)):
        workdir.begin(ConfigDict({"num_steps": 2, "model": {}}), SHORT, groups=other)
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
