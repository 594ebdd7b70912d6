"""What an index is of: the checkpoint that encoded it, and how videos were cut and read."""

import json
import os
from typing import Any

from glscl_jax.checkpoints.model_dir import parameters_sha256
from glscl_jax.errors import UserError
from glscl_jax.files import differences
from glscl_jax.models.glscl import config_of, model_settings
from glscl_jax.retriever import Retriever, load


def of_model(model: Retriever) -> dict[str, Any]:
    """What features and scores depend on of a checkpoint, as JSON: parameters, head, pixels."""
    settings = model_settings(config_of(model.config, model.params))
    made = {
        "parameters": parameters_sha256(model.params),
        "tokenizer": model.tokenizer.sha256 if model.tokenizer else None,
        "model": settings,
    }
    return json.loads(json.dumps(made))


def load_for(
    made_of: dict[str, Any], checkpoint: str | os.PathLike, step: int | None, where: str
) -> Retriever:
    """Loads the checkpoint that an index was made with.

    Args:
      made_of: what the index says.
      checkpoint: a path, or an address in a bucket.
      step: of a work directory.
      where: the index, for messages.

    Raises:
      UserError: it is not there, or is another one.
    """
    try:
        model = load(checkpoint, step=step)
    except UserError as error:
        raise UserError(
            f"{where}: its checkpoint: {error}; --checkpoint names where it is"
        ) from error
    now = of_model(model)
    if told := differences({name: made_of.get(name) for name in now}, now):
        raise UserError(
            f"{where} is of another checkpoint than {os.fspath(checkpoint)} ({told}): name its own"
            " by --checkpoint, or index anew into another directory"
        )
    return model
