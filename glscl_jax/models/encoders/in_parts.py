"""A layer over a few examples at a time, so that what it makes of them stays in fast memory.

A TPU has 128 MiB of fast memory. What a layer makes of all frames of a batch does not fit in there,
what it makes of 2,400 tokens does: its activations never reach the large memory, neither forward
nor backward, where they are computed again. So it takes a third less than over all frames at once
(docs/performance.md). Gradients are summed over the parts in float32, and over devices once: along
`fsdp` each device is sent the sum of its own part of a parameter alone.
"""

import contextlib
import contextvars
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from glscl_jax import target
from glscl_jax.models.encoders.parameters import FSDP, split_of
from glscl_jax.trees import path_name

# Of ViT-B's tokens; fewer leave the matrix units idle, more do not fit.
TOKENS = 2400
# Of a TPU in float32, sublanes and lanes: what an array's last two axes are filled up to.
TILE = (8, 128)
# Rows of at most so many tokens, which any fewer are filled up to.
LANES = TILE[1]


@dataclasses.dataclass(frozen=True)
class Shared:
    """How devices share the examples of arrays.

    Attributes:
      mesh: the devices; none for a single one.
      axes: of it, along which examples are split.
    """

    mesh: Mesh | None = None
    axes: tuple[str, ...] = ()

    @property
    def devices(self) -> int:
        """So many have examples of their own."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes) if self.mesh else 1

    @property
    def is_split(self) -> bool:
        return self.devices > 1


# Inside of a part: these are a device's own examples, of which nothing is to be laid out.
ALONE = Shared(axes=("alone",))
_SHARED: contextvars.ContextVar[Shared | None] = contextvars.ContextVar("shared", default=None)


@contextlib.contextmanager
def sharing(shared: Shared | None) -> Iterator[None]:
    """While its body traces, examples are known to lie as `shared` says; None: it is not known."""
    token = _SHARED.set(shared)
    try:
        yield
    finally:
        _SHARED.reset(token)


def is_alone() -> bool:
    """Whether what is traced is of one device's examples, by itself."""
    return _SHARED.get() is ALONE


def side_by_side(examples: int, length: int) -> int:
    """How many examples of so many tokens a TPU takes in one row, each seeing itself alone; 1 else.

    Rows of keys are filled up to `LANES`, whose place more of them can take.
    """
    shared = _SHARED.get()
    if target.platform() != "tpu" or shared is None or examples % shared.devices:
        return 1
    return _divisor(examples // shared.devices, LANES // length)


def rows_at_once(examples: int, length: int) -> int | None:
    """How many rows of so many tokens a device is to take at a time; None for all it has.

    On a TPU, and where it is known which device has which examples.
    """
    shared = _SHARED.get()
    if target.platform() != "tpu" or shared is None or examples % shared.devices:
        return None
    own = examples // shared.devices
    few = _divisor(own, TOKENS // length)
    # With a number of rows that nothing divides, parts would be too small.
    return few if few < own and 2 * few * length > TOKENS else None


def _divisor(number: int, most: int) -> int:
    """The largest divisor up to `most`, at least 1."""
    return next((size for size in range(min(number, most), 1, -1) if number % size == 0), 1)


def by_parts(layer: Callable, params, x: jax.Array, *more, rows: int, sum_in: str) -> jax.Array:
    """`layer(params, x, *more)`, `rows` examples at a time on each device.

    For the backward pass x and `params` are kept alone.

    Args:
      layer: of examples each by itself: (params, [n,L,D], *more) -> [n,L,D].
      params: its parameters, in float32.
      x: [N,L,D], shared as `sharing` says.
      more: what all examples have in common, without a gradient.
      rows: n, a divisor of a device's own examples.
      sum_in: dtype in which gradients are summed over devices.
    """
    shared = _SHARED.get() or Shared()
    return _by_parts(layer, (shared, rows, sum_in), params, x, more)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_parts(layer, how, params, x, more):
    shared, rows, _ = how

    def own(params, x, more):
        def one(part):
            return layer(_whole(params), part, *more)

        return _joined(jax.lax.map(one, _split(x, rows)))

    return _apart(own, shared, "wxw", "x")(_sent(params, x, shared), x, more)


def _forward(layer, how, params, x, more):
    return _by_parts(layer, how, params, x, more), (params, x, more)


def _backward(layer, how, kept, slope):
    shared, rows, sum_in = how
    params, x, more = kept

    def own(params, x, more, slope):
        whole = _whole(params)

        def add(total, parts):
            part, slope = parts
            _, pull = jax.vjp(lambda params, part: layer(params, part, *more), whole, part)
            by_params, by_part = pull(slope)
            return jax.tree.map(jnp.add, total, by_params), by_part

        start = jax.tree.map(jnp.zeros_like, whole)
        by_params, by_x = jax.lax.scan(add, start, (_split(x, rows), _split(slope, rows)))
        if shared.is_split:
            by_params = jax.tree.map(
                lambda x, at: _summed(x.astype(sum_in), at, shared), by_params, split
            )
        return by_params, _joined(by_x)

    split = _split_axes(params, shared)
    sent = _sent(params, x, shared)
    by_params, by_x = _apart(own, shared, "wxwx", "sx", split)(sent, x, more, slope)
    by_params = jax.tree.map(lambda x, param: x.astype(param.dtype), by_params, params)
    return by_params, by_x, None


_by_parts.defvjp(_forward, _backward)


def _split_axes(params, shared: Shared):
    """The axis of each parameter that lies over `FSDP`; -1 where none does."""

    mesh = shared.mesh
    devices = mesh.shape[FSDP] if mesh and FSDP in shared.axes else 1

    def axis(path, leaf) -> int:
        if devices == 1:
            return -1
        axes = split_of(path_name(path))
        over = [at for at, names in enumerate(axes, leaf.ndim - len(axes)) if FSDP in (names or ())]
        return next((at for at in over if leaf.shape[at] % devices == 0), -1)

    return jax.tree_util.tree_map_with_path(axis, params)


def _summed(x: jax.Array, at: int, shared: Shared) -> jax.Array:
    """The sum over devices; of what lies over `FSDP` a device's own part, which is all it keeps."""
    if at < 0:
        return jax.lax.psum(x, shared.axes)
    x = scattered(x, at, FSDP)
    others = tuple(axis for axis in shared.axes if axis != FSDP)
    return jax.lax.psum(x, others) if others else x


def scattered(x: jax.Array, at: int, along: str) -> jax.Array:
    """The sum over devices `along` an axis of the mesh, a device's own part of axis `at` of it.

    The compiler for TPUs sums the whole, and sends twice as much, where a part is not of whole
    tiles, as 96 of 768 columns are not. Parts whose numbers fill tiles are sent as such.
    """
    part = x.shape[at] // jax.lax.axis_size(along)
    sublanes, lanes = TILE
    own = part * x.size // x.shape[at]
    if at < x.ndim - 1 or part % lanes == 0 or own % (sublanes * lanes):
        return jax.lax.psum_scatter(x, along, scatter_dimension=at, tiled=True)
    parts = jnp.moveaxis(x.reshape(*x.shape[:-1], -1, part), -2, 0)
    rows = parts.reshape(-1, lanes)
    rows = jax.lax.psum_scatter(rows, along, scatter_dimension=0, tiled=True)
    return rows.reshape(parts.shape[1:])


def _apart(function: Callable, shared: Shared, inputs: str, outputs: str, split=None) -> Callable:
    """`function` on each device's own examples ("x"), and on all of what has none ("w").

    What comes out as "s" lies along `FSDP` as `split` says, a tree of axes.
    """

    def alone(*arrays):
        with sharing(ALONE):
            return function(*arrays)

    if not shared.is_split:
        return alone
    specs = {"w": PartitionSpec(), "x": PartitionSpec(shared.axes)}
    specs["s"] = jax.tree.map(
        lambda at: PartitionSpec(*(None,) * at, FSDP) if at >= 0 else PartitionSpec(), split
    )
    out = [specs[kind] for kind in outputs]
    return jax.shard_map(
        alone,
        mesh=shared.mesh,
        in_specs=tuple(specs[kind] for kind in inputs),
        out_specs=tuple(out) if len(out) > 1 else out[0],
        check_vma=False,
    )


def _sent(params, x: jax.Array, shared: Shared):
    """Parameters as devices gather them: matrices in the type that x is multiplied in."""
    if not shared.is_split:
        return params
    return jax.tree.map(lambda leaf: leaf.astype(x.dtype) if leaf.ndim > 1 else leaf, params)


def _whole(params):
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)


def _split(x: jax.Array, rows: int) -> jax.Array:
    return x.reshape(x.shape[0] // rows, rows, *x.shape[1:])


def _joined(parts: jax.Array) -> jax.Array:
    return parts.reshape(parts.shape[0] * parts.shape[1], *parts.shape[2:])
