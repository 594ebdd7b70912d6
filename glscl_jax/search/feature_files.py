"""Arrays of numbers in files that grow at their end and are read where they lie.

layout.json       name -> type and shape of a row
NAME.bin          the rows of an array, one after the other

What is read is mapped into memory: a scan touches the pages that it needs, processes share them,
and an array may be larger than memory. A row counts once its number is in the table of windows:
what a writer that was killed left behind the last one is written over.
"""

import errno
import os
import pathlib
from collections.abc import Mapping
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.files import read_json, write_json

LAYOUT = "layout.json"
_BLOCK = 1 << 20

Arrays = dict[str, np.ndarray]


class FeatureFiles:
    """The arrays of a folder, which is made with the first rows."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        path = folder / LAYOUT
        self._layout = self._read(path) if path.exists() else {}

    @property
    def names(self) -> list[str]:
        """Names of the arrays; none before the first rows."""
        return list(self._layout)

    def row_bytes(self) -> dict[str, int]:
        """How many bytes a row of each array takes."""
        return {name: _size(dtype, shape) for name, (dtype, shape) in self._layout.items()}

    def put(self, first: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes rows from number `first` on, and flushes them; what stood behind is cut off.

        Raises:
          OSError: there is no room, or the files cannot be written for another reason.
          ValueError: names, types or shapes are not those of the arrays that are there.
        """
        layout = {name: (x.dtype, x.shape[1:]) for name, x in arrays.items()}
        if not self._layout:
            self.folder.mkdir(parents=True, exist_ok=True)
            told = {name: [dtype.name, list(shape)] for name, (dtype, shape) in layout.items()}
            write_json(self.folder / LAYOUT, told)
            self._layout = layout
        if layout != self._layout:
            raise ValueError(f"rows of {layout} among those of {self._layout}")
        for name, array in arrays.items():
            with self._path(name).open("ab") as file:
                file.truncate(first * _size(*layout[name]))
                file.write(np.ascontiguousarray(array).view(np.uint8).data)
                file.flush()
                os.fsync(file.fileno())

    def rows_there(self) -> int:
        """How many rows all arrays have, counted or not; 0 before the first."""
        sizes = self.row_bytes()
        return min((self._path(name).stat().st_size // sizes[name] for name in sizes), default=0)

    def copy_rows(self, first: int, count: int, path: pathlib.Path) -> None:
        """Writes rows to a file, one array's after the other's; raises an OSError."""
        with path.open("wb") as out:
            for name, size in self.row_bytes().items():
                with self._path(name).open("rb") as file:
                    file.seek(first * size)
                    _pass_on(file, out, count * size)

    def paste_rows(self, first: int, count: int, path: pathlib.Path) -> None:
        """Puts rows where they belong from a file that `copy_rows` wrote; raises an OSError."""
        with path.open("rb") as file:
            for name, size in self.row_bytes().items():
                self._path(name).touch()
                with self._path(name).open("r+b") as out:
                    out.seek(first * size)
                    _pass_on(file, out, count * size)

    def cut(self, name: str, count: int) -> None:
        """Cuts off what stands behind so many rows of an array."""
        if name in self._layout:
            os.truncate(self._path(name), count * self.row_bytes()[name])

    def _path(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.bin"

    def maps(self, count: int) -> Arrays:
        """The first `count` rows of each array, [count,...], mapped into memory.

        Raises:
          UserError: a file has fewer.
        """
        if not self._layout and (path := self.folder / LAYOUT).exists():
            # The first rows came after this was opened.
            self._layout = self._read(path)
        return {name: self._map(name, count) for name in self._layout}

    def _map(self, name: str, count: int) -> np.ndarray:
        dtype, shape = self._layout[name]
        path = self._path(name)
        try:
            there = path.stat().st_size // _size(dtype, shape)
        except OSError as error:
            raise self._damaged(path, error.strerror) from error
        if there < count:
            raise self._damaged(path, f"{there:,} rows of {count:,}")
        if not count:
            return np.zeros((0, *shape), dtype)
        return np.memmap(path, dtype, "r", shape=(count, *shape))

    def _read(self, path: pathlib.Path) -> dict:
        try:
            told = read_json(path)
            return {name: (jnp.dtype(kind), tuple(shape)) for name, (kind, shape) in told.items()}
        except (TypeError, ValueError) as error:
            raise self._damaged(path, str(error)) from error

    def _damaged(self, path: pathlib.Path, what: str) -> UserError:
        return UserError(f"{path} is damaged ({what}): index into another directory")


def _size(dtype, shape) -> int:
    return dtype.itemsize * int(np.prod(shape, dtype=np.int64))


def _pass_on(source: BinaryIO, out: BinaryIO, size: int) -> None:
    """Copies so many bytes; raises an OSError where there are fewer."""
    while size:
        block = source.read(min(size, _BLOCK))
        if not block:
            raise OSError(errno.EIO, "it ends too soon")
        out.write(block)
        size -= len(block)
