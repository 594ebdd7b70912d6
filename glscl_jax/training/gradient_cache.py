"""The gradient of a batch that memory does not hold, exactly.

A contrastive loss joins all examples of a batch, but only through their features. So the features
of all micro-batches are computed first, keeping nothing for a backward pass; then the loss and
its gradient with respect to the features; then each micro-batch runs again, and pulls its
features' gradient back to the parameters (Gao et al., "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup", 2021). One more forward pass, and activations of one micro-batch.

Left to itself the compiler sums the gradient over the devices of `data` after each micro-batch.
So each of them sums the gradient of its own examples, and there is one sum over all at the end.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glscl_jax.models.encoders.parameters import BATCH, DATA, FSDP
from glscl_jax.runtime.sharding import constrain, constrain_shares
from glscl_jax.runtime.shares import Share, within


def take_part(batch, index: jax.Array, count: int, mesh: Mesh | None = None):
    """Micro-batch `index` of `count`: rows index, index + count, index + 2 count, ... of each leaf.

    A device holds neighbouring rows of a batch. With every `count`-th row in a micro-batch each
    device has its share of each of them at hand, nothing moves between devices, and which rows a
    micro-batch has does not depend on their number.
    """

    def take(x):
        # In numbers, not by -1: features may have an axis of none, a head without queries.
        rows = x.reshape(x.shape[0] // count, count, *x.shape[1:])
        return jax.lax.dynamic_index_in_dim(rows, index, axis=1, keepdims=False)

    return constrain(jax.tree.map(take, batch), mesh, BATCH)


def join_parts(parts, mesh: Mesh | None = None):
    """All parts that `take_part` takes, [count, B / count, ...], in the batch's order: [B, ...]."""

    def join(x):
        x = constrain(x, mesh, None, BATCH)
        return x.swapaxes(0, 1).reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    return constrain(jax.tree.map(join, parts), mesh, BATCH)


def cached_gradient(
    encode: Callable,
    loss: Callable,
    params: dict,
    batch: dict[str, jax.Array],
    *,
    count: int,
    mesh: Mesh | None = None,
):
    """The gradient of `loss(params, features of the whole batch)`, from `count` micro-batches.

    Args:
      encode: (params, micro-batch, its index) -> features, a tree of arrays [B / count, ...], of
        which what is not of a floating type (a mask) has no gradient. Called twice for each:
        whatever is random in it is to depend on the index alone.
      loss: (params, features [B, ...]) -> (float32 [], anything).
      params: parameters. Gradients are summed in float32 and have their dtypes.
      batch: arrays [B, ...].
      count: of micro-batches, a divisor of B.
      mesh: the devices that share `batch`; none for a single one.

    Returns:
      The gradient, and what `loss` returned second.
    """
    indices = jnp.arange(count)

    def encode_part(params, index):
        return encode(params, take_part(batch, index, count, mesh), index)

    features = jax.lax.map(lambda index: encode_part(params, index), indices)
    floating, rest = _by_kind(join_parts(features, mesh))

    def joint(params, floating):
        return loss(params, _merged(floating, rest))

    slopes = jax.grad(joint, argnums=(0, 1), has_aux=True)
    (direct, by_feature), aux = slopes(params, floating)

    def pull_back(part, slopes, index):
        _, pull = jax.vjp(lambda params: _by_kind(encode(params, part, index))[0], params)
        return pull(slopes)[0]

    def add(total, index):
        parts = (take_part(x, index, count, mesh) for x in (batch, by_feature))
        grads = by_shares(functools.partial(pull_back, index=index), *parts, mesh=mesh)
        total = jax.tree.map(lambda x, grad: x + grad.astype(x.dtype), total, grads)
        return constrain_shares(total, params, mesh), None

    shares = share_count(mesh)
    start = jax.tree.map(lambda x: jnp.zeros((shares, *x.shape), jnp.float32), params)
    total, _ = jax.lax.scan(add, constrain_shares(start, params, mesh), indices)
    return jax.tree.map(
        lambda x, grad, param: (x.sum(0) + grad.astype(jnp.float32)).astype(param.dtype),
        total,
        direct,
        params,
    ), aux


def share_count(mesh: Mesh | None) -> int:
    """How many sums of a gradient there are while micro-batches run: the size of `DATA`."""
    return mesh.shape[DATA] if mesh else 1


def by_shares(pull_back: Callable, part, slopes, *, mesh: Mesh | None):
    """The gradients [S, ...] of the S shares of a micro-batch, summed over no two of them.

    Args:
      pull_back: (examples, slopes of their features) -> gradient.
      part: arrays [B / count, ...].
      slopes: arrays [B / count, ...].
      mesh: see `cached_gradient`.
    """
    shares = share_count(mesh)
    if shares == 1:
        return jax.tree.map(lambda grad: grad[None], pull_back(part, slopes))

    def cut(x):
        # A device holds neighbouring rows: nothing moves.
        rows = x.reshape(shares, x.shape[0] // shares, *x.shape[1:])
        return constrain(rows, mesh, DATA, FSDP)

    def of_share(part, slopes, number):
        with within(Share(number, shares)):
            return pull_back(part, slopes)

    parts, slopes = (jax.tree.map(cut, x) for x in (part, slopes))
    return jax.vmap(of_share, spmd_axis_name=DATA)(parts, slopes, jnp.arange(shares))


def _by_kind(tree):
    """Arrays of floating types, and the others: twice the tree, None where it is the other's."""

    def is_floating(x):
        return jnp.issubdtype(x.dtype, jnp.floating)

    floating = jax.tree.map(lambda x: x if is_floating(x) else None, tree)
    return floating, jax.tree.map(lambda x: None if is_floating(x) else x, tree)


def _merged(floating, rest):
    """What `_by_kind` took apart."""
    return jax.tree.map(
        lambda x, y: y if x is None else x, floating, rest, is_leaf=lambda x: x is None
    )
