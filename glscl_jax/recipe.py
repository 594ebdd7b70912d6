"""From a config file's values to the typed settings of model, losses and optimiser."""

import dataclasses

from ml_collections import ConfigDict

from glscl_jax.errors import UserError
from glscl_jax.losses import LossWeights
from glscl_jax.models.glscl import GLSCLConfig, model_config
from glscl_jax.optim import OptimConfig


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Checked settings; see the three classes."""

    model: GLSCLConfig
    losses: LossWeights
    optim: OptimConfig


def read(config: ConfigDict) -> Recipe:
    """Checks and types `config.model`, `config.losses` and `config.optim`.

    Raises:
      UserError: naming the setting that is unknown or does not fit.
    """
    return Recipe(
        _made(model_config, "model", config, as_dict=True),
        _made(LossWeights, "losses", config),
        _made(OptimConfig, "optim", config),
    )


def _made(make, section: str, config: ConfigDict, as_dict: bool = False):
    values = config[section].to_dict()
    try:
        return make(values) if as_dict else make(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{section}: {error}") from error
