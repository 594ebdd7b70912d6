"""Flax files of transformers' CLIP (`flax_model.msgpack`): PyTorch's names and layouts.

The format is data alone: MessagePack, whose extensions here are arrays and numbers.
"""

import pathlib

import numpy as np
from flax import serialization, traverse_util

from glscl_jax.errors import UserError

# Flax -> PyTorch: a layer's last name.
_NAMES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def is_msgpack(path: pathlib.Path) -> bool:
    """Whether the file begins with a map whose first key is text, whatever its name is."""
    with path.open("rb") as file:
        first = file.read(6)
    key = {0xDE: 3, 0xDF: 5}.get(first[0], 1) if first else 0
    is_map = bool(first) and (0x81 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))
    # Text of up to 31 bytes, or with one, two or four bytes of length.
    return is_map and (0xA1 <= first[key] <= 0xBF or first[key] in (0xD9, 0xDA, 0xDB))


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file by the names that transformers' PyTorch model has.

    Raises:
      UserError: the file is cut short, damaged, or holds something else.
    """
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
        arrays = traverse_util.flatten_dict(tree.get("params", tree), sep=".")
        if not all(isinstance(array, np.ndarray | np.number) for array in arrays.values()):
            raise ValueError("not all of it is arrays")
    except OSError:
        raise
    except Exception as error:
        # The parser, and what makes arrays of bytes, have no exception in common.
        raise UserError(
            f"{path}: no complete Flax file of arrays; copy or download it again"
        ) from error
    return dict(_as_torch(name, np.asarray(array)) for name, array in arrays.items())


def _as_torch(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    *path, last = name.split(".")
    if last == "kernel":
        # Dense layers keep [in, out], convolutions [height, width, in, out].
        array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else None)
    return ".".join([*path, _NAMES.get(last, last)]), array
