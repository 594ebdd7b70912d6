"""Gradients in micro-batches against the gradient of the whole batch, and what they cost."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glscl_jax.models.glscl import GLSCL, init_params
from glscl_jax.models.heads.concept_losses import LossWeights
from glscl_jax.profiling import hlo
from glscl_jax.profiling.collectives import collectives
from glscl_jax.runtime import sharding
from glscl_jax.training import objective
from glscl_jax.training.gradient_cache import cached_gradient, join_parts, take_part
from tests.builders import DROPOUT, assert_same_gradient, mesh_of, train_batch

# Without the temporal module, which no micro-batch treats differently, to compile faster.
MODEL = GLSCL(dataclasses.replace(DROPOUT, temporal="None"))
WEIGHTS, SIZE, MICRO, KEY = LossWeights(), 16, 8, jax.random.key(3)


@functools.cache
def params():
    return jax.jit(lambda: init_params(MODEL, 0))()


def by_parts_and_whole(params, batch, key):
    """The slow oracle: every micro-batch with its dropout, all in one differentiated function."""
    count = SIZE // MICRO
    parts = []
    for index in range(count):
        part = {name: value[index::count] for name, value in batch.items()}
        own_key = jax.random.fold_in(key, index)
        parts.append(objective.encode_pairs(params, part, own_key, model=MODEL))
    # Neither the order of the pairs nor their cut matters to the losses.
    features = jax.tree.map(lambda *rows: jnp.concatenate(rows), *parts)
    return objective.feature_losses(params, features, model=MODEL, weights=WEIGHTS)


def in_micro_batches(key, mesh=None):
    """Gradient and losses; those in blocks, too, as a batch beyond memory has them."""
    options = {"model": MODEL, "weights": WEIGHTS, "mesh": mesh}
    batch = sharding.put_batch(train_batch(SIZE), mesh) if mesh else train_batch(SIZE)

    def compute(params, batch):
        return objective.gradient(params, batch, key, microbatch=MICRO, loss_block=8, **options)

    return jax.device_get(jax.jit(compute)(params(), batch))


@pytest.mark.slow
def test_without_dropout_the_gradient_is_that_of_the_plain_step():
    def plain(params):
        return objective.gradient(params, train_batch(SIZE), None, model=MODEL, weights=WEIGHTS)

    expected, losses = jax.jit(plain)(params())
    grads, found = in_micro_batches(None)
    assert found.total == pytest.approx(float(losses.total), rel=1e-6)
    assert_same_gradient(grads, expected)


# Without dropout and mesh tests/models/test_heads.py compares the two ways.
@pytest.mark.slow
def test_with_dropout_and_on_a_mesh_both_passes_drop_the_same():
    def whole(params):
        losses = by_parts_and_whole(params, train_batch(SIZE), KEY)
        return losses.total, losses

    expected, losses = jax.jit(jax.grad(whole, has_aux=True))(params())
    grads, found = in_micro_batches(KEY, mesh_of({"data": 2, "fsdp": 4}))
    assert found.total == pytest.approx(float(losses.total), rel=1e-5)
    assert_same_gradient(grads, expected)


def test_parts_cover_the_batch_and_join_again():
    batch = {"ids": jnp.arange(24).reshape(12, 2), "mask": jnp.arange(12)}
    parts = [take_part(batch, index, 3) for index in range(3)]
    np.testing.assert_array_equal(parts[1]["mask"], [1, 4, 7, 10])
    joined = join_parts(jax.tree.map(lambda *rows: jnp.stack(rows), *parts))
    jax.tree.map(np.testing.assert_array_equal, joined, batch)


def test_every_device_has_its_share_of_a_part_at_hand():
    mesh = mesh_of({"data": 4, "fsdp": 2})
    batch = sharding.put_batch({"frames": np.arange(64).reshape(32, 2)}, mesh)
    take = jax.jit(lambda batch, index: take_part(batch, index, 4, mesh))
    compiled = take.lower(batch, 1).compile().as_text()
    for communication in ("all-gather", "all-to-all", "all-reduce", "collective-permute"):
        assert communication not in compiled
    part = take(batch, 1)["frames"]
    assert {shard.device for shard in part.addressable_shards} == set(mesh.devices.flat)
    assert {shard.data.shape for shard in part.addressable_shards} == {(1, 2)}


@pytest.mark.slow
def test_over_data_the_gradient_is_summed_once_however_many_micro_batches_there_are():
    mesh = mesh_of({"data": 4, "fsdp": 2})
    start = jax.device_put(params(), sharding.by_rules(params(), mesh))
    batch = sharding.put_batch(train_batch(4 * MICRO), mesh)
    options = {"microbatch": MICRO, "model": MODEL, "weights": WEIGHTS, "mesh": mesh}
    compute = jax.jit(lambda params, batch: objective.gradient(params, batch, KEY, **options)[0])
    module = hlo.Module(compute.lower(start, batch).compile().as_text())
    sums = [
        x
        for x in collectives(module, dict(mesh.shape))
        if "data" in x.axes and x.kind in ("all-reduce", "reduce-scatter")
    ]
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params())) / 2  # Along fsdp.
    # 2 (n-1)/n of it to all others, and the loss's features. At each micro-batch it would be 4
    # times as much.
    assert sum(x.sent for x in sums) < 1.1 * 2 * 3 / 4 * held


def memory(size, microbatch):
    """Bytes of temporaries that XLA plans for the gradient of a batch."""
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), train_batch(size))

    def compute(params, batch):
        key = jax.random.key(0)
        return objective.gradient(
            params, batch, key, model=MODEL, weights=WEIGHTS, microbatch=microbatch
        )[0]

    compiled = jax.jit(compute).lower(params(), batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_grows_with_the_micro_batch_and_not_with_the_batch():
    # At these sizes activations, and not parameters, are most of it; 512 at once take 634 MB.
    small, large = memory(128, 32), memory(512, 32)
    print(f"MB: {small / 1e6:.0f} of 128, {large / 1e6:.0f} of 512")
    assert large < 1.2 * small


def test_sums_are_in_float32_and_gradients_in_the_parameters_dtype():
    params = {"w": jnp.ones((), jnp.float16)}
    batch = {"x": jnp.asarray(np.r_[2048.0, np.ones(15)], jnp.float32)}

    def encode(params, part, index):
        return part["x"] * params["w"].astype(jnp.float32)

    grads, _ = cached_gradient(
        encode, lambda params, x: (jnp.sum(x), None), params, batch, count=16
    )
    # In float16, 2048 + 1 is 2048, fifteen times over; the sum is 2063, which rounds to 2064.
    assert grads["w"].dtype == jnp.float16
    assert grads["w"] == 2064
