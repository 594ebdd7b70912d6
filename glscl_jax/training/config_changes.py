"""What a run that goes on with other settings is told: what changed, and what that does."""

import dataclasses
from collections.abc import Mapping

from flax.traverse_util import flatten_dict

from glscl_jax.training.optim import OptimConfig, warmup_cosine

_LENGTH = ("num_steps", "num_epochs")
_RATES = ("optim.learning_rate", "optim.coef_lr", "optim.warmup")
# By the beginnings of their paths.
_EFFECTS = {
    "losses.": "the loss is another from step {step} on, and does not compare with that before",
    "init_from": "is not read: the run goes on from its own parameters",
    "mesh.": "splits the work in another way, which rounds in another way and changes no more",
    "microbatch": "splits the work in another way, which rounds in another way and changes no more",
    "gradient_dtype": "rounds gradients in another way from step {step} on",
    "data.dir": "is where the same data lies now",
    "data.tokenizer": "is where the same tokenizer lies now",
    **dict.fromkeys(
        ("eval_batch_size", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints"),
        "leaves training as it is",
    ),
}


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A run's rate.

    Attributes:
      total: updates in all, which it spans.
      peak: rate of the new modules.
      clip_factor: CLIP's rate over theirs.
      warmup: share of the run.
    """

    total: int
    peak: float
    clip_factor: float
    warmup: float

    @classmethod
    def of(cls, optim: OptimConfig, total: int) -> "Schedule":
        """The optimiser's, over `total` updates."""
        return cls(total, optim.learning_rate, optim.coef_lr, optim.warmup)

    @classmethod
    def of_config(cls, config: Mapping, steps_per_epoch: int) -> "Schedule":
        """That of a config as a work directory keeps it."""
        total = config["num_steps"] or config["num_epochs"] * steps_per_epoch
        optim = config["optim"]
        return cls(total, optim["learning_rate"], optim["coef_lr"], optim["warmup"])

    def rates(self, update: int) -> tuple[float, float]:
        """Rates of the new modules and of CLIP after so many updates."""
        rate = self.peak * float(warmup_cosine(self.total, self.warmup)(min(update, self.total)))
        return rate, rate * self.clip_factor


def describe(
    old: Mapping, new: Mapping, step: int, update: int, before: Schedule, after: Schedule
) -> list[str]:
    """A line for each setting that changed since the run's last start.

    Args:
      old, new: configs as JSON has them; settings that one of them lacks are not compared.
      step: from which the new one holds.
      update: the updates made until then, which the schedule goes by.
      before, after: the schedules.
    """
    lines, (old, new) = [], (flatten_dict(dict(x), sep=".") for x in (old, new))
    for path in sorted(old.keys() & new.keys()):
        if old[path] != new[path]:
            effect = _effect(path, step, update, before, after)
            lines.append(f"config.{path} {_said(old[path])} -> {_said(new[path])}: {effect}")
    return lines


def _effect(path: str, step: int, update: int, before: Schedule, after: Schedule) -> str:
    if path in _LENGTH or path in _RATES:
        length = ""
        if path in _LENGTH:
            if before.total == after.total:
                return f"the run still has {after.total} steps"
            verb = "stretches" if after.total > before.total else "shrinks"
            length = f"the schedule {verb} from {before.total} to {after.total} updates; "
        (old, old_clip), (new, new_clip) = before.rates(update), after.rates(update)
        return (
            f"{length}the rate at step {step} goes from {old:.3g} to {new:.3g}, "
            f"CLIP's from {old_clip:.3g} to {new_clip:.3g}"
        )
    for beginning, effect in _EFFECTS.items():
        if path.startswith(beginning):
            return effect.format(step=step)
    return f"holds from step {step} on"


def _said(value) -> str:
    return "none" if value in (None, "") else str(value)
