"""Weights in several files: the index that says which tensor is in which (`*.index.json`)."""

import collections.abc
import json
import pathlib
from collections.abc import Callable, Mapping

from glscl_jax.errors import UserError

_AGAIN = "download the index again"


def is_index(path: pathlib.Path) -> bool:
    """Whether the name is an index's: `model.safetensors.index.json`, or a variant's."""
    return path.suffix == ".json" and ".index." in path.name


def read(index: pathlib.Path, read_file: Callable[[pathlib.Path], Mapping]) -> dict:
    """The tensors that an index names, by name.

    Args:
      index: its path; the files lie beside it.
      read_file: reads the tensors of one of them.

    Raises:
      UserError: a file is missing, damaged, or lies outside the index's directory, or lacks a
        tensor that the index has in it.
    """
    paths = files(index)
    for path in paths.values():
        if not path.is_file():
            raise UserError(f"{index} names {path.name}, which is not beside it")
    contents = {name: read_file(path) for name, path in paths.items()}
    tensors = {}
    for tensor, name in _weight_map(index).items():
        if tensor not in contents[name]:
            raise UserError(f"{index} has {tensor} in {name}, which does not hold it")
        tensors[tensor] = contents[name][tensor]
    return tensors


def files(index: pathlib.Path) -> dict[str, pathlib.Path]:
    """The files that an index names, by the name it gives them."""
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if name in ("", ".", "..") or "\0" in name:
            raise UserError(f"{index}: weight_map has {name!r}, which is no file: {_AGAIN}")
        if pathlib.PurePath(name).name != name:
            raise UserError(f"{index} names a file in another directory, {name!r}")
        if is_index(index.with_name(name)):
            raise UserError(f"{index}: weight_map has an index in it, {name!r}: {_AGAIN}")
    return {name: index.with_name(name) for name in names}


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{index}: cannot be read as an index of files") from error
    is_map = isinstance(found, collections.abc.Mapping)
    if not is_map or not all(isinstance(name, str) for name in found.values()):
        raise UserError(f"{index}: cannot be read as an index of files")
    return found
