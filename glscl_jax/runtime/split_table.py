"""Rows of a table that lies split over devices, without any of them having the whole of it.

Left to itself the compiler gathers the whole table along `FSDP` to look a few rows up, and sums the
whole of its gradient over all devices. Here the ids go round instead, which are small: each device
looks up what it has of the rows that its neighbours along `FSDP` ask for, and gets its own back;
their slopes go the same way in reverse. (So Megatron-LM splits its vocabulary: Shoeybi et al.,
2019.)
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from glscl_jax.models.encoders.parameters import BATCH, FSDP


def is_split(
    table: jax.Array, ids: jax.Array, mesh: Mesh | None, by: tuple[str, ...] = BATCH
) -> bool:
    """Whether `look_up` can take a table [N,D] and ids [A,L]: the mesh divides both."""
    if mesh is None or mesh.shape[FSDP] == 1:
        return False
    places = math.prod(mesh.shape[axis] for axis in by)
    return table.shape[0] % mesh.shape[FSDP] == 0 and ids.shape[0] % places == 0


def look_up(
    table: jax.Array,
    ids: jax.Array,
    dtype: jnp.dtype,
    mesh: Mesh,
    by: tuple[str, ...] = BATCH,
) -> jax.Array:
    """Rows of table [N,D], split by rows along `FSDP`, by ids int [A,L], split by texts along `by`.

    Returns:
      [A,L,D] in `dtype`, split by texts: those of the whole table, exactly.
    """

    def of_one(table, ids):
        wanted = jax.lax.all_gather(ids, FSDP, tiled=True) - jax.lax.axis_index(FSDP) * len(table)
        here = (wanted >= 0) & (wanted < len(table))
        rows = table[jnp.where(here, wanted, 0)].astype(dtype)
        rows = jnp.where(here[..., None], rows, jnp.zeros_like(rows))
        # Of all summands one is not zero.
        return jax.lax.psum_scatter(rows, FSDP, tiled=True)

    return jax.shard_map(
        of_one,
        mesh=mesh,
        in_specs=(PartitionSpec(FSDP, None), PartitionSpec(by)),
        out_specs=PartitionSpec(by),
    )(table, ids)
