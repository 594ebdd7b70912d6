"""A batch in as many shares as there are places along `DATA`, each computed apart from the others.

So does `training.gradient_cache`, which sums gradients over them once, when all are there.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Share:
    """The examples of a batch that lie in one place along `DATA`, where each place has its own.

    Attributes:
      number: int32 [], from 0.
      count: of shares.
    """

    number: jax.Array
    count: int


_SHARE: contextvars.ContextVar[Share | None] = contextvars.ContextVar("share", default=None)


def current_share() -> Share | None:
    """That of the code that is being traced; None outside of any."""
    return _SHARE.get()


@contextlib.contextmanager
def within(share: Share) -> Iterator[None]:
    """While its body traces, arrays have a share's examples alone: of them nothing is on `DATA`.

    What is dropped in a share is what would be dropped of those examples in the whole batch.
    """
    token = _SHARE.set(share)
    try:
        with nn.intercept_methods(_drop_as_of_all):
            yield
    finally:
        _SHARE.reset(token)


def _drop_as_of_all(call, args, kwargs, context):
    """`nn.Dropout` of a share's rows: draws for all shares, as without them, and takes its own."""
    module, share = context.module, _SHARE.get()
    if not isinstance(module, nn.Dropout) or context.method_name != "__call__" or share is None:
        return call(*args, **kwargs)
    (inputs,) = args
    if module.deterministic or not module.rate:
        return inputs
    keep, (rows, *rest) = 1 - module.rate, inputs.shape
    key = module.make_rng(module.rng_collection)
    kept = jax.random.bernoulli(key, keep, (share.count * rows, *rest))
    kept = jax.lax.dynamic_slice_in_dim(kept, share.number * rows, rows)
    return jnp.where(kept, inputs / keep, jnp.zeros_like(inputs))
