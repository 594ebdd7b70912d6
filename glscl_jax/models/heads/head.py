"""What a head is: the one object that makes a score of a text and a video.

Retrieval, losses, evaluation and search are handed one and know none by name. A head is a frozen
dataclass, so that it is hashable and can be static in what is compiled.
"""

from typing import Any, Protocol

import jax

from glscl_jax.models.heads.features import TextFeatures, VideoFeatures
from glscl_jax.models.heads.told import Told


class Head(Protocol):
    """Scores features of texts and videos.

    Attributes:
      name: of the head, as results name it.
      legend: how to read what it tells of a pair: terms, each with a paragraph.
    """

    name: str
    legend: tuple[tuple[str, str], ...]

    def prepare(self, video: VideoFeatures) -> Any:
        """What is computed once a video, however many texts it meets: arrays [B,...]."""

    def score(self, text: TextFeatures, video: VideoFeatures, prepared: Any = None) -> jax.Array:
        """Every text against every video, float32 [A,B]; differentiable.

        Args:
          text: features of A texts, float32 or half precision.
          video: features of B videos, float32 or half precision.
          prepared: `prepare(video)`, if already there.
        """

    def tell(self, text: TextFeatures, video: VideoFeatures) -> Told:
        """What the score of one text and one video is made of; their features have no A and B."""
