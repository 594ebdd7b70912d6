"""The mesh, and where arrays live on it."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from glscl_jax.errors import UserError

DATA = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (all of all processes by default) along one axis, which batches are split on."""
    devices = jax.devices() if devices is None else devices
    # Auto axes let the compiler place what the model does not say; JAX's default is Explicit.
    return jax.make_mesh((len(devices),), (DATA,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters and optimiser state."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices: batches."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def check_batch_size(batch_size: int, mesh: Mesh, name: str = "batch_size") -> None:
    """Raises a `UserError` unless the devices can share a batch equally."""
    devices = mesh.shape[DATA]
    if batch_size % devices:
        raise UserError(
            f"config.{name} {batch_size} is not divisible by the {devices} devices: "
            f"try {max(1, round(batch_size / devices)) * devices}"
        )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Each process's part of a batch (split along the first axis) to one global array."""
    sharding = by_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }
