"""From a config file's values to the typed settings of model, losses and optimiser."""

import dataclasses

from ml_collections import ConfigDict

from glscl_jax import ranges
from glscl_jax.errors import Problems, UserError
from glscl_jax.models.glscl import GLSCLConfig, model_config
from glscl_jax.ranges import EITHER, Real, Whole
from glscl_jax.training.losses import LossWeights
from glscl_jax.training.optim import OptimConfig

_RUN = {
    "seed": Whole(0, 2**32 - 1),  # JAX's random keys drop what is above
    "batch_size": Whole(1),
    "microbatch": Whole(),
    "num_epochs": Whole(1),
    "num_steps": Whole(),
    "max_nonfinite": Whole(1),
    "log_every": Whole(1),
    "validate_every": Whole(),
    "checkpoint_every": Whole(),
    "keep_checkpoints": Whole(1),
}
_READING = {"eval_batch_size": Whole(1)}
_DATA = {
    "frame_rate": Real(above=0),
    "num_frames": Whole(1),
    "num_words": Whole(2),  # where a caption starts and ends
    "augment": EITHER,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Checked settings; see the three classes."""

    model: GLSCLConfig
    losses: LossWeights
    optim: OptimConfig


def read(config: ConfigDict) -> Recipe:
    """Checks a training's settings; types `config.model`, `config.losses` and `config.optim`.

    Raises:
      UserError: naming every setting that is unknown, cannot be meant or does not fit.
    """
    problems = Problems()
    problems.attempt(_check, "config", config, _RUN)
    model = problems.attempt(_made, model_config, "model", config, as_dict=True)
    losses = problems.attempt(_made, LossWeights, "losses", config)
    optim = problems.attempt(_made, OptimConfig, "optim", config)
    problems.attempt(check_reading, config, model)
    problems.raise_all()
    return Recipe(model, losses, optim)


def check_reading(config: ConfigDict, model: GLSCLConfig | None) -> None:
    """Checks how a config has clips read for a model, if there is one, to train or evaluate it.

    Raises:
      UserError: naming every setting that cannot be meant or does not fit the model.
    """
    problems = Problems()
    problems.attempt(_check, "config", config, _READING)
    problems.attempt(_check, "config.data", config.data, _DATA)
    problems.raise_all()
    frames, most = config.data.num_frames, model.most_frames if model else None
    if most is not None and frames > most:
        raise UserError(
            f"config.data.num_frames {frames} is more than the temporal module's {most} positions,"
            f" as many as CLIP's text tower has: take {most} or fewer"
        )


def _check(section: str, values: ConfigDict, allowed: dict) -> None:
    problems = Problems()
    for name, value_range in allowed.items():
        try:
            ranges.check(values, {name: value_range})
        except ValueError as error:
            problems.add(f"{section}.{error}")
    problems.raise_all()


def _made(make, section: str, config: ConfigDict, as_dict: bool = False):
    values = config[section].to_dict()
    try:
        return make(values) if as_dict else make(**values)
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{section}: {error}") from error
