"""The best videos and the ranks of the right ones, without ever holding the score matrix.

Videos pass through the devices in blocks (`score_blocks.Blocks`). What is kept of the scores are
the best k of each text, or how many items stand before the right one and level with it.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from glscl_jax.errors import UserError
from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.score_blocks import Blocks, Lowering, Part, pad_rows
from glscl_jax.runtime import sharding


@dataclasses.dataclass(frozen=True)
class TopK:
    """Each text's best videos, the best first; of equal scores the lower number first.

    Attributes:
      items: int32 [A,k], the videos' numbers.
      scores: float32 [A,k].
    """

    items: np.ndarray
    scores: np.ndarray


def top_k(text: Features, video: Features, k: int, **blocking) -> TopK:
    """The k best of B videos for each of A texts.

    Args:
      text, video: features.
      k: how many.
      **blocking: head, and what else `score_blocks.Blocks` takes.

    Raises:
      UserError: k is less than 1 or more than B.
      ValueError: a score is not finite.
    """
    count = count_of(video)
    if not 1 <= k <= count:
        raise UserError(f"k is {k} in a gallery of {count} videos: ask for 1 to {count}")
    blocks = Blocks(text, video, **blocking)
    best = [_nothing_yet(blocks, k) for _ in blocks.text_parts]
    for videos in blocks.video_parts():
        for number, texts in enumerate(blocks.text_parts):
            scores = blocks.score(texts, videos)
            best[number] = _merge(best[number], scores, videos.start, videos.real)
        # Else the host would queue all videos up on the devices before the first are done.
        jax.block_until_ready(best)
    found = _joined(best, blocks.texts, blocks)
    _check_finite(found.broken, blocks)
    return TopK(found.items, found.scores)


def ranks_in_blocks(
    text: Features, video: Features, owner: np.ndarray, **blocking
) -> metrics.Retrieval:
    """`metrics.retrieval` of `score_blocks.score_in_blocks`, streamed: the same ranks and ties.

    Args:
      text, video: features of A captions and of B videos.
      owner: int [A], the video that each caption describes; every video has at least one.
      **blocking: head, and what else `score_blocks.Blocks` takes.

    Raises:
      ValueError: a video without a caption, a caption of no video here, or a score that is not
        finite.
    """
    videos = count_of(video)
    if missing := videos - len(np.intersect1d(owner, np.arange(videos))):
        raise ValueError(f"{missing} of {videos} videos have no caption")
    return metrics.Retrieval(*_Ranking(text, video, owner, blocking).count(groups=True))


def text_ranks_in_blocks(
    text: Features, video: Features, owner: np.ndarray, **blocking
) -> metrics.Ranks:
    """The text-to-video half of `ranks_in_blocks`: the gallery may hold videos without captions.

    Raises:
      ValueError: a caption of no video here, or a score that is not finite.
    """
    ranks, _ = _Ranking(text, video, owner, blocking).count(groups=False)
    return ranks


@flax.struct.dataclass
class _Best:
    """The best so far of a text block [a,k], and how many scores were not finite, int32 [a]."""

    items: jax.Array
    scores: jax.Array
    broken: jax.Array


def _nothing_yet(blocks: Blocks, k: int) -> _Best:
    size = blocks.text_block
    items, scores = np.full((size, k), -1, np.int32), np.full((size, k), -np.inf, np.float32)
    return jax.tree.map(blocks.place, _Best(items, scores, np.zeros(size, np.int32)))


@functools.partial(jax.jit, donate_argnums=0)
def _merge(best: _Best, scores, start, real) -> _Best:
    k = best.items.shape[1]
    found, columns = jax.lax.top_k(scores, min(k, scores.shape[1]))
    # Of equal scores `lax.top_k` takes the first, and the lower numbers came earlier.
    items = jnp.concatenate([best.items, columns + start], axis=1)
    found, columns = jax.lax.top_k(jnp.concatenate([best.scores, found], axis=1), k)
    items = jnp.take_along_axis(items, columns, axis=1)
    return _Best(items, found, best.broken + _broken(scores, real))


def _broken(scores, real):
    """How many of each text's scores are not finite, filling left out; int32 [a]."""
    among = jnp.arange(scores.shape[1]) < real
    return jnp.sum(~jnp.isfinite(scores) & among, axis=1, dtype=jnp.int32)


@flax.struct.dataclass
class _Texts:
    """Counts of a text block.

    Attributes:
      own: float32 [a], the right video's score.
      group: int32 [a], the captions' video, numbered from that of the text before the block.
      before, level, broken: int32 [a], videos that score higher, the same, and not finitely.
    """

    own: jax.Array
    group: jax.Array
    before: jax.Array
    level: jax.Array
    broken: jax.Array


@flax.struct.dataclass
class _Videos:
    """Counts of a video block.

    Attributes:
      own: float32 [b], the best score of the video's own group of captions.
      open: float32 [b], the best so far of the group that the last text block may have cut.
      before, level: int32 [b], groups that score higher and the same, the open one not yet.
    """

    own: jax.Array
    open: jax.Array
    before: jax.Array
    level: jax.Array


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _count(texts: _Texts, videos: _Videos | None, scores, real):
    """`texts` and `videos` (None: not asked for) with one more block of scores [a,b]."""
    if videos is not None:
        videos = _count_groups(videos, scores, texts.group)
    own = texts.own[:, None]
    before = texts.before + jnp.sum(scores > own, axis=1, dtype=jnp.int32)
    level = texts.level + jnp.sum(scores == own, axis=1, dtype=jnp.int32)
    broken = texts.broken + _broken(scores, real)
    return dataclasses.replace(texts, before=before, level=level, broken=broken), videos


def lowered_count(block: Lowering) -> jax.stages.Lowered:
    """What counts a block of scores, for texts and for videos, of arrays of shapes alone."""
    whole, split = sharding.replicated(block.mesh), block.split
    number, count = jnp.zeros((1,), jnp.float32), jnp.zeros((1,), jnp.int32)
    texts = block.shapes(_Texts(number, *(count,) * 4), block.texts, whole)
    videos = block.shapes(_Videos(number, number, count, count), block.videos, split)
    scores = jax.ShapeDtypeStruct(
        (block.texts, block.videos),
        jnp.float32,
        sharding=NamedSharding(block.mesh, PartitionSpec(None, block.mesh.axis_names)),
    )
    return _count.lower(texts, videos, scores, block.videos)


def _count_groups(videos: _Videos, scores, group) -> _Videos:
    # Group 0 is the open one. With this block all but the last are whole; what fills the block up
    # repeats its last text, which changes no maximum.
    best = jax.ops.segment_max(scores, group, num_segments=len(group) + 1, indices_are_sorted=True)
    best = best.at[0].max(videos.open)
    whole = (jnp.arange(len(best)) < group[-1])[:, None]
    before = jnp.sum(whole & (best > videos.own), axis=0, dtype=jnp.int32)
    level = jnp.sum(whole & (best == videos.own), axis=0, dtype=jnp.int32)
    return dataclasses.replace(
        videos, open=best[group[-1]], before=videos.before + before, level=videos.level + level
    )


@jax.jit
def _pick(scores, columns):
    return jnp.take_along_axis(scores, columns[:, None], axis=1)[:, 0]


class _Ranking:
    """Two passes: the right items' scores, then what stands before them and level with them.

    Both read the same compiled blocks, so that a right item is level with itself, and ties are
    those of the whole matrix.
    """

    def __init__(self, text, video, owner, blocking):
        owner, videos = np.asarray(owner), count_of(video)
        if np.any((owner < 0) | (owner >= videos)):
            raise ValueError(f"a caption's video is not among the {videos} videos")
        # A video's captions stand together: then the border of two blocks cuts one group at most.
        self.order = np.argsort(owner, kind="stable")
        if np.any(owner[:-1] > owner[1:]):
            text = jax.tree.map(lambda x: x[self.order], text)
        self.owner = owner[self.order]
        self.blocks = Blocks(text, video, **blocking)  # pyright: ignore[reportCallIssue]
        self.own = self._own_scores()

    def _own_scores(self) -> np.ndarray:
        """Every caption's score with its own video, float32 [A], from the blocks that hold one."""
        blocks, own = self.blocks, np.empty(len(self.owner), np.float32)
        for videos in blocks.video_parts(np.unique(self.owner // blocks.video_block)):
            for texts in blocks.text_parts:
                columns = self.owner[texts.rows] - videos.start
                here = (columns >= 0) & (columns < videos.real)
                if here.any():
                    columns = pad_rows(np.where(here, columns, 0), blocks.text_block)
                    picked = blocks.fetch(_pick(blocks.score(texts, videos), columns))
                    own[texts.rows][here] = picked[: texts.real][here]
        return own

    def count(self, *, groups: bool) -> tuple[metrics.Ranks, metrics.Ranks | None]:
        """Ranks of the texts, and with `groups` of the videos."""
        blocks, ranked = self.blocks, []
        texts = [self._texts(part) for part in blocks.text_parts]
        for part in blocks.video_parts():
            videos = self._videos(part) if groups else None
            for number, rows in enumerate(blocks.text_parts):
                scores = blocks.score(rows, part)
                texts[number], videos = _count(texts[number], videos, scores, part.real)
            jax.block_until_ready(texts)
            ranked.append(videos)
        of_texts = _joined(texts, blocks.texts, blocks)
        _check_finite(of_texts.broken, blocks)
        back = np.argsort(self.order)
        t2v = _ranks(of_texts.before[back], of_texts.level[back])
        if not groups:
            return t2v, None
        # After the last text nothing is open any more.
        end = _joined(ranked, blocks.videos, blocks)
        v2t = _ranks(end.before + (end.open > end.own), end.level + (end.open == end.own))
        return t2v, v2t

    def _texts(self, part: Part) -> _Texts:
        first = self.owner[max(part.start - 1, 0)]
        group = np.cumsum(np.diff(self.owner[part.rows], prepend=first) > 0, dtype=np.int32)
        own, group = (pad_rows(x, self.blocks.text_block) for x in (self.own[part.rows], group))
        # Counts are arrays of their own: a buffer that stands in two places cannot be donated.
        zeros = (np.zeros(len(own), np.int32) for _ in range(3))
        return jax.tree.map(self.blocks.place, _Texts(own, group, *zeros))

    def _videos(self, part: Part) -> _Videos:
        # Every video has captions, so each one's begin where it is first met.
        starts = np.searchsorted(self.owner, np.arange(part.start, part.start + part.real + 1))
        own = np.maximum.reduceat(self.own[: starts[-1]], starts[:-1])
        own = pad_rows(own, self.blocks.video_block)
        zeros = (np.zeros(len(own), np.int32) for _ in range(2))
        state = _Videos(own, np.full_like(own, -np.inf), *zeros)
        return jax.tree.map(functools.partial(self.blocks.place, split=True), state)


def _joined(states: list, count: int, blocks: Blocks):
    """The blocks' states, on the host, without filling."""
    return jax.tree.map(
        lambda *parts: np.concatenate([blocks.fetch(part) for part in parts])[:count], *states
    )


def _check_finite(broken: np.ndarray, blocks: Blocks) -> None:
    if count := int(broken.sum(dtype=np.int64)):
        raise ValueError(f"{count} of {blocks.texts * blocks.videos} scores are not finite")


def _ranks(before: np.ndarray, level: np.ndarray) -> metrics.Ranks:
    if np.any(level < 1):
        raise RuntimeError("the same block, computed twice, had different scores on this device")
    return metrics.Ranks((before + 1).astype(np.float64), (before + level).astype(np.float64))
