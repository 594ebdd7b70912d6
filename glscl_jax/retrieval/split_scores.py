"""A split's scores: computed where they are asked for, or whole and changed by post-processing.

Both kinds answer the same three questions: the ranks, a caption's row, the best items of every
query.
"""

import jax
import numpy as np
from jax.sharding import Mesh

from glscl_jax.models.heads.features import Features
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval import metrics, ranking, rerank, score_blocks
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.ranking import TopK

# Videos whose captions are looked for at once: [A, so many] scores are held.
VIDEO_ROWS = 256


class Scored:
    """The model's own scores of A captions and B videos; [A,B] is never held.

    `retrieval` and `matrix` are for all processes of the mesh together; `row` and `top` use the
    devices of the process that asks.
    """

    def __init__(self, encoded: EncodedSplit, head: Head, mesh: Mesh | None = None):
        self._encoded, self._head, self._mesh = encoded, head, mesh

    def retrieval(self) -> metrics.Retrieval:
        """Ranks in both directions."""
        text, video, owner = self._encoded.text, self._encoded.video, self._encoded.owner
        return ranking.ranks_in_blocks(text, video, owner, mesh=self._mesh, head=self._head)

    def matrix(self, text: Features, video: Features) -> np.ndarray:
        """Any texts against any videos, float32 [A,B]."""
        return score_blocks.score_in_blocks(text, video, mesh=self._mesh, head=self._head)

    def row(self, a: int) -> np.ndarray:
        """Scores of a caption against all videos, float32 [B]."""
        caption = _items(self._encoded.text, a, a + 1)
        return score_blocks.score_in_blocks(caption, self._encoded.video, head=self._head)[0]

    def top(self, k: int) -> dict[str, TopK]:
        """The best k videos of every caption ("t2v") and captions of every video ("v2t").

        Raises:
          UserError: k is larger than the gallery.
        """
        text, video = self._encoded.text, self._encoded.video
        parts = []
        for start in range(0, len(video.mask), VIDEO_ROWS):
            some = _items(video, start, start + VIDEO_ROWS)
            parts.append(best(score_blocks.score_in_blocks(text, some, head=self._head).T, k))
        v2t = TopK(
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )
        return {"t2v": ranking.top_k(text, video, k, head=self._head), "v2t": v2t}


class Reranked:
    """Scores changed by post-processing: a matrix for each direction, queries in rows."""

    def __init__(self, t2v: np.ndarray, v2t: np.ndarray, owner: np.ndarray):
        self._t2v, self._v2t, self._owner = t2v, v2t, owner

    def retrieval(self) -> metrics.Retrieval:
        """Ranks in both directions, each from its own matrix."""
        return metrics.Retrieval(
            metrics.text_to_video(self._t2v, self._owner),
            metrics.video_to_text(self._v2t.T, self._owner),
        )

    def row(self, a: int) -> np.ndarray:
        """Changed scores of a caption against all videos, [B]."""
        return self._t2v[a]

    def top(self, k: int) -> dict[str, TopK]:
        """As `Scored.top`, by the changed scores."""
        return {"t2v": best(self._t2v, k), "v2t": best(self._v2t, k)}


def query_bank_norm(
    scored: Scored,
    encoded: EncodedSplit,
    bank: EncodedSplit,
    t2v: rerank.QBNorm,
    v2t: rerank.QBNorm,
) -> Reranked:
    """QB-Norm: bank captions against the videos for t2v, bank videos against the captions for v2t.

    Args:
      scored: the model's scores of `encoded`.
      encoded: A captions and B videos.
      bank: of the training split.
      t2v, v2t: settings of each direction.
    """
    scores = scored.matrix(encoded.text, encoded.video)
    captions = scored.matrix(bank.text, encoded.video)
    changed = rerank.query_bank_norm(scores, captions, t2v)
    del captions
    videos = scored.matrix(encoded.text, bank.video).T
    return Reranked(changed, rerank.query_bank_norm(scores.T, videos, v2t), encoded.owner)


def dual_softmax(scored: Scored, encoded: EncodedSplit, temperature: float) -> Reranked:
    """Dual softmax over all queries of the split. Transductive."""
    scores = scored.matrix(encoded.text, encoded.video)
    return Reranked(
        rerank.dual_softmax(scores, temperature),
        rerank.dual_softmax(scores.T, temperature),
        encoded.owner,
    )


def best(scores: np.ndarray, k: int) -> TopK:
    """The k best columns of every row, best first; of equal ones the first.

    Args:
      scores: [queries, items].
      k: at most the number of items.
    """
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return TopK(order.astype(np.int32), np.take_along_axis(scores, order, axis=1))


def _items(features, start: int, stop: int):
    """Some items of features."""
    return jax.tree.map(lambda array: array[start:stop], features)
