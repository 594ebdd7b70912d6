"""The moving average of the parameters, which validation and evaluation read where it is kept.

`average' = average + (1 - decay) (params - average)`, once for each update that was made. It
begins as a copy of the first parameters, those of `config.init_from` or fresh ones, and not from
zero: there is no bias to correct, and after n updates the first parameters still weigh decay^n.
"""

import jax
import jax.numpy as jnp
from flax import traverse_util

from glscl_jax.training.groups import groups_of
from glscl_jax.training.optim_config import OptimConfig
from glscl_jax.trees import copy, part_of


def init(params: dict, config: OptimConfig) -> dict | None:
    """The average before the first update: float32 copies; None where `config.ema` is 0.

    What is frozen has none; a stack that trains in part is copied whole.
    """
    if not config.ema:
        return None
    groups = groups_of(params, config)
    trained = {
        path: leaf
        for path, leaf in traverse_util.flatten_dict(params).items()
        if groups["/".join(path)].label != "frozen"
    }
    return copy(traverse_util.unflatten_dict(trained))


def update(average: dict | None, params: dict, config: OptimConfig) -> dict | None:
    """The average after an update that led to `params`."""
    if average is None:
        return None
    # In this form an average that equals its parameter stays so to the last bit.
    return jax.tree.map(
        lambda mean, param: mean + (1 - config.ema) * (param.astype(jnp.float32) - mean),
        average,
        part_of(params, average),
    )
