"""Files of arrays by name, as `numpy.savez` writes them, with types that NumPy has not.

Of bfloat16 and its like a file would forget what they are: it holds their bits, as an unsigned
integer of the same size, under the array's name and the type's, "frames:bfloat16".
"""

import pathlib
import zipfile
import zlib
from typing import BinaryIO

import jax.numpy as jnp
import numpy as np

from glscl_jax.errors import UserError

# What one file holds: names to arrays.
Arrays = dict[str, np.ndarray]

# What reading a damaged file raises, beside `OSError`.
DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
# How a file of arrays begins, and one of none.
_BEGINNINGS = (b"PK\x03\x04", b"PK\x05\x06")


def write_arrays(file: BinaryIO, arrays: Arrays) -> None:
    """Writes what `read_arrays` reads; raises an `OSError` where it cannot."""
    plain = {}
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        if _is_new(array.dtype):
            name = f"{name}:{array.dtype.name}"
            array = array.view(np.dtype(f"u{array.itemsize}"))
        plain[name] = array
    np.savez(file, **plain)


def read_arrays(path: pathlib.Path) -> Arrays:
    """The arrays of a file.

    Raises:
      UserError: it has an array twice, or bits that are not of the type that its name says.
      OSError: it cannot be read.
      one of `DAMAGE`: it is no such file, or damaged.
    """
    arrays = {}
    for key, array in _stored(path).items():
        name, _, kind = key.partition(":")
        if name in arrays:
            raise UserError(f"{path} holds {name!r} twice, as {key!r} too: leave one of them out")
        arrays[name] = _from_bits(path, key, array) if kind else array
    return arrays


def _stored(path: pathlib.Path) -> Arrays:
    with path.open("rb") as file:
        # Of anything else NumPy would say that it is a pickle, and how to load that.
        if file.read(4) not in _BEGINNINGS:
            raise ValueError("it is no .npz file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as content:
            return {name: _array_of(content, name) for name in content.files}


def _array_of(content, name: str) -> np.ndarray:
    try:
        array = content[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"{name!r} holds Python objects, not text or numbers") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name!r} is no array")
    return array


def _from_bits(path: pathlib.Path, key: str, array: np.ndarray) -> np.ndarray:
    """The numbers whose bits an array is, of the type that follows the colon in its name."""
    name, _, kind = key.partition(":")
    try:
        dtype = jnp.dtype(kind)
    except TypeError:
        dtype = None
    if dtype is None or not _is_new(dtype):
        raise UserError(f"{path}: {key!r} names no type that NumPy has not: call it {name!r}")
    if array.dtype != (bits := np.dtype(f"u{dtype.itemsize}")):
        raise UserError(
            f"{path}: {key!r} is {array.dtype}, not bits as {bits}: give those, or numbers under "
            f"the name {name!r}"
        )
    return array.view(dtype)


def _is_new(dtype: np.dtype) -> bool:
    """Whether a type was added to NumPy's own."""
    return dtype.isbuiltin == 2
