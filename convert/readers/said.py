"""What a directory says of its model beside the tensors."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Said:
    """What names and shapes leave open.

    Attributes:
      activation: of the MLPs, "quick_gelu" or "gelu".
      head_widths: of the towers, by their names in `CLIPConfig`.
      end_id: the token whose place has the sentence; None if it is the highest of a caption.
    """

    activation: str
    head_widths: Mapping[str, int]
    end_id: int | None = None
