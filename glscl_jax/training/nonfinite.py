"""What a run says of steps that were not applied, and when it has had enough of them."""

from collections.abc import Callable

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.training.steps import StepMetrics


class NonFinite:
    """Names the clips of each step whose loss or gradient was not finite."""

    def __init__(self, limit: int, count: int, clip_ids: Callable[[np.ndarray], list[str]]):
        """Begins.

        Args:
          limit: so many such steps end the run.
          count: of those that it has had already.
          clip_ids: looks up the ids of clips by `TrainBatch`'s clip_index.
        """
        self._limit, self._count, self._clip_ids = limit, count, clip_ids
        self._pending = None

    def add(self, step: int, figures: StepMetrics, clips: np.ndarray) -> None:
        """Takes note of a step, which may be under way, and looks at the one before."""
        self.look()
        self._pending = (step, figures.nonfinite, clips)

    def look(self) -> None:
        """Waits for the step last added, and prints a line if it was not applied.

        Raises:
          UserError: instead, if it was the last that is allowed.
        """
        if self._pending is None:
            return
        (step, nonfinite, clips), self._pending = self._pending, None
        if int(nonfinite) == self._count:
            return
        self._count = int(nonfinite)
        told = (
            f"step {step}: loss or gradient is not finite, update not applied "
            f"({self._count} of at most {self._limit}); clips {', '.join(self._clip_ids(clips))}"
        )
        if self._count >= self._limit:
            raise UserError(f"{told}: look at these, lower the rate, or raise config.max_nonfinite")
        print(told, flush=True)
