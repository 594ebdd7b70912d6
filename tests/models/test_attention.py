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
from glscl_jax import target
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


NAMES = ["all", "padded", "causal", "padded causal"]


@pytest.mark.parametrize("seen", SEEN, ids=NAMES)
@pytest.mark.parametrize("attend", [attention.fused, attention.filled])
def test_fused_and_filled_are_the_formula(attend, seen):
    check(attend, seen, length=8)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_filled_up_is_not_seen(causal, masked):
    seen = AttentionMask(MASK[:, :5] if masked else None, causal)
    check(attention.filled, seen, length=5)
    check(jax.vmap(attention.filled, (0, 0, 0, None)), AttentionMask(causal=causal), 5, lead=(3,))


def test_filled_caps_logits_as_plain_does():
    query, key, value, _ = arrays((2, 5, 2, 16))
    np.testing.assert_allclose(
        attention.filled(30 * query, key, value, ALL, cap=5.0),
        attention.plain(30 * query, key, value, ALL, cap=5.0),
        atol=2e-5,
    )


def arrays(shape):
    return [jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)]


def check(attend, seen, length, lead=()):
    """Values and gradients of [*lead,2,L,2,16] against the formula's."""
    *inputs, weight = arrays((*lead, 2, length, 2, 16))
    formula = jax.vmap(plain, (0, 0, 0, None)) if lead else plain

    def outcome(attend):
        def loss(*inputs):
            mixed = attend(*inputs, seen)
            return (mixed * weight).sum(), mixed

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(*inputs)

    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=2e-5),
        outcome(attend),
        outcome(formula),
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
        """The shapes of all arrays [B,L,...] on the way to the gradient."""
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


def test_a_gpu_s_half_precision_alone_is_filled():
    assert not attention.is_filled(jnp.dtype("bfloat16"))
    with target.compiling_for("gpu"):
        assert attention.is_filled(jnp.dtype("bfloat16"))
        assert not attention.is_filled(jnp.dtype("float32"))


def test_towers_as_a_gpu_has_them_are_the_same_to_half_precision():
    """Attention filled up and LayerNorm in two steps, in both towers and the temporal module."""
    inputs, params = batch(), fresh(TINY)
    ids, text_mask, *video = inputs.values()
    config = dataclasses.replace(TINY, dtype="bfloat16", attention="plain")

    def features():
        apply = functools.partial(GLSCL(config).apply, {"params": params})
        frames = apply(*video, method="encode_frames")
        return apply(ids, text_mask, method=_tokens)[0], frames

    with target.compiling_for("gpu"):
        assert "optimization_barrier" in str(jax.make_jaxpr(features)())
        found = jax.jit(lambda: features())()
    expected = jax.jit(lambda: features())()
    for x, y in zip(found, expected, strict=True):
        x, y = (np.asarray(z, np.float32) for z in (x, y))
        assert np.abs(x - y).max() <= 0.05 * np.abs(y).max()
