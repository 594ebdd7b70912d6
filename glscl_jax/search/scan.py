"""Every query against every window, with the head's own score, in blocks of one compiled shape.

What a head computes once a video (`Head.prepare`) lies beside the features. Kept of the scores are
the best k.
"""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from glscl_jax.models.heads.features import Features, count_of
from glscl_jax.models.heads.head import Head
from glscl_jax.retrieval.ranking import TopK
from glscl_jax.retrieval.score_blocks import pad_rows
from glscl_jax.runtime import sharding
from glscl_jax.search.blocks import Block, WindowBlocks
from glscl_jax.search.feature_files import Arrays

Result = TypeVar("Result")

# Queries at once; fewer are filled up to a power of two, so that few shapes are compiled.
_MOST_QUERIES = 64
# They wait for memory together, so more of them would not be faster.
_MOST_THREADS = 16
_FEATURES, _PREPARED, _OUTLINE = "features.", "prepared.", "outline."


def to_arrays(
    head: Head, video: Features, dtype: str = "float32", *, outline: bool = True
) -> Arrays:
    """What is kept of B windows: features, what the head prepares of them, and its outline.

    Args:
      head: which made them.
      video: on the host.
      dtype: in which the features' floating numbers are kept; the rest is made of what is kept.
      outline: whether to make the outline, which `Head.bound` alone needs.
    """
    kept = {name: np.asarray(array) for name, array in vars(video).items()}
    for name, array in kept.items():
        if jnp.issubdtype(array.dtype, jnp.floating):
            kept[name] = array.astype(jnp.dtype(dtype))
    video = head.video_features(**kept)
    prepared = jax.tree.leaves(jax.device_get(_prepare(video, head=head)))
    found = {f"{_FEATURES}{name}": array for name, array in kept.items()}
    found |= {f"{_PREPARED}{n}": np.asarray(array) for n, array in enumerate(prepared)}
    drawn = (head.outline(video) if outline else None) or {}
    return found | {f"{_OUTLINE}{name}": array for name, array in drawn.items()}


@flax.struct.dataclass
class Windows:
    """What is scored: arrays [B,...] of features, of what is prepared, of the outline.

    Attributes:
      features: of the head.
      prepared: as `Head.prepare` returns it.
      outline: as `Head.outline` returns it; None if there is none.
    """

    features: Features
    prepared: Any
    outline: Mapping | None


def windows_of(head: Head, arrays: Arrays) -> Windows:
    """The arrays that `to_arrays` made, wherever they lie, as they are scored."""

    def part(prefix: str) -> dict[str, np.ndarray]:
        names = (name for name in arrays if name.startswith(prefix))
        return {name.removeprefix(prefix): arrays[name] for name in names}

    features = head.video_features(**part(_FEATURES))
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype), features)
    prepared = part(_PREPARED)
    leaves = [prepared[str(number)] for number in range(len(prepared))]
    tree = jax.tree.structure(jax.eval_shape(head.prepare, one))
    return Windows(features, jax.tree.unflatten(tree, leaves), part(_OUTLINE) or None)


class Scan:
    """Scores queries against windows.

    Args:
      windows: of arrays that can be sliced and indexed, such as files mapped into memory.
      head: what scores them.
      block: windows at once; by default what the devices do best with.
      mesh: the devices that share each block; by default all of this process.
      kept_bytes: see `WindowBlocks`.
      threads: that score blocks at the same time; by default one a core where one CPU is all there
        is, as a product of one query runs on one core alone, and one elsewhere.

    Attributes:
      windows, head, threads: likewise.
      blocks: in which they come to the devices.
      block: windows at once of some that are asked for by their numbers.
    """

    def __init__(
        self,
        windows: Windows,
        head: Head,
        *,
        block: int | None = None,
        mesh: Mesh | None = None,
        kept_bytes: int | None = None,
        threads: int | None = None,
    ):
        self.windows, self.head = windows, head
        self._mesh = mesh or sharding.make_mesh(jax.local_devices())
        self._on_cpu = self._mesh.devices.flat[0].platform == "cpu"
        self.blocks = WindowBlocks(windows, self._mesh, size=block, kept_bytes=kept_bytes)
        self.block = self.blocks.sparse_size
        alone = self._on_cpu and self._mesh.size == 1
        self.threads = threads or (min(_MOST_THREADS, _cores()) if alone else 1)

    @property
    def bounded(self) -> bool:
        """Whether the head has a bound, and the windows what it needs."""
        return self.windows.outline is not None

    def top(self, text: Features, k: int, rows: np.ndarray) -> TopK:
        """The best windows of each query, the best first; of equal scores the lower row first.

        Args:
          text: features of A queries.
          k: how many, at most; there are fewer where `rows` has fewer.
          rows: int64, ascending, the windows that are asked for.

        Returns:
          rows int64 [A,k] and their scores float32 [A,k].
        """
        k = min(k, len(rows))
        kept = 1 << max(k - 1, 0).bit_length()
        parts = [self._top(part, kept, rows) for part in _parts(text, self._mesh) if k]
        if not parts:
            return TopK(np.zeros((count_of(text), 0), np.int64), np.zeros((count_of(text), 0)))
        items, scores = (np.concatenate(x)[: count_of(text), :k] for x in zip(*parts, strict=True))
        return TopK(items, scores)

    def _top(self, text: Features, k: int, rows: np.ndarray):
        size = count_of(text)

        def scanned(blocks: Iterator[Block]) -> tuple[np.ndarray, np.ndarray]:
            best = jax.device_put(np.full((size, k), -np.inf, np.float32))
            items = jax.device_put(np.full((size, k), -1, np.int32))
            for block in blocks:
                scores = self.block_scores(text, block)
                best, items = _merge(best, items, scores, block.real, block.first)
                if not block.kept:
                    # Else the host would queue all blocks up on the devices before the first ends.
                    jax.block_until_ready(best)
            return np.asarray(items), np.asarray(best)

        items, best = (np.concatenate(x, 1) for x in zip(*self._by_all(scanned, rows), strict=True))
        # Each thread has its best; of equal scores the lower row comes first.
        order = np.lexsort((items, -best))[:, :k]
        items, best = (np.take_along_axis(x, order, 1) for x in (items, best))
        return self.blocks.rows_at(rows, items).astype(np.int64), best

    def _by_all(self, scan: Callable[[Iterator[Block]], Result], rows: np.ndarray) -> list[Result]:
        """What each thread makes of the blocks that it takes, ascending; all blocks are taken."""
        firsts = iter(self.blocks.firsts(rows))
        blocks = [(self.blocks.block(rows, first) for first in firsts) for _ in range(self.threads)]
        if self.threads == 1:
            return [scan(blocks[0])]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(scan, blocks))

    def scores(self, text: Features, rows: np.ndarray, *, bound: bool = False) -> np.ndarray:
        """Scores, or what they cannot be above, of A queries and some windows.

        Args:
          text: features of A queries.
          rows: int64, ascending.
          bound: whether the bound is asked for; the head has one.

        Returns:
          float32 [A,len(rows)].
        """
        found = np.empty((count_of(text), len(rows)), np.float32)
        for start, part in enumerate(_parts(text, self._mesh)):
            size = min(count_of(part), count_of(text) - start * _MOST_QUERIES)
            line = found[start * _MOST_QUERIES :][:size]

            def scored(blocks: Iterator[Block], part=part, line=line) -> None:
                for block in blocks:
                    made = np.asarray(self.block_scores(part, block, bound=bound))
                    made = made[: len(line), block.real]
                    line[:, block.before : block.before + made.shape[1]] = made

            self._by_all(scored, rows)
        return found

    def block_scores(self, text: Features, block: Block, *, bound: bool = False) -> jax.Array:
        """Scores, or bounds, of A queries on the devices and one block: float32 [A,n] there."""
        program = _bound if bound else _score
        windows = _widened(block.windows) if self._on_cpu else block.windows
        return program(text, windows, head=self.head)


def _cores() -> int:
    """Of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parts(text: Features, mesh: Mesh) -> list[Features]:
    """Queries in parts of a few sizes, on the devices; the last one is filled up."""
    count = count_of(text)
    whole = sharding.replicated(mesh)

    def part(start: int) -> Features:
        some = jax.tree.map(lambda x: np.asarray(x[start : start + _MOST_QUERIES]), text)
        size = 1 << (count_of(some) - 1).bit_length()
        return jax.device_put(jax.tree.map(lambda x: pad_rows(x, size), some), whole)

    return [part(start) for start in range(0, count, _MOST_QUERIES)]


@functools.partial(jax.jit, static_argnames="head")
def _prepare(video, *, head):
    return head.prepare(video)


@functools.partial(jax.jit, static_argnames="head")
def _score(text, block: Windows, *, head):
    return head.score(text, block.features, block.prepared)


@functools.partial(jax.jit, static_argnames="head")
def _bound(text, block: Windows, *, head):
    return head.bound(text, block.features, block.outline)


def _widened(windows: Windows) -> Windows:
    """Half precision as float32: the same numbers, whose products a CPU has instructions for.

    By a program of its own: within one the compiler merges it into the products, which then go
    number by number. Of a query over a ViT-B/32's windows that takes three times as long.
    """

    def widen(x):
        narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.float32
        return _to_float32(x) if narrow else x

    return windows.replace(features=jax.tree.map(widen, windows.features))


@jax.jit
def _to_float32(x):
    return x.astype(jnp.float32)


@jax.jit
def _merge(best, items, scores, real, start):
    """The best so far, [A,k] scores and places, with those of one more block."""
    # Not finite is no score, and was refused when features were kept.
    scores = jnp.where(real & jnp.isfinite(scores), scores, -jnp.inf)
    found, columns = jax.lax.top_k(scores, min(best.shape[1], scores.shape[1]))
    # Of equal scores `lax.top_k` takes the first, and the lower rows came earlier.
    items = jnp.concatenate([items, columns.astype(jnp.int32) + start], axis=1)
    found, columns = jax.lax.top_k(jnp.concatenate([best, found], axis=1), best.shape[1])
    return found, jnp.take_along_axis(items, columns, axis=1)
