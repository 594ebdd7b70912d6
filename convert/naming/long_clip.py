"""Long-CLIP's two tables of text positions as the one that the model here has.

Zhang et al., "Long-CLIP: Unlocking the Long-Text Capability of CLIP", 2024. Its files have OpenAI's
names and a second table of 248 positions: the first positions, which training left as they were,
are taken from the first table, the others from the second.
"""

from collections.abc import Mapping

import numpy as np

from glscl_jax.errors import UserError

FIRST, SECOND = "positional_embedding", "positional_embedding_res"
# Positions of the first table that count.
KEPT = 20


def is_long(names) -> bool:
    """Whether a state dict with these names has a second table."""
    return SECOND in names


def merge(tensors: Mapping[str, np.ndarray], source: str) -> Mapping[str, np.ndarray]:
    """The tensors with one table, where there are two.

    Raises:
      UserError: the two do not fit together.
    """
    if not is_long(tensors):
        return tensors
    shapes = {np.shape(tensors.get(name, ())) for name in (FIRST, SECOND)}
    if len(shapes) > 1 or len(shapes.pop()) != 2:
        raise UserError(f"{source}: {FIRST} and {SECOND} are not of one shape, as Long-CLIP's are")
    first, second = (np.asarray(tensors[name]) for name in (FIRST, SECOND))
    others = {name: tensor for name, tensor in tensors.items() if name != SECOND}
    return others | {FIRST: np.concatenate([first[:KEPT], second[KEPT:]])}
