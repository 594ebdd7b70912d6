"""model.json: sizes and settings of a model, in the directory of its parameters."""

import pathlib

from glscl_jax.errors import UserError
from glscl_jax.files import read_json
from glscl_jax.models.glscl import GLSCLConfig, in_sections, model_config

MODEL = "model.json"


def read_model_config(directory: pathlib.Path) -> GLSCLConfig:
    """The model of a work directory or a converted one, from its `model.json`.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = directory / MODEL
    if not path.exists():
        raise UserError(
            f"{directory} is no checkpoint directory (no {MODEL}): give one that "
            "glscl_jax.train or convert wrote"
        )
    try:
        return model_config(read_json(path))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def read_model_settings(directory: pathlib.Path) -> dict:
    """What `model.json` says, of the parts that are there alone, with settings where they are now.

    Raises:
      UserError: the file is damaged.
    """
    return in_sections(read_json(directory / MODEL))
