"""What came of reading a data set's annotations."""

import dataclasses

from glscl_jax.input_pipeline.annotations.bad_rows import BadRow
from glscl_jax.input_pipeline.annotations.clip import Clip


@dataclasses.dataclass(frozen=True)
class Reading:
    """Clips, and what they do not hold of the annotations.

    Attributes:
      clips: of the rows that are good.
      bad: rows that are a mistake.
      left_out: rows that are none but add nothing: a caption that is there already, or one
        without letters.
      notes: lines on what was read otherwise than it is written.
    """

    clips: list[Clip]
    bad: tuple[BadRow, ...] = ()
    left_out: tuple[BadRow, ...] = ()
    notes: tuple[str, ...] = ()
