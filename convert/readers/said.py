"""What a directory says of its model beside the tensors."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Said:
    """What names and shapes leave open.

    Attributes:
      activation: of the MLPs, "quick_gelu" or "gelu".
      end_id: the token whose place has the sentence; None if it is the highest of a caption.
    """

    activation: str
    end_id: int | None = None
