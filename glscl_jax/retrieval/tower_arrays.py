"""What the arrays of a file of encoders' features must be; see `tower_features`."""

import jax.numpy as jnp
import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.retrieval.array_files import Arrays

_AXES = {"ids": 1, "captions": 1, "lengths": 1, "frames": 3, "tokens": 3, "sentence": 2}
# Of those that are no features: kinds of NumPy's types, and what to call them. Bytes and floats
# would become text that no other file has, b'v0' and 1.0.
_KINDS = {
    "ids": ("Uiu", "text or whole numbers"),
    "captions": ("U", "text"),
    "lengths": ("iu", "whole numbers"),
}
_FEATURES = tuple(map(jnp.dtype, ("float16", "bfloat16", "float32")))


def check_arrays(called: str, arrays: Arrays) -> bool:
    """Whether a file has any rows; looks at no feature's value, which `check_values` does.

    Args:
      called: what to name the file.
      arrays: of it; "ids" and "lengths" at least.

    Raises:
      UserError: an array is of no known name, or of another shape or type, or a length is none.
    """
    for name in arrays:
        if name not in _AXES:
            raise UserError(f"{called} has an array {name!r}: there are {', '.join(_AXES)}")
    # Of none, types are what they happen to be.
    if all(array.ndim and not len(array) for array in arrays.values()):
        return False
    # `ids` first: their rows are those of all.
    for name in ("ids", *arrays):
        array, axes = arrays[name], _AXES[name]
        if array.ndim != axes or len(array) != len(arrays["ids"]):
            of = "" if name == "ids" else f"of {len(arrays['ids'])} rows "
            told = "1 axis" if axes == 1 else f"{axes} axes"
            raise UserError(f"{called}: {name} {list(array.shape)} is not {of}in {told}")
        if not array.size:
            out = "leave it out" if name == "tokens" else "give one at least"
            raise UserError(f"{called}: {name} {list(array.shape)} has an axis of 0: {out}")
        _check_type(called, name, array.dtype)
    _check_lengths(called, arrays)
    return True


def _check_type(called: str, name: str, dtype: np.dtype) -> None:
    if name in _KINDS:
        kinds, told = _KINDS[name]
        if dtype.kind not in kinds:
            raise UserError(f"{called}: {name} is {dtype}: give {told}")
    elif dtype not in _FEATURES:
        raise UserError(f"{called}: {name} is {dtype}: give float16, bfloat16 or float32")


def _check_lengths(called: str, arrays: Arrays) -> None:
    """Raises a `UserError` for lengths that no frames or tokens have."""
    longest = next((arrays[x].shape[1] for x in ("frames", "tokens") if x in arrays), None)
    lengths = arrays["lengths"]
    if (lengths < 1).any() or (longest is not None and (lengths > longest).any()):
        most = "" if longest is None else f" to {longest}"
        raise UserError(f"{called}: lengths are not whole numbers from 1{most}")


def check_values(called: str, arrays: Arrays) -> None:
    """Raises a `UserError` for features that are not finite."""
    for name, array in arrays.items():
        if name not in _KINDS and not np.isfinite(array.astype(np.float32)).all():
            raise UserError(f"{called}: {name} holds a value that is not finite")


def unlike(first: Arrays, other: Arrays) -> str:
    """In what a file's arrays differ from the first one's; "" where they can stand together."""
    if first.keys() != other.keys():
        return f"{', '.join(sorted(other))}, not {', '.join(sorted(first))}"
    for name in first:
        if first[name].shape[1:] != other[name].shape[1:]:
            return f"{name} {list(other[name].shape)}, not {list(first[name].shape)}"
        if _AXES[name] > 1 and first[name].dtype != other[name].dtype:
            return f"{name} {other[name].dtype}, not {first[name].dtype}"
    return ""
