"""Scaled dot-product attention: plain, or by one fused kernel that never holds all weights."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax import lax, nn

from glscl_jax import target

# Added to a hidden key's logit: exp() of it is exactly 0 in float32 and bfloat16.
HIDDEN = -1e9

# "auto" is "fused" where that was faster, and "plain" everywhere else.
KINDS = ("auto", "plain", "fused")
# cuDNN's kernel computes in these types alone.
HALF = ("bfloat16", "float16")
# Tokens are filled up to a multiple of it: the kernel's backward pass refuses an odd number, and
# products in half precision want it.
FUSED_MULTIPLE = 8
# On an H100 a step of B/16, of 197 tokens, takes 0.58 s with it and 0.82 without; one of B/32,
# of 50, takes 0.185 and 0.165 (docs/performance.md). Between them nothing was measured.
FUSED_FROM = 128


@flax.struct.dataclass
class AttentionMask:
    """Which keys a query sees.

    Attributes:
      mask: int32 [B,M], 1 on keys that are there, which come first; None where all are.
      causal: whether a query sees no key behind its own place.
      hidden: what is added to the logit of a key that is not seen.
      groups: so many sequences of the same length stand one behind the other, and each sees itself
        alone.
    """

    mask: jax.Array | None = None
    causal: bool = flax.struct.field(pytree_node=False, default=False)
    hidden: float = flax.struct.field(pytree_node=False, default=HIDDEN)
    groups: int = flax.struct.field(pytree_node=False, default=1)

    def bias(self, queries: int) -> jax.Array | None:
        """What is added to logits, broadcasting to [B,H,Q,M]; None for nothing."""
        seen = None if self.mask is None else self.mask[:, None, None, :] > 0
        if self.causal:
            before = jnp.tril(jnp.ones((queries, queries), bool))
            seen = before if seen is None else before & seen
        if self.groups > 1:
            group = jnp.arange(queries) // (queries // self.groups)
            own = group[:, None] == group
            seen = own if seen is None else own & seen
        return None if seen is None else jnp.where(seen, 0.0, self.hidden)

    @property
    def lengths(self) -> jax.Array | None:
        """int32 [B], how many keys are there."""
        return None if self.mask is None else self.mask.sum(-1, dtype=jnp.int32)


ALL = AttentionMask()


def is_fused(kind: str, dtype: jnp.dtype, tokens: int) -> bool:
    """Whether `fused` is to be taken for so many tokens, by a name of `KINDS`.

    It is right everywhere (jax.nn.dot_product_attention's reference implementation stands in for
    the kernel), but only a GPU has the kernel, for half precision, and only many tokens gain.
    """
    if kind != "auto":
        return kind == "fused"
    return target.platform() == "gpu" and dtype.name in HALF and tokens >= FUSED_FROM


def plain(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    seen: AttentionMask,
    drop: Callable = lambda x: x,
    cap: float | None = None,
) -> jax.Array:
    """query [B,Q,H,D/H], key and value [B,M,H,D/H] -> [B,Q,H,D/H]; `drop` is the weights' dropout.

    Softmax in float32, the products in the arrays' own type. With `cap` no logit is larger than
    it: `cap tanh(logit / cap)`, before what is not seen is hidden.
    """
    logits = jnp.einsum("BQHD,BMHD->BHQM", query * query.shape[-1] ** -0.5, key)
    logits = logits.astype(jnp.float32)
    if cap is not None:
        logits = cap * jnp.tanh(logits / cap)
    if (bias := seen.bias(query.shape[1])) is not None:
        logits = logits + bias
    weights = drop(nn.softmax(logits, axis=-1).astype(query.dtype))
    return jnp.einsum("BHQM,BMHD->BQHD", weights, value)


def is_filled(dtype: jnp.dtype) -> bool:
    """Whether `filled` is to stand in for `plain`: on a GPU, in half precision."""
    return target.platform() == "gpu" and dtype.name in HALF


def filled(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    seen: AttentionMask,
    cap: float | None = None,
) -> jax.Array:
    """As `plain`, without dropout, with the operands as a GPU's products want them.

    Those take heads in front, and numbers of tokens that are multiples of 8. XLA fills up and
    transposes by itself, but each operand of each product anew, some in two ways: here it is done
    once, in one go, and the barriers hold XLA to it.
    """
    queries, keys = query.shape[1], key.shape[1]
    scale = query.shape[-1] ** -0.5
    query, key, value = map(_heads_first, (query, key, value))
    logits = jnp.einsum("BHQD,BHMD->BHQM", query, key).astype(jnp.float32) * scale
    if cap is not None:
        logits = cap * jnp.tanh(logits / cap)
    bias = seen.bias(queries)
    if bias is None:
        bias = jnp.zeros((1, keys))
    # What was filled up is no key; what such queries make is cut off.
    logits = logits + _fill(_fill(bias, -1, seen.hidden), -2, 0.0)
    weights = nn.softmax(logits, axis=-1).astype(query.dtype)
    mixed = lax.optimization_barrier(jnp.einsum("BHQM,BHMD->BHQD", weights, value))
    return jnp.swapaxes(mixed, 1, 2)[:, :queries]


def _heads_first(x: jax.Array) -> jax.Array:
    """[B,T,H,D/H] -> [B,H,T,D/H] with T filled up."""
    return lax.optimization_barrier(jnp.swapaxes(_fill(x, 1, 0.0), 1, 2))


def _fill(x: jax.Array, axis: int, value: float) -> jax.Array:
    """Up to a multiple of `FUSED_MULTIPLE`; an axis of 1 is for all."""
    missing = -x.shape[axis] % FUSED_MULTIPLE
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, missing if x.shape[axis] > 1 else 0)
    return jnp.pad(x, widths, constant_values=value)


def fused(query: jax.Array, key: jax.Array, value: jax.Array, seen: AttentionMask) -> jax.Array:
    """As `plain`, but the weights [B,H,Q,M] are never held, and there is no dropout.

    Dao et al., "FlashAttention", 2022: on a GPU by cuDNN. Hidden keys are told by their number,
    not by a bias, whose gradient that kernel has only for a batch of one.
    """
    on_gpu = target.platform() == "gpu" and query.dtype.name in HALF
    all_queries = keys = seen.lengths
    if keys is not None:
        # Under jax.vmap the kernel takes lengths for each row that is mapped over, or fails: these
        # zeros are mapped where the queries are.
        rows = 0 * query[:, 0, 0, 0].astype(jnp.int32)
        all_queries, keys = rows + query.shape[1], rows + keys
    return nn.dot_product_attention(
        query,
        key,
        value,
        is_causal=seen.causal,
        query_seq_lengths=all_queries,
        key_value_seq_lengths=keys,
        implementation="cudnn" if on_gpu else "xla",
    )


def pad_tokens(tokens: jax.Array) -> tuple[jax.Array, AttentionMask]:
    """Tokens [B,L,D] and zeros behind them, up to a length `fused` takes; what is seen then."""
    count, length = tokens.shape[:2]
    missing = -length % FUSED_MULTIPLE
    if not missing:
        return tokens, ALL
    there = jnp.arange(length + missing) < length
    mask = jnp.broadcast_to(there.astype(jnp.int32), (count, length + missing))
    return jnp.pad(tokens, ((0, 0), (0, missing), (0, 0))), AttentionMask(mask)
