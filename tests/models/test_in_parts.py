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
from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.profiling import hlo
from glscl_jax.profiling.collectives import collectives
from glscl_jax.runtime import sharding
from glscl_jax.training import objective
from tests.builders import SHORT, assert_same_gradient, mesh_of, train_batch

CLIP, FRAMES = SHORT.clip, 32
ONE = {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.fixture
def few(monkeypatch):
    """Rows of two frames, two rows at a time."""
    monkeypatch.setattr(in_parts, "LANES", 2 * CLIP.image_tokens)
    monkeypatch.setattr(in_parts, "TOKENS", 4 * CLIP.image_tokens)


def compiled(platform, axes):
    """The program of a tower's features and gradient, traced for `platform`, and its arguments."""
    tower, mesh = VisionTower(CLIP, jnp.dtype("float32"), "full", True), mesh_of(ONE | axes)
    images = jax.random.normal(jax.random.key(0), (FRAMES, CLIP.image_size, CLIP.image_size, 3))
    params = tower.init(jax.random.key(1), images[:1])

    def loss(params, images):
        with sharding.constrain_activations(mesh):
            found = tower.apply(params, images)
        return (found * jnp.cos(jnp.arange(found.size).reshape(found.shape))).sum(), found

    where = (sharding.by_rules(params, mesh), sharding.by_batch(mesh))
    arguments = jax.device_put((params, images), where)
    step = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), out_shardings=(None, where)
    )
    with target.compiling_for(platform):
        return step.lower(*arguments).compile(), arguments


@functools.cache
def at_once():
    step, arguments = compiled("cpu", {})
    return jax.device_get(step(*arguments))


@pytest.mark.parametrize("axes", [{}, {"data": 2, "fsdp": 2}, {"data": 2, "tensor": 2}], ids=str)
def test_a_tower_in_parts_is_the_tower_and_sums_over_devices_once(few, axes):
    step, arguments = compiled("tpu", axes)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=2e-5 * (1 + np.abs(y).max())),
        jax.device_get(step(*arguments)),
        at_once(),
    )
    # A sum in the loop over parts would turn as often as there are parts, more than layers.
    moved = collectives(hlo.Module(step.as_text()), ONE | axes)
    sums = [x for x in moved if "data" in x.axes and x.kind == "all-reduce"]
    assert {x.times for x in sums} <= {1, CLIP.vision_layers}


def test_along_fsdp_a_device_is_sent_its_own_part_of_a_gradient_alone(few):
    axes = ONE | {"data": 2, "fsdp": 2}
    moved = collectives(hlo.Module(compiled("tpu", axes)[0].as_text()), axes)
    layers = [x for x in moved if x.times == CLIP.vision_layers]
    scattered = [x for x in layers if x.kind == "reduce-scatter"]
    assert {x.axes for x in scattered} == {"fsdp"}
    assert not [x for x in layers if x.kind == "all-reduce" and "fsdp" in x.axes]


@pytest.mark.parametrize(
    ("shape", "at", "rows"),
    [
        ((128, 192), 0, (128, 192)),
        ((128, 192), 1, (192, 128)),  # A part is of 48 columns, and fills tiles as rows.
        ((8, 512), 1, (8, 512)),  # Of 128.
        ((8, 12), 1, (8, 12)),  # Fills none.
        ((2, 64, 96), 2, (96, 128)),
    ],
)
def test_a_device_s_part_of_a_sum_goes_in_whole_tiles(shape, at, rows):
    mesh = mesh_of(ONE | {"fsdp": 4})
    given = np.random.default_rng(0).integers(-9, 9, (4, *shape)).astype(np.float32)
    out = jax.sharding.PartitionSpec(*(None,) * at, "fsdp")
    sums = jax.jit(
        jax.shard_map(
            lambda x: in_parts.scattered(x[0], at, "fsdp"),
            mesh=mesh,
            in_specs=jax.sharding.PartitionSpec("fsdp"),
            out_specs=out,
        )
    )
    np.testing.assert_array_equal(sums(given), given.sum(0))
    told = sums.lower(given).as_text()
    sent = "x".join(map(str, rows))
    assert f"(tensor<{sent}xf32>)" in told[told.index("reduce_scatter") :]


def test_a_gradient_in_micro_batches_is_the_same_in_parts(few, monkeypatch):
    model, axes = GLSCL(dataclasses.replace(SHORT, remat="full")), {"data": 2, "fsdp": 2}
    params, taken = init_params(model, 0), []
    by_parts = in_parts.by_parts
    monkeypatch.setattr(
        in_parts, "by_parts", lambda *x, **how: taken.append(how["rows"]) or by_parts(*x, **how)
    )

    def gradient(platform, axes):
        mesh = mesh_of(ONE | axes)
        options = {"model": model, "weights": LossWeights(), "mesh": mesh, "microbatch": 16}
        compute = jax.jit(lambda *x: objective.gradient(*x, None, **options)[0])
        with target.compiling_for(platform):
            return jax.device_get(compute(params, sharding.put_batch(train_batch(32), mesh)))

    expected = gradient("cpu", {})
    assert not taken
    assert_same_gradient(gradient("tpu", axes), expected)
    assert set(taken) == {2}


def test_sequences_side_by_side_see_themselves_alone():
    expected = np.kron(np.eye(3), np.ones((4, 4)))
    np.testing.assert_array_equal(AttentionMask(groups=3).bias(12) == 0, expected)


@pytest.mark.parametrize(
    ("platform", "shared", "frames", "tokens", "beside", "rows"),
    [
        ("tpu", in_parts.Shared(), 384, 50, 2, 24),
        ("tpu", in_parts.Shared(), 384, 197, 1, 12),
        ("tpu", in_parts.Shared(), 12, 197, 1, None),  # All of them are few.
        ("tpu", in_parts.Shared(), 383, 197, 1, None),  # A prime number of them.
        ("tpu", None, 384, 50, 1, None),  # Where they lie is not known.
        ("gpu", in_parts.Shared(), 384, 50, 1, None),
        ("cpu", in_parts.Shared(), 384, 197, 1, None),
    ],
)
def test_how_many_are_taken_at_once(platform, shared, frames, tokens, beside, rows):
    with target.compiling_for(platform), in_parts.sharing(shared):
        assert in_parts.side_by_side(frames, tokens) == beside
        assert in_parts.rows_at_once(frames // beside, beside * tokens) == rows
