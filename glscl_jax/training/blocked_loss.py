"""The contrastive losses of a batch whose score matrix memory does not hold."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.runtime.sharding import BATCH, batch_shares
from glscl_jax.training.gradient_cache import join_parts


def block_count(batch: int, block: int, mesh: Mesh | None = None) -> int:
    """The fewest blocks of at most `block` texts that `batch` and its devices divide into.

    Where the devices do not allow blocks so small, there is one text a device in a block.
    """
    per_device = batch // batch_shares(mesh)
    counts = (count for count in range(1, per_device) if per_device % count == 0)
    return next((count for count in counts if batch // count <= block), per_device)


def blocked_contrastive(
    text: Features,
    video: Features,
    logit_scale: jax.Array,
    *,
    score: Callable[[Features, Features], jax.Array],
    blocks: int,
    mesh: Mesh | None = None,
) -> jax.Array:
    """`losses.contrastive` of `score(text, video)`, a block of texts at a time.

    The backward pass computes each block again. What is held of all pairs at once is neither
    [B,B,V] nor [B,B], only [B / blocks, B, V]; a row's sum of exponentials is complete in its
    block, those of the columns are carried from block to block as logarithms.

    Args:
      text: a head's features of B texts.
      video: of B videos, the b-th belonging to the b-th text.
      logit_scale: [], a logarithm.
      score: features of A texts and B videos -> float32 [A,B].
      blocks: how many, a divisor of B.
      mesh: the devices that share the batch; none for a single one.
    """
    shares = batch_shares(mesh)
    gather = _gathered if shares > 1 else lambda x: x
    sums = functools.partial(_device_sums, score=score, blocks=blocks, gather=gather)
    if shares > 1:
        each = PartitionSpec(BATCH)
        sums = jax.shard_map(sums, mesh=mesh, in_specs=each, out_specs=each)
    # Each device has its own copy of the scale, or its gradient would be summed at each block.
    scale = jnp.broadcast_to(logit_scale, shares)
    columns, rows, right = sums(text, video, jnp.arange(count_of(text)), scale)
    # Of each text, what all devices found among their own videos.
    if shares > 1:
        rows = jax.nn.logsumexp(rows + right, axis=0) - jnp.sum(right, axis=0)
    right = jnp.sum(right, axis=0)
    return (jnp.mean(rows) + jnp.mean(columns - right)) / 2


def blocked_sigmoid(
    text: Features,
    video: Features,
    logit_scale: jax.Array,
    logit_bias: jax.Array,
    *,
    score: Callable[[Features, Features], jax.Array],
    blocks: int,
    mesh: Mesh | None = None,
) -> jax.Array:
    """`losses.sigmoid_contrastive` of `score(text, video)`, a block of texts at a time.

    Arguments are `blocked_contrastive`'s, and logit_bias [].
    """
    shares = batch_shares(mesh)
    gather = _gathered if shares > 1 else lambda x: x

    def device_sum(text, video, own, scale, bias):
        @functools.partial(jax.checkpoint, prevent_cse=False)
        def add(total, block):
            part, numbers = block
            logits = score(part, video) * jnp.exp(scale[0]) + bias[0]
            right = jnp.where(numbers[:, None] == own, logits, 0.0)
            return total + jnp.sum(jax.nn.softplus(logits)) - jnp.sum(right), None

        start = 0.0 * own[0]  # which differs from device to device as what follows does
        total, _ = jax.lax.scan(add, start, _in_blocks(text, blocks, gather))
        return total[None]

    if shares > 1:
        each = PartitionSpec(BATCH)
        device_sum = jax.shard_map(device_sum, mesh=mesh, in_specs=each, out_specs=each)
    numbers = jnp.arange(count_of(text))
    scale, bias = (jnp.broadcast_to(x, shares) for x in (logit_scale, logit_bias))
    return jnp.sum(device_sum(text, video, numbers, scale, bias)) / count_of(text)


def _device_sums(text, video, own, logit_scale, *, score, blocks, gather):
    """What one device finds for its own pairs' videos and all texts.

    Every device scores a block's texts against its own videos. The other way round, the gradient
    of all videos would be summed over the devices at each block. Texts are gathered once, before
    the loop, and their gradient is summed once, behind it: in the loop nothing is sent.

    Args:
      text, video: features of its own pairs, b of them.
      own: int32 [b], their numbers among all B.
      logit_scale: [1], a logarithm.
      score, blocks: see `blocked_contrastive`.
      gather: arrays of its own pairs -> of all of them, in order.

    Returns:
      float32 [b] the logarithm of each video's sum over all texts; float32 [1,B] that of each
      text's sum over these videos less its right video's logit; and [1,B] that logit, which is 0
      of a text whose video is not here.
    """

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(columns, block):
        part, numbers = block
        logits = score(part, video) * jnp.exp(logit_scale[0])
        right = jnp.sum(jnp.where(numbers[:, None] == own, logits, 0.0), axis=1)
        rows = jax.nn.logsumexp(logits, axis=1) - right
        columns = jnp.logaddexp(columns, jax.nn.logsumexp(logits, axis=0))
        return columns, (rows, right)

    # Of `own`, so that it differs from device to device as what follows does.
    start = jnp.full_like(own, -jnp.inf, jnp.float32)
    columns, parts = jax.lax.scan(add, start, _in_blocks(text, blocks, gather))
    rows, right = jax.tree.map(lambda x: join_parts(x)[None], parts)
    return columns, rows, right


def _in_blocks(text: Features, blocks: int, gather: Callable) -> tuple[Features, jax.Array]:
    """All devices' texts, and int32 [B] their numbers, each cut into `blocks` of a new first axis.

    These are all parts that `take_part` takes, the inverse of `join_parts`.
    """

    def cut(x):
        # In numbers, not by -1: features may have an axis of none, a head without queries.
        return x.reshape(x.shape[0] // blocks, blocks, *x.shape[1:]).swapaxes(0, 1)

    texts = jax.tree.map(gather, text)
    return jax.tree.map(cut, (texts, jnp.arange(count_of(texts))))


def _gathered(x: jax.Array) -> jax.Array:
    """All devices' rows; the gradient of each is summed over them in float32."""
    wide = x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.lax.all_gather(wide, BATCH, tiled=True).astype(x.dtype)
