"""Safetensors files, read by their library, one tensor at a time.

What the library leaves to do: to tell such a file by its first bytes, to refuse the types that are
not converted before anything is read, and to say what is wrong in one line that names the file.
"""

import dataclasses
import pathlib
import textwrap

# The library finds bfloat16 by name, which NumPy knows once this is imported.
import ml_dtypes  # noqa: F401
import numpy as np
import safetensors

from glscl_jax.errors import UserError

_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL")
# The library's limit: a longer header is an attack or damage.
_LONGEST_HEADER = 100_000_000


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor that is read from its file when NumPy asks for it, and not kept.

    Attributes:
      file: the open file that it lies in.
      name: of the tensor there.
      shape: its shape.
    """

    file: safetensors.safe_open
    name: str
    shape: tuple[int, ...]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        values = self.file.get_tensor(self.name)
        return values.astype(dtype or values.dtype, copy=False)


def is_safetensors(path: pathlib.Path) -> bool:
    """Whether the file begins as one does, whatever its name is."""
    with path.open("rb") as file:
        length, first = file.read(8), file.read(1)
    return first == b"{" and int.from_bytes(length, "little") <= _LONGEST_HEADER


def read(path: pathlib.Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name, none of them read yet.

    Raises:
      UserError: the file is cut short or damaged, or its tensors are of a type that is not read.
    """
    try:
        # Not mapped: the pages of a mapped file would count as this process's memory.
        file = safetensors.safe_open(path, "np", backend="pread")
    except safetensors.SafetensorError as error:
        # It quotes the file, which may hold anything.
        reason = textwrap.shorten(str(error), 160)
        raise UserError(
            f"{path}: a damaged safetensors file, or cut short ({reason}); copy or download it "
            "again"
        ) from error
    return {name: _tensor(path, file, name) for name in file.keys()}  # noqa: SIM118


def _tensor(path: pathlib.Path, file: safetensors.safe_open, name: str) -> StoredTensor:
    tensor = file.get_slice(name)
    if (kind := tensor.get_dtype()) not in _TYPES:
        raise UserError(
            f"{path}: tensors of type {kind} cannot be read; save it in float16 or wider"
        )
    return StoredTensor(file, name, tuple(tensor.get_shape()))
