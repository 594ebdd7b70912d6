"""Windows in blocks of one shape on the devices: kept there where they fit, else brought anew.

Features are read where they lie, mapped into memory; a CPU takes them from there without a copy.
Other devices keep as many blocks as their free memory holds, from the first scan that reads them
on, so that the next ones read nothing of the host.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from glscl_jax.models.heads.features import count_of
from glscl_jax.retrieval.score_blocks import pad_rows

# Windows in a block. On a CPU its temporaries are to stay in the cache, which of half precision are
# the features themselves, as float32.
_MOST, _MOST_ON_CPU, _MOST_IF_WIDENED = 65_536, 4096, 1024
# On other devices a block is large, as its dispatch takes longer than the reading of a small one:
# of so many bytes, and no more than this share of the memory that is free.
_MOST_BYTES, _SHARE = 2**31, 1 / 8
# Of the free memory so much is for blocks that are kept; the rest for what is computed.
_KEPT_SHARE = 0.8
# If fewer than this share of the windows is asked for, these alone are read from the host, so many
# at once: a large share of blocks that come from there anyway, a small one of those that lie on the
# devices, whose reading costs little.
_SPARSE, _SPARSE_IF_KEPT, _MOST_SPARSE = 0.5, 0.005, 4096


@dataclasses.dataclass(frozen=True)
class Block:
    """Some windows on the devices, as many as in every block.

    Attributes:
      first: the place of its first window, as `WindowBlocks.rows_at` takes it.
      real: bool [n], which of them are asked for, and in no block before.
      before: how many of those that are asked for lie in blocks before it.
      windows: arrays [n,...].
      kept: whether they lay there already.
    """

    first: int
    real: np.ndarray
    before: int
    windows: Any
    kept: bool


class WindowBlocks:
    """Windows, block by block.

    Args:
      windows: a tree of arrays [B,...] that can be sliced and indexed, such as mapped files.
      mesh: the devices that share each block.
      size: windows in a block; by default what the devices do best with.
      kept_bytes: of how many bytes in all the devices keep blocks; by default what they have free,
        and none on a CPU, whose memory the files are mapped into.

    Attributes:
      windows, size: likewise; the size is a multiple of the devices.
      sparse_size: windows in a block of some windows alone, if few are asked for.
      count: of all windows.
    """

    def __init__(
        self, windows: Any, mesh: Mesh, *, size: int | None = None, kept_bytes: int | None = None
    ):
        self.windows, self.count = windows, count_of(windows)
        leaves = jax.tree.leaves(windows)
        self._row_bytes = sum(x.dtype.itemsize * int(np.prod(x.shape[1:])) for x in leaves)
        self._mesh = mesh
        self.size = _multiple(size or self._usual_size(), mesh.size)
        self.sparse_size = min(self.size, _multiple(_MOST_SPARSE, mesh.size))
        self._split = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._kept_bytes = kept_bytes
        self._kept: dict[int, Any] = {}

    @property
    def kept_bytes(self) -> int:
        """Of how many bytes the devices keep blocks."""
        # Asked when it is needed: until then windows of before may go.
        if self._kept_bytes is None:
            self._kept_bytes = int(_KEPT_SHARE * _free_bytes(self._mesh))
        return self._kept_bytes

    def over(self, rows: np.ndarray) -> Iterator[Block]:
        """All blocks in which there are windows that are asked for.

        Args:
          rows: int64, ascending, the windows that are asked for.
        """
        return (self.block(rows, first) for first in self.firsts(rows))

    def firsts(self, rows: np.ndarray) -> list[int]:
        """The places at which these blocks begin, ascending; see `over`."""
        if self._sparse(rows):
            return list(range(0, len(rows), self.sparse_size))
        return (self.size * np.unique(rows // self.size)).tolist()

    def block(self, rows: np.ndarray, first: int) -> Block:
        """One of these blocks. Several threads may ask where none is kept."""
        if self._sparse(rows):
            size = self.sparse_size
            numbers = rows[first : first + size]
            part = jax.tree.map(lambda x: np.asarray(x[numbers]), self.windows)
            real = np.arange(size) < len(numbers)
            return Block(first, real, first, self._put(part, size), False)
        start, stop = np.searchsorted(rows, [first, first + self.size])
        begin, real = self._begin(first), np.zeros(self.size, bool)
        real[rows[start:stop] - begin] = True
        return Block(begin, real, int(start), *self._at(first))

    def rows_at(self, rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        """The windows at places (a block's `first`, and on from there) of its blocks."""
        return rows[places] if self._sparse(rows) else places

    def _usual_size(self) -> int:
        if self._on_cpu:
            kinds = [x.dtype for x in jax.tree.leaves(self.windows)]
            half = any(jnp.issubdtype(x, jnp.floating) and x.itemsize < 4 for x in kinds)
            return _MOST_IF_WIDENED if half else _MOST_ON_CPU
        # The free memory of this moment; what is of before may go, and does no harm.
        room = min(_MOST_BYTES, _SHARE * _free_bytes(self._mesh) or _MOST_BYTES)
        most = max(1, min(_MOST, int(room / self._row_bytes)))
        return 1 << min(most.bit_length() - 1, (self.count - 1).bit_length())

    @property
    def _on_cpu(self) -> bool:
        return self._mesh.devices.flat[0].platform == "cpu"

    @property
    def _fitting(self) -> int:
        """How many blocks the devices keep, the first ones."""
        return self.kept_bytes // (self.size * self._row_bytes)

    def _sparse(self, rows: np.ndarray) -> bool:
        kept = self._fitting * self.size >= self.count
        return len(rows) < (_SPARSE_IF_KEPT if kept else _SPARSE) * self.count

    def _at(self, first: int) -> tuple[Any, bool]:
        """The block from a window on, and whether it lay on the devices."""
        if first in self._kept:
            return self._kept[first], True
        begin = self._begin(first)
        stop = min(begin + self.size, self.count)
        block = self._put(jax.tree.map(lambda x: x[begin:stop], self.windows), self.size)
        if first // self.size < self._fitting:
            self._kept[first] = block
        return block, False

    def _begin(self, first: int) -> int:
        """Where a block begins: the last one ends with the windows, as filling it up is a copy."""
        return max(0, min(first, self.count - self.size))

    def _put(self, part: Any, size: int) -> Any:
        return jax.device_put(jax.tree.map(lambda x: pad_rows(x, size), part), self._split)


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


def _free_bytes(mesh: Mesh) -> int:
    """What all devices have free if each holds as much as the fullest; 0 if they do not tell."""
    free = []
    for device in mesh.local_devices:
        told = device.memory_stats() or {}
        free.append(max(told.get("bytes_limit", 0) - told.get("bytes_in_use", 0), 0))
    return min(free) * len(free)
