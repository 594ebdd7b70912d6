"""Global Interaction Module: a video pooled anew for every sentence, without parameters.

`p_ab = sum_v w_abv f_bv` with `w = softmax_v(<c_a, f_bv> / temperature)`, and the score is
`cos(c_a, p_ab)`. (Zhang et al., 2024, section 3.2.)
"""

import functools

import jax
import jax.numpy as jnp

# Half-precision features are multiplied as they are, and their products summed in float32. The
# accelerators would round float32 ones to bfloat16 or TF32 first: HIGHEST forbids that.
einsum = functools.partial(
    jnp.einsum, preferred_element_type=jnp.float32, precision=jax.lax.Precision.HIGHEST
)


def frame_weights(logits: jax.Array, mask: jax.Array, temperature: float) -> jax.Array:
    """How much each sentence looks at each frame.

    The mask is applied after the softmax and the rest is not renormalised, as in the
    reference: padded frames still take part in the denominator. The cosine cancels the scale.

    Args:
      logits: float32 [A,B,V], the inner products <c_a, f_bv>.
      mask: [B,V], 1 on real frames.
      temperature: divides the logits; 3 in the paper.

    Returns:
      float32 [A,B,V].
    """
    return jax.nn.softmax(logits / temperature, axis=-1) * mask.astype(jnp.float32)


def gram_matrices(frames: jax.Array) -> jax.Array:
    """Inner products of each video's frames: [B,V,D] -> float32 [B,V,V]."""
    return einsum("BVD,BWD->BVW", frames, frames)


def gim_similarity(
    sentence: jax.Array,
    frames: jax.Array,
    mask: jax.Array,
    temperature: float,
    gram: jax.Array | None = None,
) -> jax.Array:
    """cos(c_a, p_ab) for all pairs, never holding p [A,B,D].

    With the Gram matrices G_b = f_b f_b^T, <c_a, p_ab> = w.s and |p_ab|^2 = w^T G_b w, so the
    largest temporary is [B,V,A]. In that order no product needs a transposed copy, and the
    softmax runs along contiguous texts.

    Args:
      sentence: [A,D] features c, of any floating type.
      frames: [B,V,D] features f, of any floating type.
      mask: [B,V], 1 on real frames, at least one a video.
      temperature: see `frame_weights`.
      gram: `gram_matrices(frames)`, if already there.

    Returns:
      float32 [A,B].
    """
    gram = gram_matrices(frames) if gram is None else gram
    logits = einsum("BVD,AD->BVA", frames, sentence)
    weights = relative_weights(logits, mask, temperature)
    inner = jnp.sum(weights * logits, axis=1)
    square = jnp.sum(weights * einsum("BVW,BWA->BVA", gram, weights), axis=1)
    length = jnp.linalg.norm(sentence.astype(jnp.float32), axis=-1)
    return (inner / jnp.sqrt(square)).T / length[:, None]


def relative_weights(logits: jax.Array, mask: jax.Array, temperature: float) -> jax.Array:
    """`frame_weights` over the largest of each pair, which the cosine cancels; float32 [B,V,A].

    So the softmax needs no denominator, and a real frame far behind a padded one does not
    underflow.
    """
    seen = jnp.where(mask[:, :, None] > 0, logits, -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(seen, axis=1, keepdims=True))
    return jnp.exp((seen - largest) / temperature)
