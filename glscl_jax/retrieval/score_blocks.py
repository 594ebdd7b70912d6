"""Scores of texts and videos, block by block at any size."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.models.heads.head import Head
from glscl_jax.runtime import sharding

TEXT_BLOCK = 256
# On a CPU larger temporaries (at V = 12 each has 12 MiB) would go back to the kernel with every
# block, and clearing their pages anew takes as long as the scores.
VIDEO_BLOCK, VIDEO_BLOCK_ON_CPU = 4096, 1024


def score_in_blocks(text: Features, video: Features, **blocking) -> np.ndarray:
    """A head's scores of all pairs, for evaluation.

    Args:
      text: features of A texts.
      video: features of B videos.
      **blocking: head, and what else `Blocks` takes.

    Returns:
      float32 [A,B] on the host; what it takes beside grows with text_block * video_block * V.
    """
    blocks = Blocks(text, video, **blocking)
    matrix = np.empty((blocks.texts, blocks.videos), np.float32)
    for videos in blocks.video_parts():
        for texts in blocks.text_parts:
            scores = blocks.fetch(blocks.score(texts, videos))
            matrix[texts.rows, videos.rows] = scores[: texts.real, : videos.real]
    return matrix


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the texts or of the videos, on the devices, filled up to the block's size.

    What fills a block up are copies of its last item.

    Attributes:
      start: the first item's number among all.
      real: how many items are no filling.
      features: the head's.
      prepared: what the head has prepared of videos; None of texts.
    """

    start: int
    real: int
    features: Features
    prepared: Any = None

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.real)


class Blocks:
    """All pairs of texts and videos, cut into blocks that share one compiled program.

    A pair's score is computed at the same place of the same block however often it is asked for,
    so it has the same bits. The texts stay on the devices. The videos pass through, each block's
    shared out equally; they may be anything with a shape that can be sliced, such as files mapped
    into memory.

    Args:
      text, video: features of A texts and B videos.
      head: what scores them, e.g. `models.heads.glscl.GLSCLHead`.
      text_block, video_block: at most so many texts and videos at once (more only where each
        device would have no video); there are as few blocks as that allows, of equal size.
      mesh: the devices that share each block; by default all of this process.

    Attributes:
      texts, videos: A and B.
      text_block, video_block: a block's size.
      text_parts: all `Part`s of the texts.
      mesh: the devices.
    """

    def __init__(
        self,
        text: Features,
        video: Features,
        *,
        head: Head,
        text_block: int = TEXT_BLOCK,
        video_block: int | None = None,
        mesh: Mesh | None = None,
    ):
        self.mesh = mesh or sharding.make_mesh(jax.local_devices())
        if video_block is None:
            on_cpu = self.mesh.devices.flat[0].platform == "cpu"
            video_block = VIDEO_BLOCK_ON_CPU if on_cpu else VIDEO_BLOCK
        self.texts, self.videos = count_of(text), count_of(video)
        self.text_block = _even(self.texts, text_block)
        self.video_block = _even(self.videos, video_block, self.mesh.size)
        self._video = video
        self._split = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        self._score = functools.partial(_score_block, head=head, mesh=self.mesh)
        self._prepare = functools.partial(_prepare, head=head)
        self.text_parts = [
            Part(start, *self._placed(text, start, self.text_block, sharding.replicated(self.mesh)))
            for start in range(0, self.texts, self.text_block)
        ]

    def video_parts(self, numbers: Iterable[int] | None = None) -> Iterator[Part]:
        """The videos' `Part`s in order (or those of the given numbers), one ahead of its use."""
        numbers = range(-(-self.videos // self.video_block)) if numbers is None else numbers
        ahead = None
        for number in numbers:
            start = int(number) * self.video_block
            real, features = self._placed(self._video, start, self.video_block, self._split)
            if ahead:
                yield ahead
            ahead = Part(start, real, features, self._prepare(features))
        if ahead:
            yield ahead

    def score(self, texts: Part, videos: Part) -> jax.Array:
        """float32 [text_block,video_block], -inf where a video is filling."""
        return self._score(texts.features, videos.features, videos.prepared, videos.real)

    def fetch(self, array: jax.Array) -> np.ndarray:
        """An array, on the host of every process."""
        if not array.is_fully_addressable:
            array = _replicate(array, sharding.replicated(self.mesh))
        return np.asarray(array)

    def place(self, array: np.ndarray, *, split: bool = False) -> jax.Array:
        """An array on the devices: whole on each, or its first axis split over them."""
        where = self._split if split else sharding.replicated(self.mesh)
        return _place(array, where)

    def _placed(self, features, start: int, block: int, where: NamedSharding):
        """How many items from `start` on are real, and the filled features on the devices."""
        part = jax.tree.map(lambda x: x[start : start + block], features)
        real = jax.tree.leaves(part)[0].shape[0]
        return real, jax.tree.map(lambda x: _place(pad_rows(x, block), where), part)


class Lowering:
    """A block's programs, of arrays of shapes alone: what `Blocks` runs on devices not here.

    Args:
      text, video: features, of which the first axis does not matter.
      head: what scores them.
      mesh: the devices that share each block.
    """

    def __init__(self, text: Features, video: Features, *, head: Head, mesh: Mesh):
        self.mesh, self._head = mesh, head
        self.split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self.texts, self.videos = TEXT_BLOCK, -(-VIDEO_BLOCK // mesh.size) * mesh.size
        self._text = self.shapes(text, self.texts, sharding.replicated(mesh))
        self._video = self.shapes(video, self.videos, self.split)

    def shapes(self, tree, count: int, where: NamedSharding):
        """`tree` with `count` items of each array."""
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype, sharding=where), tree
        )

    def prepare(self) -> jax.stages.Lowered:
        """What the head computes once a block of videos."""
        return _prepare.lower(self._video, head=self._head)

    def score(self) -> jax.stages.Lowered:
        """The scores of a block."""
        prepared = jax.eval_shape(self._head.prepare, self._video)
        prepared = self.shapes(prepared, self.videos, self.split)
        return _score_block.lower(
            self._text, self._video, prepared, self.videos, head=self._head, mesh=self.mesh
        )


def pad_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """`rows` [n,...] up to `count` of them, by copies of the last."""
    missing = count - rows.shape[0]
    if not missing:
        return rows
    rows = np.asarray(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])


def _even(count: int, block: int, multiple: int = 1) -> int:
    """The size of equal parts, as many as `block` asks for; a multiple of `multiple`."""
    if block < 1:
        raise ValueError(f"a block of {block} items")
    parts = max(1, -(-count // block))
    return max(1, -(-count // (parts * multiple))) * multiple


def _place(array, where: NamedSharding) -> jax.Array:
    if where.is_fully_addressable:
        return jax.device_put(array, where)
    # Every process has all features, and gives its own devices their share.
    return jax.make_array_from_callback(array.shape, where, lambda index: array[index])


@functools.partial(jax.jit, static_argnames=("head", "mesh"))
def _score_block(text, video, prepared, real, *, head, mesh):
    scores = head.score(text, video, prepared)
    scores = jnp.where(jnp.arange(scores.shape[1]) < real, scores, -jnp.inf)
    by_video = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names))
    return jax.lax.with_sharding_constraint(scores, by_video)


@functools.partial(jax.jit, static_argnames="head")
def _prepare(video, *, head):
    return head.prepare(video)


@functools.partial(jax.jit, static_argnums=1)
def _replicate(array, where):
    return jax.lax.with_sharding_constraint(array, where)
