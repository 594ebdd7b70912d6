"""A head's explanation of one score, for people to look at."""

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a score: its name, what it is multiplied with, and its value before that."""

    name: str
    weight: float
    value: float


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why a text and a video have the score they have.

    Attributes:
      parts: whose weighted sum is the score.
      weights: float32 [V], how much each frame counts for this text, 0 at padding.
      concepts: float32 [K,K], cosines of the text's concepts (rows) and the video's, of which the
        last part is the mean of the diagonal; None where there are none.
    """

    parts: tuple[Part, ...]
    weights: jax.Array
    concepts: jax.Array | None

    @property
    def score(self) -> float:
        """The parts' weighted sum."""
        return sum(part.weight * part.value for part in self.parts)
