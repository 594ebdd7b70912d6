"""Attention by one kernel against attention written out: what is seen, values, gradients."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn.initializers import zeros

from configs import demo
from glscl_jax.checkpoints.workdir import Workdir
from glscl_jax.errors import UserError
from glscl_jax.models.encoders import attention
from glscl_jax.models.encoders.attention import ALL, AttentionMask
from glscl_jax.models.encoders.transformer import Attention
from glscl_jax.models.glscl import GLSCL, init_params, model_config
from glscl_jax.training import recipe
from tests.builders import TINY, batch, fresh


def plain(query, key, value, seen):
    """The formula, without any of the module's own code."""
    queries, keys = query.shape[1], key.shape[1]
    visible = np.ones((query.shape[0], 1, queries, keys), bool)
    if seen.mask is not None:
        visible &= np.asarray(seen.mask)[:, None, None, :] > 0
    if seen.causal:
        visible &= np.arange(keys)[None, :] <= np.arange(queries)[:, None]
    logits = jnp.einsum("BQHD,BMHD->BHQM", query, key) / np.sqrt(query.shape[-1])
    weights = jax.nn.softmax(jnp.where(visible, logits, -jnp.inf), axis=-1)
    return jnp.einsum("BHQM,BMHD->BQHD", weights, value)


MASK = np.array([[1] * 8, [1, 1, 1] + [0] * 5], np.int32)
SEEN = [ALL, AttentionMask(MASK), AttentionMask(causal=True), AttentionMask(MASK, causal=True)]


@pytest.mark.parametrize("seen", SEEN, ids=["all", "padded", "causal", "padded causal"])
def test_fused_is_the_formula(seen):
    key = jax.random.key(0)
    arrays = [jax.random.normal(k, (2, 8, 2, 16)) for k in jax.random.split(key, 4)]
    *inputs, weight = arrays

    def outcome(attend):
        def loss(*inputs):
            mixed = attend(*inputs, seen)
            return (mixed * weight).sum(), mixed

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5),
        outcome(attention.fused),
        outcome(plain),
    )


def test_tokens_filled_up_are_not_seen():
    tokens = jnp.ones((2, 5, 3))
    filled, seen = attention.pad_tokens(tokens)
    assert filled.shape == (2, attention.FUSED_MULTIPLE, 3)
    np.testing.assert_array_equal(seen.lengths, [5, 5])
    whole, seen = attention.pad_tokens(jnp.ones((2, 16, 3)))
    assert whole.shape == (2, 16, 3)
    assert seen.lengths is None


def test_towers_and_temporal_module_are_the_same_either_way():
    inputs, params = batch(), fresh(TINY)
    inputs["frame_mask"][1, 2:] = 0
    ids, text_mask, *video = inputs.values()

    @functools.partial(jax.jit, static_argnums=0)
    def outcome(kind, params):
        model = GLSCL(dataclasses.replace(TINY, attention=kind))

        def loss(params):
            tokens = model.apply({"params": params}, ids, text_mask, method=_tokens)
            frames = model.apply({"params": params}, *video, method="encode_frames")
            shares = [x * jnp.cos(jnp.arange(x.size).reshape(x.shape)) for x in (tokens, frames)]
            return sum(x.sum() for x in shares), (tokens, frames)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, expected), expected_grads = outcome("plain", params)
    (_, found), grads = outcome("fused", params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5), found, expected)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4 * (1 + np.abs(y).max())),
        grads,
        expected_grads,
    )


def test_the_kernel_is_handed_what_products_made():
    """Three cut out of one were 10 % of a B/16's bytes on a GPU, forward and backward."""
    x = jnp.ones((2, 8, 16))

    def activations(fused):
        """The shapes of all arrays of [B,L,...] on the way to the gradient."""
        module = Attention(2, jnp.dtype("float32"), zeros, zeros, fused=fused)
        params = module.init(jax.random.key(0), x)
        whole = jax.make_jaxpr(jax.grad(lambda *given: module.apply(*given).sum(), (0, 1)))
        equations = whole(params, x).jaxpr.eqns
        shapes = {value.aval.shape for equation in equations for value in equation.outvars}
        return {shape for shape in shapes if shape[:2] == x.shape[:2]}

    three = (*x.shape[:2], 3 * x.shape[2])
    assert three not in activations(fused=True)
    assert three in activations(fused=False)


def _tokens(model, ids, mask):
    return model.clip.text(ids, mask)


def test_auto_is_fused_where_that_was_faster(monkeypatch):
    def auto(dtype, tokens):
        return attention.is_fused("auto", jnp.dtype(dtype), tokens)

    assert not auto("bfloat16", 197)  # This is no GPU.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert auto("bfloat16", 197)
    assert not auto("bfloat16", 50)
    assert not auto("float32", 197)
    assert not attention.is_fused("plain", jnp.dtype("bfloat16"), 197)
    assert attention.is_fused("fused", jnp.dtype("float32"), 50)


def test_both_towers_and_the_temporal_module_ask_a_gpu_for_the_kernel(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    calls = []
    monkeypatch.setattr(
        attention.nn, "dot_product_attention", lambda *arrays, **how: calls.append(how) or arrays[0]
    )
    config = dataclasses.replace(TINY, dtype="bfloat16", attention="fused")
    jax.eval_shape(functools.partial(init_params, GLSCL(config), 0))
    assert {how["implementation"] for how in calls} == {"cudnn"}
    assert {how["is_causal"] for how in calls} == {True, False}


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="attention is 'flash': give one of auto, plain, fused"):
        model_config({"clip": {"variant": "tiny"}, "attention": "flash"})


def test_a_run_that_began_before_there_was_a_choice_goes_on(tmp_path):
    config, workdir = demo.get_config("tiny"), Workdir(tmp_path)
    model = recipe.read(config).model
    workdir.begin(config, model)
    path = tmp_path / "model.json"
    old = json.loads(path.read_text())
    del old["attention"]
    path.write_text(json.dumps(old))
    workdir.begin(config, model)
    with pytest.raises(UserError, match="another model"):
        workdir.begin(config, dataclasses.replace(model, attention="fused"))
