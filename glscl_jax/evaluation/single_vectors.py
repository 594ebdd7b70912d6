"""Ranking by one vector a text and one a video, beside what the head's own score finds.

It says what an index of vectors would lose, or what figures compare with those of models that have
no more than a vector each.
"""

import numpy as np
from jax.sharding import Mesh

from glscl_jax.errors import UserError
from glscl_jax.figures import DIRECTIONS
from glscl_jax.models.heads.head import Head
from glscl_jax.models.heads.single_vector import SingleVector
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.split_scores import Scored


def head_of(head: Head) -> SingleVector:
    """What scores by a head's single vectors.

    Raises:
      UserError: it has none; those that have are named.
    """
    try:
        return SingleVector(head)
    except ValueError as error:
        raise UserError(f"--single_vector: {error}; leave it out for the exact score") from error


def beside_exact(encoded: EncodedSplit, head: Head, mesh: Mesh, single: Scored) -> dict:
    """What the run card says of single vectors: the exact score's figures, and who agrees.

    Args:
      encoded: the split's features.
      head: whose score is exact.
      mesh: the devices.
      single: the scores by single vectors.

    Returns:
      By direction "exact", the figures of the exact score's mean ranks, and "same_best", in percent
      the queries whose best video (of a video its best caption's video) is the same by both.
    """
    exact = Scored(encoded, head, mesh)
    ranks, tops = exact.retrieval(), [scores.top(1) for scores in (exact, single)]
    found = {}
    for name in DIRECTIONS:
        one, other = (top[name].items[:, 0] for top in tops)
        if name == "v2t":
            one, other = encoded.owner[one], encoded.owner[other]
        found[name] = {
            "exact": metrics.recalls(getattr(ranks, name).mean).as_dict(),
            "same_best": 100.0 * float(np.mean(one == other)),
        }
    return found
