"""Parameters to start training from: what a checkpoint has, and how the rest begins."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from glscl_jax.errors import UserError
from glscl_jax.models.glscl import GLSCLConfig

_BIAS = "logit_bias"


def start_params(fresh: dict, loaded: dict, config: GLSCLConfig) -> dict:
    """A GLSCL's parameters out of a checkpoint of a whole one or of CLIP alone.

    A part that the checkpoint has (`clip`, `temporal`, `lim`) is taken as it is. A temporal
    transformer that it lacks starts from CLIP's text tower, as in the reference: its blocks from
    the first of the tower's, its positions from the tower's; but of a tower of another width than
    the frames', or of another make, it can have nothing. Anything else that it lacks starts fresh,
    a logit's bias among it. Pure: NumPy or JAX arrays, under `jit` or not.

    Args:
      fresh: nested dicts, as `models.glscl.init_params` draws them.
      loaded: of a checkpoint, in any floating type.
      config: of the model to train.

    Returns:
      Nested dicts with the paths, shapes and dtypes of `fresh`.

    Raises:
      UserError: naming all paths that are missing in the checkpoint, unexpected or misshaped.
    """
    if "clip" not in loaded:
        raise UserError("the checkpoint to start from has no CLIP")
    given = dict(loaded)
    begins = config.temporal == "seqTransf" and config.clip.begins_temporal
    if "temporal" not in loaded and begins:
        given["temporal"] = _from_text_tower(loaded["clip"]["text"], config.temporal_layers)
    if _BIAS in fresh["clip"] and _BIAS not in loaded["clip"]:
        # That of another loss.
        given["clip"] = {**loaded["clip"], _BIAS: fresh["clip"][_BIAS]}
    expected = {part: fresh[part] for part in fresh if part in given}
    _check(given, expected)
    begun = jax.tree.map(lambda new, old: jnp.asarray(new).astype(old.dtype), given, expected)
    return {**fresh, **begun}


def _from_text_tower(text: dict, layers: int) -> dict:
    blocks = jax.tree.map(lambda array: array[:layers], text["transformer"]["blocks"])
    return {
        "positional_embedding": text["positional_embedding"],
        "transformer": {"blocks": blocks},
    }


def _flat(tree: dict) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _check(given: dict, expected: dict) -> None:
    given, expected = (
        {path: leaf.shape for path, leaf in _flat(tree).items()} for tree in (given, expected)
    )
    lines = [f"missing: {path}" for path in sorted(expected.keys() - given.keys())]
    lines += [f"unexpected: {path}" for path in sorted(given.keys() - expected.keys())]
    lines += [
        f"misshaped: {path} is {list(shape)}, the model's is {list(expected[path])}"
        for path, shape in sorted(given.items())
        if path in expected and expected[path] != shape
    ]
    if lines:
        raise UserError(
            f"the checkpoint to start from does not fit config.model, in {len(lines)} places\n  "
            + "\n  ".join(lines)
        )
