"""Safetensors files: named tensors behind a JSON header, read one at a time.

The layout: eight bytes with the header's length, the header, then the tensors' bytes.
"""

import dataclasses
import json
import math
import pathlib

import ml_dtypes
import numpy as np

from glscl_jax.errors import UserError

_DTYPES = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
# Of the reference implementation, too: a longer header is an attack or damage.
_LONGEST_HEADER = 100_000_000


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that is read from its file when NumPy asks for it, and not kept.

    Attributes:
      path: of the file.
      offset: of its first byte there.
      dtype: as stored.
      shape: its shape.
    """

    path: pathlib.Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        values = np.fromfile(self.path, self.dtype, math.prod(self.shape), offset=self.offset)
        return values.reshape(self.shape).astype(dtype or self.dtype, copy=False)


def is_safetensors(path: pathlib.Path) -> bool:
    """Whether the file begins as one does, whatever its name is."""
    with path.open("rb") as file:
        length, first = file.read(8), file.read(1)
    return first == b"{" and int.from_bytes(length, "little") <= _LONGEST_HEADER


def read(path: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, none of them read yet.

    Raises:
      UserError: the file is cut short or damaged.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        tensors = {name: _tensor(path, 8 + length, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: a damaged safetensors file; copy or download it again") from error
    end = max(
        (x.offset + math.prod(x.shape) * x.dtype.itemsize for x in tensors.values()), default=0
    )
    if end > size:
        raise UserError(f"{path}: cut short, {size:,} of {end:,} bytes; copy or download it again")
    return tensors


def _tensor(path: pathlib.Path, start: int, entry: dict) -> StoredTensor:
    if (kind := entry["dtype"]) not in _DTYPES:
        raise UserError(
            f"{path}: tensors of type {kind} cannot be read; save it in float16 or wider"
        )
    dtype, shape = _DTYPES[kind], tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if not all(isinstance(number, int) for number in (begin, end, *shape)):
        raise ValueError("numbers that are not whole")
    if min((begin, *shape)) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("offsets that do not fit the shape")
    return StoredTensor(path, start + begin, dtype, shape)
