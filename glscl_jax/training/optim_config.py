"""The optimiser's settings, checked."""

import dataclasses
import re

from glscl_jax import ranges
from glscl_jax.ranges import Real

_RANGES = {
    "learning_rate": Real(above=0),
    "coef_lr": Real(least=0),
    "warmup": Real(least=0, most=1),
    "b1": Real(least=0, below=1),
    "b2": Real(least=0, below=1),
    "eps": Real(above=0),
    "weight_decay": Real(least=0),
    "max_global_norm": Real(above=0),
    "max_tensor_norm": Real(above=0),
}


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimiser's settings; the defaults are the reference's.

    Patterns are regular expressions, searched for in the names of tensors. The layers of a stack
    are tensors of their own (see `groups`): "clip/text/projection", but
    "clip/text/transformer/blocks/3/mlp_in/kernel".

    Attributes:
      learning_rate: peak, of the new modules.
      coef_lr: factor on it for the parameters that `clip_group` matches.
      clip_group: pattern.
      layer_decay: factor on the rate from each block of a CLIP tower to the one below it (see
        `groups.heights`); 1 for one rate for all.
      frozen: patterns; tensors that match one are never updated and have no optimiser state.
      ema: decay of the parameters' moving average, once an update (see `ema`); 0 for none.
      warmup: share of the run over which the rate climbs from 0.
      b1, b2, eps: Adam's.
      weight_decay: decoupled, times the learning rate; not on what `no_decay` matches.
      no_decay: pattern.
      max_global_norm, max_tensor_norm: of the gradient, clipped in this order.
      clip_numerics: "float32", or "float16_reference" for CLIP's weights and their moments in
        float16 as the released code has them on a GPU.
    """

    learning_rate: float = 1e-4
    coef_lr: float = 1e-3
    clip_group: str = "^clip/"
    layer_decay: float = 1.0
    frozen: tuple[str, ...] = ("^clip/vision/patch_embedding$",)
    ema: float = 0.0
    warmup: float = 0.1
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    no_decay: str = "bias$"
    max_global_norm: float = 1.0
    max_tensor_norm: float = 1.0
    clip_numerics: str = "float32"

    def __post_init__(self):
        if self.clip_numerics not in ("float32", "float16_reference"):
            raise ValueError(
                f"clip_numerics is {self.clip_numerics!r}, not float32 or float16_reference"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}: give 0 for none, or below 1, such as 0.999")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay is {self.layer_decay}: give 1 for none, or above 0, such as 0.75"
            )
        if isinstance(self.frozen, str):
            raise ValueError(f"frozen is {self.frozen!r}: give a tuple of patterns")
        ranges.check(vars(self), _RANGES)
        _check_pattern("clip_group", self.clip_group)
        _check_pattern("no_decay", self.no_decay)
        for pattern in self.frozen:
            _check_pattern("frozen", pattern)


def _check_pattern(field: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"{field} {pattern!r} is no regular expression: {error}") from error
