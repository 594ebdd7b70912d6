"""What a run is to do: how many pairs there are to learn from, and how many updates they make."""

import dataclasses

import numpy as np

from glscl_jax.input_pipeline.pair_order import steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run's length. A step takes one batch and makes one update.

    Attributes:
      clips: in the training split.
      pairs: of a clip and one of its captions, in the training split.
      batch_size: pairs in a step, over all devices.
      steps_per_epoch: in one pass over the pairs, whose last, partial batch is dropped.
      num_steps: of the whole run.
      most_captions: that a clip has.
    """

    clips: int
    pairs: int
    batch_size: int
    steps_per_epoch: int
    num_steps: int
    most_captions: int

    @classmethod
    def of(cls, captions: np.ndarray, *, batch_size: int, num_epochs: int, num_steps: int = 0):
        """A plan of clips that have so many captions each; `num_steps` above 0 overrides epochs."""
        per_epoch = steps_per_epoch(captions, batch_size)
        return cls(
            clips=len(captions),
            pairs=int(captions.sum()),
            batch_size=batch_size,
            steps_per_epoch=per_epoch,
            num_steps=num_steps or num_epochs * per_epoch,
            most_captions=int(captions.max()),
        )

    def describe(self) -> str:
        """A line, or two where an epoch cannot show every pair."""
        line = (
            f"plan: {self.pairs:,} pairs of {self.clips:,} clips, {self.batch_size:,} a batch;"
            f" {self.steps_per_epoch:,} updates an epoch (steps_per_epoch),"
            f" {self.num_steps:,} in all"
        )
        shown = self.steps_per_epoch * self.batch_size
        if self.pairs - shown < self.batch_size:
            return line
        return (
            f"{line}\nan epoch shows {shown:,} of them, drawn anew each time: a clip has"
            f" {self.most_captions:,} captions, a batch has none twice, and no more than"
            f" {self.steps_per_epoch:,} batches can be filled"
        )
