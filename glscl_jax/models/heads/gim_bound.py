"""What the GIM's score cannot be above, from lengths that are found once a video.

The GIM is `<c, p> / (|c| |p|)` with p a convex combination of the real frames, `p = sum_v w_v f_v`.
Let x be the point of their convex hull that is nearest to the origin, and m = |x|. For every point
p of the hull `<x, p> >= m^2`, so with the heights `h_v = <x, f_v> / m`, which are all at least m,

    |p| >= <x, p> / m = sum_v w_v h_v >= m,    and    |p| <= max_v |f_v|.

And along one frame, of whose direction every frame has at least `e_v`:

    |p| >= <f_v, p> / |f_v| >= w_v |f_v| + (1 - w_v) e_v,    e_v = min_u <f_u, f_v> / |f_v|.

The second is close where a sentence looks at one frame alone, the first where it looks at many.
So with `l_v = <c, f_v>` and `L = sum_v w_v l_v` the score is at most L divided by |c| and the
larger of these lengths where L is positive, and by |c| and the longest frame where it is not; and
no cosine is above 1. That is never looser than what the largest inner product alone gives, divided
by |c|: `max(s,0)/m + min(s,0)/M` with `s = max_v l_v` and M the longest frame, as `L <= s`.
docs/search.md has it at length.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.models.heads import gim

# By how much rounding in float32 may move a score, or a bound.
_SLACK = 2e-5
# Of the longest frame's length: a hull that is nearer to the origin gives no heights.
_NEAR = 1e-4


def nearest_point(gram: np.ndarray) -> np.ndarray:
    """The point of a convex hull that is nearest to the origin, as weights of the hull's points.

    Wolfe's algorithm ("Finding the nearest point in a polytope", 1976), which needs inner products
    alone and ends after finitely many steps, exactly up to rounding.

    Args:
      gram: float64 [V,V], inner products of the points.

    Returns:
      float64 [V], 0 or more, of sum 1.
    """
    count, scale = len(gram), float(np.max(np.diag(gram)))
    weights = np.zeros(count)
    first = int(np.argmin(np.diag(gram)))
    weights[first], active = 1.0, [first]
    # Every step changes the set of active points, of which none comes back.
    for _ in range(20 * count + 20):
        products = gram @ weights
        entering = int(np.argmin(products))
        if products[entering] >= weights @ products - 1e-12 * scale or entering in active:
            break
        active.append(entering)
        while True:
            affine = _nearest_of_plane(gram[np.ix_(active, active)])
            if np.all(affine > 1e-12):
                weights[:] = 0
                weights[active] = affine
                break
            # As far towards it as the hull goes; a point whose weight ends at 0 is active no more.
            old = weights[active]
            leaving = affine <= 1e-12
            step = float(np.min(old[leaving] / np.maximum(old[leaving] - affine[leaving], 1e-300)))
            moved = old + min(step, 1.0) * (affine - old)
            moved[leaving & (moved <= 1e-12)] = 0
            weights[:] = 0
            weights[active] = np.maximum(moved, 0)
            kept = [place for place, weight in zip(active, moved, strict=True) if weight > 0]
            if len(kept) == len(active):
                kept.remove(active[int(np.argmin(moved))])
            active = kept
    return weights / weights.sum()


def _nearest_of_plane(gram: np.ndarray) -> np.ndarray:
    """Weights of sum 1, of any sign, of the point of an affine hull that is nearest to 0."""
    count = len(gram)
    system = np.zeros((count + 1, count + 1))
    system[:count, :count], system[:count, count], system[count, :count] = gram, 1, 1
    right = np.zeros(count + 1)
    right[count] = 1
    return np.linalg.lstsq(system, right, rcond=None)[0][:count]


def outline(frames: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """What `bound` needs of B videos.

    Whatever point x of the hull the solver finds, `|p| >= <x, p> / |x|`: the heights are right for
    any x, and the better the nearer it is to the nearest one.

    Args:
      frames: [B,V,D].
      mask: [B,V], 1 on real frames.

    Returns:
      heights: float32 [B,V], h of real frames; all 0 where x is too near to the origin.
      lengths: float32 [B,V], of real frames.
      least: float32 [B,V], e of real frames.
    """
    heights, lengths, least = (np.zeros(mask.shape, np.float32) for _ in range(3))
    for number, real in enumerate(np.asarray(mask) > 0):
        vectors = np.asarray(frames[number][real], np.float64)
        gram = vectors @ vectors.T
        long = np.sqrt(np.diag(gram))
        lengths[number, real] = long
        least[number, real] = gram.min(axis=1) / np.maximum(long, np.finfo(np.float64).tiny)
        weights = nearest_point(gram)
        products = gram @ weights
        length = np.sqrt(max(weights @ products, 0.0))
        if length > _NEAR * long.max() and products.min() > 0:
            heights[number, real] = products / length
    return {"heights": heights, "lengths": lengths, "least": least}


def bound(
    sentence: jax.Array, frames: jax.Array, mask: jax.Array, temperature: float, outline: Mapping
) -> jax.Array:
    """At least `gim.gim_similarity` of all pairs: float32 [A,B].

    Args:
      sentence, frames, mask, temperature: as of `gim.gim_similarity`.
      outline: what `outline` returned.
    """
    logits = gim.einsum("BVD,AD->BVA", frames, sentence)
    weights = gim.relative_weights(logits, mask, temperature)
    weights /= jnp.sum(weights, axis=1, keepdims=True)
    inner = jnp.sum(weights * logits, axis=1)
    heights, lengths, least = (outline[x][:, :, None] for x in ("heights", "lengths", "least"))
    along_one = jnp.max(weights * lengths + (1 - weights) * least, axis=1)
    shortest = jnp.maximum(jnp.sum(weights * heights, axis=1), along_one)
    above = jnp.where(shortest > 0, inner / jnp.where(shortest > 0, shortest, 1), jnp.inf)
    below = inner / jnp.max(lengths, axis=1)
    length = jnp.linalg.norm(sentence.astype(jnp.float32), axis=-1)
    found = jnp.where(inner > 0, above, below) / length
    return jnp.minimum(found + _SLACK, 1 + _SLACK).T
