"""NumPy's npz files, one array at a time: data alone, of which nothing is run."""

import dataclasses
import pathlib
import zipfile
import zlib

import numpy as np

from glscl_jax.errors import UserError

_END = ".npy"


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array that is read from its file when NumPy asks for it, and not kept.

    Attributes:
      path: of the file.
      name: of the array in it.
      shape: its shape.
    """

    path: pathlib.Path
    name: str
    shape: tuple[int, ...]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        with (
            _refusing(self.path),
            zipfile.ZipFile(self.path) as archive,
            archive.open(self.name + _END) as file,
        ):
            values = np.lib.format.read_array(file, allow_pickle=False)
        return values.astype(dtype or values.dtype, copy=False)


def is_npz(path: pathlib.Path) -> bool:
    """Whether the file is an archive of nothing but arrays, whatever its name is."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(_END) for name in names)


def read(path: pathlib.Path) -> dict[str, StoredArray]:
    """The arrays of a file by name, none of them read yet.

    Raises:
      UserError: the file is damaged, has two arrays of one name, or one of Python's objects.
    """
    found = {}
    with _refusing(path), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(_END)
            if name in found:
                raise UserError(f"{path} has two arrays of one name, {name}: save them once")
            with archive.open(member) as file:
                shape, dtype = _header(file)
            if dtype.hasobject:
                raise UserError(
                    f"{path}: {name} holds Python's objects, which are not opened because that "
                    "could run code: save it as an array of numbers"
                )
            found[name] = StoredArray(path, name, shape)
    return found


def _header(file) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read_header:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = read_header[version](file)
    return shape, dtype


class _refusing:
    """A context in which what a damaged file raises becomes one line."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        damaged = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, SyntaxError)
        if isinstance(error, damaged) and not isinstance(error, UserError):
            raise UserError(
                f"{self.path}: a damaged npz file, or cut short; copy or download it again"
            ) from error
