"""Whether the concepts that a LIM reads differ, or are one vector K times."""

import numpy as np

# Concepts with a mean cosine above this are called alike. Of K unit vectors that share one
# direction and are otherwise orthogonal, 0.9 leaves an effective number of 1.2 of 8.
ALIKE = 0.9
# Items at a time: all in float32 would be gigabytes of a large split.
_BLOCK = 1024


def concept_figures(queries: np.ndarray) -> tuple[float, float]:
    """How alike an item's concepts are, and how many there are in effect; means over the items.

    The first is the cosine of two different concepts of an item, over all such pairs. The second is
    the participation ratio of the concepts' Gram matrix G [K,K], `tr(G)^2 / tr(G^2)`, which is
    `K^2 / sum_ij <q_i, q_j>^2`: K of orthogonal concepts, 1 where all are one vector.

    Args:
      queries: [n,K,D] unit vectors, K of 2 or more.
    """
    items, count, _ = queries.shape
    cosine = effective = 0.0
    for start in range(0, items, _BLOCK):
        part = np.asarray(queries[start : start + _BLOCK], np.float32)
        gram = np.einsum("nID,nJD->nIJ", part, part).astype(np.float64)
        own = np.einsum("nII->n", gram)
        cosine += float(np.sum((gram.sum(axis=(1, 2)) - own) / (count * (count - 1))))
        effective += float(np.sum(own**2 / np.square(gram).sum(axis=(1, 2))))
    return cosine / items, effective / items
