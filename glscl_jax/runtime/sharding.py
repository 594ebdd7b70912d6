"""The mesh, and where arrays live on it.

Three axes. Batches are split over `data` and `fsdp`; parameters and optimiser state over `fsdp`,
each gathered where a layer needs it; attention heads and the MLP's inner width over `tensor`.
What is computed does not depend on the mesh: the compiler adds the communication.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from glscl_jax.errors import UserError
from glscl_jax.models.encoders.in_parts import Shared, is_alone, sharing
from glscl_jax.models.encoders.parameters import (
    AXES,
    BATCH,
    DATA,
    FSDP,
    TENSOR,
    activations_of,
    otherwise_of,
    split_of,
)
from glscl_jax.models.encoders.products import looking_up
from glscl_jax.runtime import split_table
from glscl_jax.runtime.device_layout import arrange, nearest
from glscl_jax.runtime.shares import current_share
from glscl_jax.trees import path_name


def make_mesh(
    devices: Sequence[jax.Device] | None = None, axes: Mapping[str, int] | None = None
) -> Mesh:
    """The devices laid out along `AXES`.

    Args:
      devices: all of all processes by default.
      axes: devices along each axis, 1 for those not named; one may be -1, for all that the others
        leave. By default all lie along `data`.

    Raises:
      UserError: the axes do not multiply to the number of devices, or do not lie on hosts and
        slices as `device_layout` has them.
    """
    devices = jax.devices() if devices is None else devices
    sizes = _sizes({DATA: -1} if axes is None else axes, devices)
    # Auto axes let the compiler place what the model does not say; JAX's default is Explicit.
    return Mesh(arrange(devices, sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _sizes(axes: Mapping[str, int], devices: Sequence[jax.Device]) -> tuple[int, ...]:
    shown = "config.mesh " + " x ".join(f"{name} {size}" for name, size in axes.items())
    if unknown := [name for name in axes if name not in AXES]:
        raise UserError(f"{shown}: there is no axis {unknown[0]!r}, only {', '.join(AXES)}")
    sizes = [axes.get(name, 1) for name in AXES]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(
            f"{shown}: sizes are 1 or more, and one of them may be -1 (all that is left)"
        )
    fixed = math.prod(size for size in sizes if size != -1)
    count = len(devices)
    if count % fixed or (-1 not in sizes and fixed != count):
        raise UserError(
            f"{shown} needs {'a multiple of ' if -1 in sizes else ''}{fixed} devices, and there "
            f"are {count}: make the product {count}, or one axis -1: {nearest(devices, sizes)}"
        )
    return tuple(count // fixed if size == -1 else size for size in sizes)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_batch(mesh: Mesh) -> NamedSharding:
    """The first axis split over `data` and `fsdp`: batches."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def batch_shares(mesh: Mesh | None) -> int:
    """How many parts a batch is split into."""
    return mesh.shape[DATA] * mesh.shape[FSDP] if mesh else 1


def by_rules(tree, mesh: Mesh):
    """A sharding for every array of `tree` (parameters, optimiser state, a train state).

    Args:
      tree: of arrays or of `jax.ShapeDtypeStruct`s.
      mesh: see `make_mesh`.

    Returns:
      The same tree of `NamedSharding`s, as the modules state them (`encoders.parameters`). An
      axis that its part of the mesh does not divide stays whole, unless they state another, and
      so does a stack's of layers.
    """

    def sharding(path, leaf):
        name = path_name(path)
        axes = split_of(name)
        fitting = _fitting(axes, leaf.shape, mesh)
        if not any(fitting) and (other := otherwise_of(name)):
            fitting = _fitting(other, leaf.shape, mesh)
        return NamedSharding(mesh, fitting)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def _fitting(axes: tuple, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """`axes` of the last axes of `shape`, without those that do not divide theirs."""
    axes = axes[max(0, len(axes) - len(shape)) :]
    axes = (None,) * (len(shape) - len(axes)) + axes
    return PartitionSpec(
        *(
            axis if axis and size % _count(axis, mesh) == 0 else None
            for axis, size in zip(axes, shape, strict=True)
        )
    )


def _count(axis: str | tuple[str, ...], mesh: Mesh) -> int:
    names = (axis,) if isinstance(axis, str) else axis
    return math.prod(mesh.shape[name] for name in names)


def device_share(tree) -> float:
    """The share of `tree`'s bytes that one device holds; its leaves have shardings."""
    whole, held = (
        sum(math.prod(shape(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for shape in (lambda leaf: leaf.shape, lambda leaf: leaf.sharding.shard_shape(leaf.shape))
    )
    return held / whole


def _left_to_shares(axes: tuple) -> tuple:
    """`axes` without `DATA`, within a share."""
    if current_share() is None:
        return axes
    return tuple(FSDP if axis == BATCH else None if axis == DATA else axis for axis in axes)


def constrain(tree, mesh: Mesh | None, *axes):
    """Arrays inside a compiled function, laid out by mesh axes; without a mesh as they are.

    An axis that its part of the mesh does not divide stays whole.
    """
    if mesh is None or mesh.size == 1:
        return tree
    axes = _left_to_shares(axes)

    def laid_out(x):
        spec = _fitting((*axes, *(None,) * (x.ndim - len(axes))), x.shape, mesh)
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

    return jax.tree.map(laid_out, tree)


def constrain_shares(tree, like, mesh: Mesh | None):
    """Arrays [S, ...], one a share: split over `DATA` by share, the rest as `by_rules` has `like`.

    Args:
      tree: such arrays.
      like: the same tree of arrays without the first axis, parameters.
      mesh: none for a single device.
    """
    if mesh is None or mesh.size == 1:
        return tree

    def laid_out(x, rule):
        sharding = NamedSharding(mesh, PartitionSpec(DATA, *rule.spec))
        return jax.lax.with_sharding_constraint(x, sharding)

    return jax.tree.map(laid_out, tree, by_rules(like, mesh))


@contextlib.contextmanager
def constrain_activations(mesh: Mesh | None) -> Iterator[None]:
    """A context in which the model's activations are laid out as modules state them.

    The compiler would find most of it from batch and parameters. Told at both ends of each pair
    of products, it cannot settle on splitting anything but examples, heads and hidden units. A
    table of which devices have rows each is looked up where these are.
    """

    def interceptor(call, args, kwargs, context):
        found = activations_of("/".join(context.module.path))
        if found is None or context.method_name != "__call__" or is_alone():
            return call(*args, **kwargs)
        before, after = found
        inputs = constrain(args[0], mesh, *before)
        return constrain(call(inputs, *args[1:], **kwargs), mesh, *after)

    def rows(table, ids, dtype):
        by = BATCH if current_share() is None else (FSDP,)
        if split_table.is_split(table, ids, mesh, by):
            return split_table.look_up(table, ids, dtype, mesh, by)
        return table[ids].astype(dtype)

    with nn.intercept_methods(interceptor), looking_up(rows), sharing(_shared(mesh)):
        yield


def _shared(mesh: Mesh | None) -> Shared | None:
    """How examples lie, for what is computed of a few at a time; None along `TENSOR`.

    There the inside of a layer is laid over devices, which a part of the examples cannot be told.
    """
    if mesh is None or mesh.size == 1:
        return Shared()
    if mesh.shape[TENSOR] > 1:
        return None
    return Shared(mesh, BATCH if current_share() is None else (FSDP,))


def check_batch_size(batch_size: int, mesh: Mesh, name: str = "batch_size") -> None:
    """Raises a `UserError` unless the devices can share a batch equally."""
    shares = batch_shares(mesh)
    if batch_size % shares:
        along = "" if shares == mesh.size else " along data and fsdp"
        raise UserError(
            f"config.{name} {batch_size} is not divisible by the {shares} devices{along}: "
            f"try {max(1, round(batch_size / shares)) * shares}"
        )


def check_microbatch(batch_size: int, microbatch: int, mesh: Mesh) -> None:
    """Raises a `UserError` unless whole micro-batches, shared by all devices, make up a batch."""
    if microbatch < 0 or microbatch > batch_size or (microbatch and batch_size % microbatch):
        raise UserError(
            f"config.microbatch {microbatch} does not divide config.batch_size {batch_size}: "
            "give one of its divisors, or 0 for no micro-batches"
        )
    check_batch_size(microbatch, mesh, "microbatch")


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Each process's part of a batch (split along the first axis) to one global array."""
    sharding = by_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, value)
        for name, value in batch.items()
    }
