"""Starting from a checkpoint: what is taken, what is copied, what is fresh, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.errors import UserError
from glscl_jax.models.heads.glscl import GLSCLHead
from glscl_jax.training.warm_start import start_params
from tests.builders import SMALL, SMALL_CLIP, params_of

# Three layers in the text tower, of which two are copied.
DEEPER = dataclasses.replace(
    SMALL,
    clip=dataclasses.replace(SMALL_CLIP, text_layers=3, context_length=6, vocab_size=9),
    temporal_layers=2,
)


@pytest.fixture(scope="module")
def fresh():
    return params_of(DEEPER, 0)


@pytest.fixture(scope="module")
def trained():
    return params_of(DEEPER, 1)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_whole_checkpoint_is_taken_as_it_is(fresh, trained):
    assert_same(start_params(fresh, trained, DEEPER), trained)


def test_from_clip_alone(fresh, trained):
    begun = start_params(fresh, {"clip": trained["clip"]}, DEEPER)
    assert_same(begun["clip"], trained["clip"])
    assert_same(begun["lim"], fresh["lim"])
    text, temporal = trained["clip"]["text"], begun["temporal"]
    assert_same(temporal["positional_embedding"], text["positional_embedding"])
    ours, theirs = (x["transformer"]["blocks"] for x in (temporal, text))
    kernel = ours["attention"]["qkv_kernel"]
    assert kernel.shape[0] == 2
    # Block by block the text tower's first two, not its last.
    np.testing.assert_array_equal(kernel, theirs["attention"]["qkv_kernel"][:2])
    assert_same(ours, jax.tree.map(lambda x: x[:2], theirs))
    assert jax.tree.structure(begun) == jax.tree.structure(fresh)


def test_a_temporal_module_that_is_there_is_kept(fresh, trained):
    loaded = {"clip": trained["clip"], "temporal": trained["temporal"]}
    begun = start_params(fresh, loaded, DEEPER)
    assert_same(begun["temporal"], trained["temporal"])
    assert_same(begun["lim"], fresh["lim"])


@pytest.mark.parametrize("kind", ["seqLSTM", "None"])
def test_other_temporal_modules_start_fresh(trained, kind):
    config = dataclasses.replace(DEEPER, temporal=kind)
    fresh = params_of(config, 0)
    begun = start_params(fresh, {"clip": trained["clip"]}, config)
    assert_same(begun, {**fresh, "clip": trained["clip"]})


def test_dtypes_are_those_of_the_fresh_parameters(fresh, trained):
    stored = jax.tree.map(lambda x: np.asarray(x.astype(jnp.bfloat16)), {"clip": trained["clip"]})
    begun = jax.jit(lambda fresh, stored: start_params(fresh, stored, DEEPER))(fresh, stored)
    assert {leaf.dtype for leaf in jax.tree.leaves(begun)} == {jnp.dtype("float32")}
    assert_same(begun["clip"], jax.tree.map(lambda x: x.astype(np.float32), stored["clip"]))


def test_everything_that_does_not_fit_is_named(fresh, trained):
    clip = jax.tree.map(lambda x: x, trained["clip"])
    del clip["vision"]["projection"]
    clip["logit_bias"] = jnp.zeros(())
    clip["text"]["projection"] = jnp.zeros((64, 32))
    with pytest.raises(UserError) as caught:
        start_params(fresh, {"clip": clip, "head": {"w": jnp.zeros(2)}}, DEEPER)
    first, *rest = str(caught.value).splitlines()
    assert "in 4 places" in first
    assert [line.strip() for line in rest] == [
        "missing: clip/vision/projection",
        "unexpected: clip/logit_bias",
        "unexpected: head/w",
        "misshaped: clip/text/projection is [64, 32], the model's is [64, 64]",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temporal_layers": 4}, "misshaped: temporal/"),
        (
            {"head": GLSCLHead(queries=5, lim_layers=1, lim_feed_forward=8)},
            "misshaped: lim/queries is [2, 64], the model's is [5, 64]",
        ),
        ({"temporal": "None"}, "unexpected: temporal/positional_embedding"),
    ],
)
def test_another_model_is_refused(trained, changes, message):
    config = dataclasses.replace(DEEPER, **changes)
    with pytest.raises(UserError) as caught:
        start_params(params_of(config, 0), trained, config)
    assert message in str(caught.value)


def test_more_temporal_layers_than_the_text_tower_has(trained):
    config = dataclasses.replace(DEEPER, temporal_layers=4)
    with pytest.raises(UserError, match=r"is \[3, .*the model's is \[4, "):
        start_params(params_of(config, 0), {"clip": trained["clip"]}, config)


def test_a_checkpoint_without_clip(fresh):
    with pytest.raises(UserError, match="no CLIP"):
        start_params(fresh, {"lim": fresh["lim"]}, DEEPER)
