"""Whether a GLSCL's second queries and second decoder are in use, told from traces of training.

The released code saves both whether or not it uses them. What is not used has no gradient and is
never updated: it stays as it was drawn.
"""

from collections.abc import Mapping

import ml_dtypes
import numpy as np

from glscl_jax.errors import UserError


def infer(
    tensors: Mapping[str, np.ndarray], given: Mapping[str, object], source: str
) -> dict[str, bool]:
    """`share_queries` and `share_decoder` of a state dict.

    Args:
      tensors: by the released code's names.
      given: what is known of the two; it is not asked of the tensors then.
      source: what to call the state dict in a message.

    Raises:
      UserError: the tensors do not tell.
    """
    answers = {"share_queries": _queries_are_trained, "share_decoder": _decoder_is_trained}
    trained = {name: ask(tensors) for name, ask in answers.items() if name not in given}
    if unknown := [name for name, answer in trained.items() if answer is None]:
        flags = " and ".join(f"--{name} or --no{name}" for name in unknown)
        raise UserError(
            f"{source} does not tell whether all of its LIM is in use, as half precision or a "
            f"single layer hides whether it was trained: give {flags}"
        )
    return {name: given[name] if name in given else not trained[name] for name in answers}


def _queries_are_trained(tensors: Mapping[str, np.ndarray]) -> bool | None:
    """Whether the texts' own queries have moved since they were drawn; None if unknown.

    PyTorch draws them as whole multiples of 2^-24 in [0, 1); a single update leaves that grid.
    Numbers of half precision are on it in any case.
    """
    if "noun_queries" not in tensors:
        return False
    queries = np.asarray(tensors["noun_queries"]).astype(np.float64)
    steps = queries * 2**24
    if not np.array_equal(steps, np.round(steps)) or queries.min() < 0 or queries.max() > 1:
        return True
    return None if _is_half(queries) else False


def _decoder_is_trained(tensors: Mapping[str, np.ndarray]) -> bool | None:
    """Whether the videos' own decoder has; None if unknown.

    Its layers start as copies of one that is saved, too.
    """
    name = "transformer_decoder_spatial.layers.{}.linear1.weight"
    first, second = (tensors.get(name.format(layer)) for layer in (0, 1))
    if first is None:
        return False
    start = tensors.get("decoder_layer_spatial.linear1.weight")
    others = [other for other in (second, start) if other is not None]
    if not all(np.array_equal(first, other) for other in others):
        return True
    return None if not others or _is_half(np.asarray(first)) else False


def _is_half(values: np.ndarray) -> bool:
    """Whether the values have been rounded to half precision, in which they may be no longer."""
    if values.min() == values.max():
        # One number all over was never drawn.
        return False
    with np.errstate(over="ignore"):
        return any(
            np.array_equal(values, values.astype(half).astype(values.dtype))
            for half in (np.float16, ml_dtypes.bfloat16)
        )
