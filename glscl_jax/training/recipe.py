"""From a config file's values to the typed settings of model, losses and optimiser."""

import dataclasses
import functools
from typing import Any

from ml_collections import ConfigDict

from glscl_jax import ranges
from glscl_jax.errors import Problems, UserError
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.glscl import GLSCLConfig, model_config
from glscl_jax.models.heads.settings import idle, loss_weights_of_settings
from glscl_jax.ranges import EITHER, OneOf, Real, Whole
from glscl_jax.training.losses import CONTRASTIVE
from glscl_jax.training.optim import OptimConfig

_RUN = {
    "seed": Whole(0, 2**32 - 1),  # JAX's random keys drop what is above
    "batch_size": Whole(1),
    "microbatch": Whole(),
    "contrastive": OneOf(CONTRASTIVE),
    "gradient_dtype": OneOf(("float32", "bfloat16")),
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
    """Checked settings.

    Attributes:
      model: see there.
      losses: the constants of its head's own losses, a `Head.loss_weights`.
      optim: see there.
    """

    model: GLSCLConfig
    losses: Any
    optim: OptimConfig


def read(config: ConfigDict) -> Recipe:
    """Checks a training's settings; types `config.model`, `config.losses` and `config.optim`.

    Raises:
      UserError: naming every setting that is unknown, cannot be meant or does not fit.
    """
    problems = Problems()
    problems.attempt(_check, "config", config, _RUN)
    model = problems.attempt(_made, model_config, "model", config)
    head = model.head if model else GLSCLConfig().head
    losses = problems.attempt(
        _made, functools.partial(loss_weights_of_settings, head), "losses", config
    )
    optim = problems.attempt(_made, lambda values: OptimConfig(**values), "optim", config)
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


def check_words(config: ConfigDict, clip: CLIPConfig) -> None:
    """Raises a `UserError` where the text tower cannot read `config.data.num_words` places."""
    try:
        clip.check_length(config.data.num_words)
    except ValueError as error:
        raise UserError(f"config.data.num_words {error}") from error


def _check(section: str, values: ConfigDict, allowed: dict) -> None:
    problems = Problems()
    for name, value_range in allowed.items():
        try:
            ranges.check(values, {name: value_range})
        except ValueError as error:
            problems.add(f"{section}.{error}")
    problems.raise_all()


def without_part(config: ConfigDict, model: GLSCLConfig) -> str:
    """A line on the settings of other heads that play no part under the model's, "" for none."""
    names = idle(model.head, config.model.head, config.losses)
    if not names:
        return ""
    return f"head {model.head.name}: these settings are of others and play no part: " + ", ".join(
        f"config.{name}" for name in names
    )


def _made(make, section: str, config: ConfigDict):
    try:
        return make(config[section].to_dict())
    except (TypeError, ValueError) as error:
        raise UserError(f"config.{section}: {error}") from error
