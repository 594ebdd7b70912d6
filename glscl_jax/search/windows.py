"""Where a video is cut into the windows that are searched."""

import dataclasses

from glscl_jax import ranges
from glscl_jax.errors import UserError
from glscl_jax.ranges import Real


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a video, in seconds from its first frame."""

    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Cut:
    """How videos are cut.

    Attributes:
      window: seconds of a window; 0 for whole videos.
      stride: seconds from the start of one to that of the next; no more than `window`; not used for
        whole videos.
    """

    window: float
    stride: float = 1.0

    def __post_init__(self):
        at_least_0, above_0 = Real(least=0), Real(above=0)
        try:
            ranges.check(vars(self), {"window": at_least_0, "stride": above_0})
        except ValueError as error:
            raise UserError(f"--{error}") from error
        if 0 < self.window < self.stride:
            raise UserError(
                f"--stride {self.stride:g} is more than --window {self.window:g}: what lies between"
                " two windows would not be found"
            )

    def windows(self, length: float) -> list[Window]:
        """The windows of a video of so many seconds, at least one; the last one reaches its end."""
        if not self.window:
            return [Window(0.0, length)]
        count = 1
        while (count - 1) * self.stride + self.window < length:
            count += 1
        starts = (number * self.stride for number in range(count))
        return [Window(start, min(start + self.window, length)) for start in starts]
