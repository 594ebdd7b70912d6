"""A table split over devices: its rows and their gradient, and what is sent for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from glscl_jax.models.encoders.parameters import BATCH, DATA, FSDP
from glscl_jax.models.encoders.products import look_up
from glscl_jax.profiling import hlo
from glscl_jax.profiling.collectives import collectives
from glscl_jax.runtime import sharding, split_table
from tests.builders import mesh_of

ROWS, WIDTH, TEXTS, WORDS = 4096, 16, 16, 8


def outcome(table, ids, weight, mesh):
    """The rows [A,L,D] in bfloat16, and the gradient [N,D] of their sum weighed by `weight`."""

    def loss(table):
        with sharding.constrain_activations(mesh):
            rows = look_up(table, ids, jnp.dtype("bfloat16"))
        return jnp.sum(rows.astype(jnp.float32) * weight), rows

    (_, rows), grad = jax.value_and_grad(loss, has_aux=True)(table)
    return rows, grad


@pytest.mark.parametrize("axes", [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}])
def test_rows_and_gradient_are_the_whole_tables_and_nobody_gathers_it(axes):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    # Rows are asked for by several texts, and by several devices.
    ids = rng.integers(0, ROWS // 8, (TEXTS, WORDS)) * 8
    weight = rng.normal(size=(TEXTS, WORDS, WIDTH)).astype(np.float32)
    mesh = mesh_of(axes)
    by_rows, by_texts = (NamedSharding(mesh, PartitionSpec(x)) for x in (FSDP, BATCH))
    inputs = (table, by_rows), (ids, by_texts), (weight, by_texts)
    program = (
        jax.jit(lambda *inputs: outcome(*inputs, mesh), out_shardings=(by_texts, by_rows))
        .lower(*(jax.device_put(*x) for x in inputs))
        .compile()
    )
    found = program(*(jax.device_put(*x) for x in inputs))
    rows, grad = outcome(table, ids, weight, None)
    np.testing.assert_array_equal(found[0], rows)
    np.testing.assert_allclose(found[1], grad, rtol=1e-2, atol=1e-2)  # Slopes are bfloat16.

    moved = collectives(hlo.Module(program.as_text()), dict(mesh.shape))
    part = table.nbytes / mesh.shape[FSDP]
    assert max(x.result_bytes for x in moved if x.axes == FSDP) < part
    # Over data the gradient of a device's own rows is summed, and nothing else.
    over_data = [x for x in moved if DATA in x.axes]
    assert [x.result_bytes for x in over_data] == [part] * (mesh.shape[DATA] > 1)


@pytest.mark.parametrize(("rows", "texts"), [(4093, TEXTS), (ROWS, 12)])
def test_what_does_not_divide_is_left_to_the_compiler(rows, texts):
    table, ids = jnp.zeros((rows, WIDTH)), jnp.zeros((texts, WORDS), jnp.int32)
    assert not split_table.is_split(table, ids, mesh_of({"fsdp": 8}))
