"""cuDNN's fused attention against the formula, at the sizes that the towers have.

Its backward pass has had faults with masks (jax's issues 28974, 30593, 32430): before anything is
trained with it, values and gradients are compared on the device itself.
"""

import jax
import jax.numpy as jnp

from glscl_jax.models.encoders.attention import AttentionMask, fused, plain

BATCH, HEADS, HEAD = 4, 8, 64
# Tokens and what is seen of them: the vision towers', filled up or not; a text's; a clip's frames.
CASES = {
    "B/32's 50 tokens, as they are": (50, None, False),
    "B/32's 50 tokens in 56": (56, 50, False),
    "B/16's 197 tokens, as they are": (197, None, False),
    "B/16's 197 tokens in 200": (200, 197, False),
    "L/14's 257 tokens in 264": (264, 257, False),
    "texts of up to 32 tokens": (32, "texts", True),
    "clips of up to 12 frames": (12, "texts", False),
}


def lines() -> list[str]:
    """A line for each case: the largest differences, relative to the largest value."""
    return [f"{name:<34}{compare(*case)}" for name, case in CASES.items()]


def compare(tokens: int, real: int | str | None, causal: bool) -> str:
    mask = None
    if real is not None:
        lengths = jnp.array([tokens, 1, tokens // 2, tokens - 1]) if real == "texts" else real
        mask = jnp.broadcast_to(
            jnp.arange(tokens) < jnp.reshape(lengths, (-1, 1)), (BATCH, tokens)
        ).astype(jnp.int32)
    seen = AttentionMask(mask, causal=causal)
    shape = (BATCH, tokens, HEADS, HEAD)
    *inputs, weight = (
        jax.random.normal(key, shape, jnp.bfloat16)
        for key in jax.random.split(jax.random.key(0), 4)
    )
    # What nobody reads of padded places has no gradient in a tower, either.
    if real not in (None, "texts"):
        weight = weight * mask[:, :, None, None].astype(jnp.bfloat16)

    def outcome(attend, dtype):
        def loss(*inputs):
            mixed = attend(*inputs)
            return (mixed * weight.astype(dtype)).sum(dtype=jnp.float32), mixed

        cast = [x.astype(dtype) for x in inputs]
        try:
            (_, mixed), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(*cast)
        except (NotImplementedError, ValueError, jax.errors.JaxRuntimeError) as error:
            return str(error).splitlines()[0]
        return mixed * (1 if mask is None or real == "texts" else mask[:, :, None, None]), grads

    exact = outcome(lambda q, k, v: plain(q, k, v, seen), jnp.float32)
    found = outcome(lambda q, k, v: fused(q, k, v, seen), jnp.bfloat16)
    if isinstance(found, str):
        return f"refused: {found}"
    names = ("values", "by query", "by key", "by value")
    differences = map(_relative, (found[0], *found[1]), (exact[0], *exact[1]))
    return ", ".join(f"{name} {x:.1e}" for name, x in zip(names, differences, strict=True))


def _relative(found, exact) -> float:
    return float(jnp.abs(found.astype(jnp.float32) - exact).max() / jnp.abs(exact).max())
