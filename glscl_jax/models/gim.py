"""Global Interaction Module: a video pooled anew for every sentence, without parameters.

`p_ab = sum_v w_abv f_bv` with `w = softmax_v(<c_a, f_bv> / temperature)`, and the score is
`cos(c_a, p_ab)`. (Zhang et al., 2024, section 3.2.)
"""

import jax
import jax.numpy as jnp


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


def gim_similarity(
    sentence: jax.Array, frames: jax.Array, mask: jax.Array, temperature: float
) -> jax.Array:
    """cos(c_a, p_ab) for all pairs, never holding p [A,B,D].

    With the Gram matrices G_b = f_b f_b^T, <c_a, p_ab> = w.s and |p_ab|^2 = w^T G_b w, so the
    largest temporary is [A,B,V].

    Args:
      sentence: [A,D] features c.
      frames: [B,V,D] features f.
      mask: [B,V], 1 on real frames, at least one a video.
      temperature: see `frame_weights`.

    Returns:
      float32 [A,B].
    """
    sentence, frames = sentence.astype(jnp.float32), frames.astype(jnp.float32)
    logits = jnp.einsum("AD,BVD->ABV", sentence, frames)
    weights = frame_weights(logits, mask, temperature)
    gram = jnp.einsum("BVD,BWD->BVW", frames, frames)
    inner = jnp.sum(weights * logits, axis=-1)
    length = jnp.sqrt(jnp.sum(jnp.einsum("ABV,BVW->ABW", weights, gram) * weights, axis=-1))
    return inner / (jnp.linalg.norm(sentence, axis=-1)[:, None] * length)
