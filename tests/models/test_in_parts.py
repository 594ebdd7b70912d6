"""Layers over a few examples at a time, as a TPU takes them, against layers over all at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax import target
from glscl_jax.models.encoders import in_parts
from glscl_jax.models.encoders.attention import AttentionMask
from glscl_jax.models.encoders.clip import VisionTower
from glscl_jax.runtime import sharding
from tests.builders import TINY

CLIP = dataclasses.replace(TINY.clip, vision_layers=2)
FRAMES = 16


def mesh_of(**axes):
    axes = {"data": 1, "fsdp": 1, "tensor": 1} | axes
    return sharding.make_mesh(jax.devices()[: int(np.prod(list(axes.values())))], axes)


@functools.cache
def inputs(dtype="float32"):
    tower = VisionTower(CLIP, jnp.dtype(dtype), "full", True)
    side = CLIP.image_size
    images = jax.random.normal(jax.random.key(0), (FRAMES, side, side, 3))
    return tower, tower.init(jax.random.key(1), images[:1]), images


def compiled(platform, mesh):
    """Features and gradient of a tower that is traced for `platform`."""
    tower, params, images = inputs()

    def loss(params, images):
        with sharding.constrain_activations(mesh):
            found = tower.apply(params, images)
        return (found * jnp.cos(jnp.arange(found.size).reshape(found.shape))).sum(), found

    with target.compiling_for(platform):
        params = jax.device_put(params, sharding.by_rules(params, mesh))
        images = jax.device_put(images, sharding.by_batch(mesh))
        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        lowered = step.lower(params, images)
    return lowered.compile(), (params, images)


@functools.cache
def at_once():
    step, arguments = compiled("cpu", mesh_of())
    return jax.device_get(step(*arguments))


@pytest.fixture
def few(monkeypatch):
    """Rows of two frames, two rows at a time."""
    tokens = CLIP.image_tokens
    monkeypatch.setattr(in_parts, "LANES", 2 * tokens)
    monkeypatch.setattr(in_parts, "TOKENS", 4 * tokens)


@pytest.mark.parametrize("axes", [{}, {"data": 2}, {"data": 2, "fsdp": 2}], ids=str)
def test_a_tower_in_parts_is_the_tower(few, axes):
    step, arguments = compiled("tpu", mesh_of(**axes))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * (1 + np.abs(y).max())),
        jax.device_get(step(*arguments)),
        at_once(),
    )
