"""What a head is: the one object that makes features of encodings and a score of features.

Training, retrieval, evaluation and search are handed one and know none by name. A new head is one
file: a frozen dataclass of its settings, so that it is hashable and can be static in what is
compiled, with `register` before it; `config.model.head.name` then chooses it.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glscl_jax.models.heads.explanation import Explanation
from glscl_jax.models.heads.features import Features, TextFeatures, VideoFeatures, count_of

# By name: what `config.model.head.name` can be.
HEADS: dict[str, type["Head"]] = {}


_Registered = TypeVar("_Registered", bound=type["Head"])


def register(head: _Registered) -> _Registered:
    """Makes a head known by its name; a decorator of its class."""
    if HEADS.setdefault(head.name, head).__qualname__ != head.__qualname__:
        raise ValueError(f"there is a head {head.name!r} already: {HEADS[head.name].__qualname__}")
    HEADS[head.name] = head
    return head


@dataclasses.dataclass(frozen=True)
class NoLosses:
    """The constants of a head without losses of its own: none."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Multiply-adds of a head's matrix products.

    Attributes:
      text: for each text, to make its features.
      video: for each video, likewise.
      prepared: for each video, of `prepare`.
      pair: for each pair.
    """

    text: int = 0
    video: int = 0
    prepared: int = 0
    pair: int = 0


class Head(abc.ABC):
    """Makes features, scores them and explains scores; without parameters where it does not say so.

    Subclasses are frozen dataclasses, whose fields are the settings of `config.model.head`; they
    define the four abstract methods.

    Attributes:
      name: as `config.model.head.name` and results have it.
      legend: how to read its explanation of a pair: terms, each with a paragraph.
      reads_tokens: whether it reads texts' tokens, or sentences alone.
      loss_weights: a dataclass, of the constants of its own losses; of `config.losses`.
      text_features, video_features: dataclasses of arrays [A,...] and [B,...], what `text` and
        `video` return. Those of a video have a `mask` [B,V]. They are all that a score is made
        of: they are kept, sent and searched without the parameters.
    """

    name: ClassVar[str]
    legend: ClassVar[tuple[tuple[str, str], ...]]
    reads_tokens: ClassVar[bool] = False
    loss_weights: ClassVar[type] = NoLosses
    text_features: ClassVar[type] = TextFeatures
    video_features: ClassVar[type] = VideoFeatures

    def check(self, width: int) -> None:
        """Raises a `ValueError` where a setting does not go with features of this width, D."""
        del width

    def modules(self, width: int, dtype: jnp.dtype, scan: bool) -> dict[str, nn.Module]:
        """Its learned parts: Flax modules by their names among the parameters.

        Args:
          width: D.
          dtype: of the computation.
          scan: whether stacks of layers are looped over (see `transformer.scan_layers`).
        """
        return {}

    def text(
        self,
        modules: Mapping,
        sentence: jax.Array,
        tokens: jax.Array,
        mask: jax.Array,
        deterministic: bool,
    ) -> Features:
        """Features of A texts from the text tower's.

        Args:
          modules: those of `modules`, bound to parameters.
          sentence: [A,D].
          tokens: [A,L,D], padding included; may be None where it reads none.
          mask: int32 [A,L], 1 on real tokens.
          deterministic: no dropout.
        """
        return TextFeatures(sentence, _no_queries(sentence))

    def video(
        self, modules: Mapping, frames: jax.Array, mask: jax.Array, deterministic: bool
    ) -> Features:
        """Features of B videos from the encoders': frames [B,V,D], mask int32 [B,V]."""
        return VideoFeatures(frames, mask, _no_queries(frames[:, 0]))

    @abc.abstractmethod
    def prepare(self, video: Features) -> Any:
        """What is computed once a video, however many texts it meets: arrays [B,...]."""

    @abc.abstractmethod
    def score(self, text: Features, video: Features, prepared: Any = None) -> jax.Array:
        """Every text against every video, float32 [A,B]; differentiable.

        Args:
          text: features of A texts, float32 or half precision.
          video: features of B videos, float32 or half precision.
          prepared: `prepare(video)`, if already there.
        """

    @abc.abstractmethod
    def explain(self, text: Features, video: Features) -> Explanation:
        """The parts of one pair's score; the features have no axis A or B."""

    def frame_importance(self, text: Features, video: Features) -> np.ndarray:
        """How much each frame counts, float32 [B,V] on the host: `explain` of many videos.

        Args:
          text: features of one text, without A.
          video: features of B videos.
        """
        count = jax.tree.leaves(video)[0].shape[0]
        singles = (jax.tree.map(lambda x, n=number: x[n], video) for number in range(count))
        return np.stack([np.asarray(self.explain(text, one).weights) for one in singles])

    def losses(self, text: Features, video: Features, weights: Any) -> dict[str, jax.Array]:
        """Losses of its own beside the contrastive one, by name: float32 [] each, to be added.

        Args:
          text: features of B texts.
          video: features of B videos, the b-th belonging to the b-th text.
          weights: a `loss_weights`.
        """
        return {}

    def figures(self, text: Features, video: Features) -> dict[str, float]:
        """What can be said of a split's features beside ranks, by name; "part/what" in the logs.

        Args:
          text: features of A texts, on the host.
          video: features of B videos, on the host.
        """
        return {}

    def remarks(self, figures: Mapping[str, float]) -> list[str]:
        """What a reader of a result must not overlook in `figures`, a sentence each."""
        return []

    def directed(self, text: Features, video: Features) -> tuple[tuple, tuple]:
        """The vectors whose directions the score needs: ([A,N,D], mask), ([B,N,D], mask).

        A mask is 1 on vectors that count, [A,N] or [B,N]; None where all do.
        """
        return (text.sentence[:, None], None), (video.frames, video.mask)

    def outline(self, video: Features) -> dict[str, np.ndarray] | None:
        """What `bound` needs of B videos, beside their features: arrays [B,...] on the host.

        Computed once a video. None, as it is here, for a head of which no bound is known.
        """
        del video
        return None

    def bound(self, text: Features, video: Features, outline: Mapping | None) -> jax.Array:
        """What no score is above: float32 [A,B], each at least that of `score`.

        Args:
          text, video: as of `score`.
          outline: `outline(video)`. Without one, as here, nothing is bounded: infinity.
        """
        del outline
        return jnp.full((count_of(text), count_of(video)), jnp.inf, jnp.float32)

    def text_vector(self, text: Features) -> jax.Array | None:
        """One vector a text, float32 [A,E]; None for a head that has none, as `video_vector`."""
        del text
        return None

    def video_vector(self, video: Features) -> jax.Array | None:
        """One vector of unit length a video, float32 [B,E], of which neighbours are looked for.

        Its inner product with a `text_vector` orders videos about as the score does.
        """
        del video
        return None

    def as_text(self, video: Features) -> Features | None:
        """Videos as queries: features of B texts that stand for B videos.

        The sentence is the mean of the real frames, the concepts are the video's. None for a head
        with features of its own, of which texts have others than videos.
        """
        if (self.text_features, self.video_features) != (TextFeatures, VideoFeatures):
            return None
        real = video.mask.astype(jnp.float32)[:, :, None]
        mean = jnp.sum(video.frames.astype(jnp.float32) * real, axis=1) / jnp.sum(real, axis=1)
        return TextFeatures(mean, video.queries)

    @abc.abstractmethod
    def cost(self, width: int, words: int, frames: int) -> Cost:
        """What it costs, at D, L and V."""


def _no_queries(features: jax.Array) -> jax.Array:
    """float32 [A,0,D] for features [A,D]."""
    return jnp.zeros((features.shape[0], 0, features.shape[1]), jnp.float32)
