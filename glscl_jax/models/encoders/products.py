"""What activations and parameters make together, and in which type its gradient is summed.

A parameter is used in the type of the computation, and so its gradient would be made and summed
over devices in it. In half precision that rounds at each device. Under `summing_gradients` a
parameter's gradient is summed over examples and devices in a type of its own.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from glscl_jax import target

# What a product with a gradient of its own is called to those who choose what is kept.
PRODUCT = "product"
_CHOSEN = contextvars.ContextVar("gradient_dtype", default="")
_ROWS: contextvars.ContextVar[Callable | None] = contextvars.ContextVar("rows", default=None)


@contextlib.contextmanager
def summing_gradients(dtype: str) -> Iterator[None]:
    """Sums what `matmul` and `spread` pass back to parameters in `dtype` while its body traces.

    Without it, in the type of the activations.
    """
    token = _CHOSEN.set(dtype)
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def sum_dtype(x: jax.Array) -> str:
    """In which a parameter's gradient is summed, of a parameter that makes something of x."""
    return _CHOSEN.get() or x.dtype.name


def _other(dtype: jnp.dtype) -> str:
    """The type to sum in; "" where that is the activations' own."""
    return _CHOSEN.get() if _CHOSEN.get() != dtype.name else ""


def matmul(x: jax.Array, kernel: jax.Array, flat: bool = True) -> jax.Array:
    """x [..., D] @ kernel [D, F] in the type of x; the kernel may be of another.

    With `flat` it is one product of two matrices, but for a TPU. XLA's CPU backend takes 1.7 times
    as long for the gradient of a kernel that is contracted over two axes, batch and tokens. A GPU
    does not mind. On a TPU tokens are filled up to whole tiles, so that the reshapes move all that
    passes (docs/performance.md).
    """
    flat = flat and target.platform() != "tpu"
    if dtype := _other(x.dtype):
        return checkpoint_name(_summed_matmul(x, kernel, flat, dtype), PRODUCT)
    return _matmul(x, kernel.astype(x.dtype), flat)


def _matmul(x: jax.Array, kernel: jax.Array, flat: bool) -> jax.Array:
    if not flat:
        return x @ kernel
    product = x.reshape(-1, x.shape[-1]) @ kernel
    return product.reshape(*x.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _summed_matmul(x: jax.Array, kernel: jax.Array, flat: bool, dtype: str) -> jax.Array:
    return _matmul(x, kernel.astype(x.dtype), flat)


def _summed_matmul_forward(x, kernel, flat, dtype):
    return _summed_matmul(x, kernel, flat, dtype), (x, kernel)


def _summed_matmul_backward(flat, dtype, kept, slope):
    x, kernel = kept
    by_x = _matmul(slope, kernel.astype(x.dtype).T, flat)
    if flat:
        x, slope = (y.reshape(-1, y.shape[-1]) for y in (x, slope))
    examples = tuple(range(x.ndim - 1))
    by_kernel = jax.lax.dot_general(
        x, slope, ((examples, examples), ((), ())), preferred_element_type=jnp.dtype(dtype)
    )
    return by_x, by_kernel.astype(kernel.dtype)


_summed_matmul.defvjp(_summed_matmul_forward, _summed_matmul_backward)


@contextlib.contextmanager
def looking_up(rows: Callable[[jax.Array, jax.Array, jnp.dtype], jax.Array]) -> Iterator[None]:
    """Has `look_up` done by `rows` while its body traces: by who knows where a table's rows are."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def look_up(table: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of table [N,D] by ids int [A,L]: [A,L,D] in `dtype`; the gradient is of its type."""
    rows = _ROWS.get()
    return rows(table, ids, dtype) if rows else table[ids].astype(dtype)


def spread(parameter: jax.Array, like: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    """A bias, or what else all examples share, in the type of `like`, to be added to it.

    Its shape broadcasts to that of `like`.
    """
    if dtype := _other(like.dtype):
        own = jax.ShapeDtypeStruct(parameter.shape, parameter.dtype)
        return _summed_spread(parameter, own, like.shape, like.dtype, dtype)
    return parameter.astype(like.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _summed_spread(parameter, own, shape, used, dtype):
    return jnp.broadcast_to(parameter.astype(used), shape)


def _summed_spread_forward(parameter, own, shape, used, dtype):
    return _summed_spread(parameter, own, shape, used, dtype), None


def _summed_spread_backward(own, shape, used, dtype, kept, slope):
    sizes = (1,) * (len(shape) - len(own.shape)) + own.shape
    shared = tuple(axis for axis, size in enumerate(sizes) if size == 1)
    total = jnp.sum(slope, axis=shared, dtype=jnp.dtype(dtype))
    return (total.reshape(own.shape).astype(own.dtype),)


_summed_spread.defvjp(_summed_spread_forward, _summed_spread_backward)
