"""The contrastive loss of a batch whose score matrix memory does not hold."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.runtime.sharding import BATCH, batch_shares, constrain
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
    count = count_of(text)

    def cut(x):
        """All parts that `take_part` takes, the inverse of `join_parts`."""
        # In numbers, not by -1: features may have an axis of none, a head without queries.
        return x.reshape(x.shape[0] // blocks, blocks, *x.shape[1:]).swapaxes(0, 1)

    # Every device scores a block's texts against its own videos. The other way round, the gradient
    # of all videos would be summed over the devices at each block. Texts are gathered once, before
    # the loop: a block at a time they would be so forward and backward, their gradient summed at
    # each, and nothing of it done while anything is computed.
    texts = constrain(jax.tree.map(cut, (text, jnp.arange(count))), mesh)
    video = constrain(video, mesh, BATCH)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add(columns, block):
        part, own = block
        logits = constrain(score(part, video) * jnp.exp(logit_scale), mesh, None, BATCH)
        is_right = own[:, None] == jnp.arange(count)
        right = jnp.sum(jnp.where(is_right, logits, 0.0), axis=1)
        rows = jax.nn.logsumexp(logits, axis=1) - right
        columns = jnp.logaddexp(columns, jax.nn.logsumexp(logits, axis=0))
        return columns, (rows, right)

    start = jnp.full(count, -jnp.inf)
    columns, parts = jax.lax.scan(add, start, texts)
    rows, right = join_parts(parts, mesh)
    return (jnp.mean(rows) + jnp.mean(columns - right)) / 2
