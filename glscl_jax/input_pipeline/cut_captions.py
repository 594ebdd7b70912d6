"""Captions that have more tokens than places: how many, so that a run can say so."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from glscl_jax.input_pipeline.tokenizer import Tokenizer

# Captions that are tokenized at once.
_CHUNK = 1 << 14


@dataclasses.dataclass(frozen=True)
class Cut:
    """How many captions lose their end.

    Attributes:
      captions: how many there are.
      cut: how many have more tokens than there are places.
      num_words: the places of a caption, start and end token among them.
      longest: the places that the longest caption would take.
    """

    captions: int
    cut: int
    num_words: int
    longest: int

    @classmethod
    def of(cls, captions: Iterable[str], tokenizer: Tokenizer, num_words: int) -> "Cut":
        """Counts captions that are to have `num_words` places."""
        captions = list(captions)
        chunks = (captions[first : first + _CHUNK] for first in range(0, len(captions), _CHUNK))
        lengths = np.concatenate([np.zeros(0, np.int64), *map(tokenizer.lengths, chunks)])
        longest = int(lengths.max(initial=0))
        return cls(len(captions), int((lengths > num_words).sum()), num_words, longest)

    def describe(self, whose: str) -> str:
        """A line, with their share, 0.1 % at the least; "" where none is cut.

        Args:
          whose: captions these are: "train".
        """
        if not self.cut:
            return ""
        share = max(0.1, 100 * self.cut / self.captions)
        return (
            f"{self.cut:,} of {self.captions:,} {whose} captions ({share:.1f} %) are cut: they have"
            f" more tokens than config.data.num_words {self.num_words}, the longest {self.longest}"
        )
