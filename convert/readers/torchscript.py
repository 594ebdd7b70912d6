"""The tensors of a TorchScript archive, read without running it.

Such an archive is a program with its data. Its pickle names TorchScript classes, which stand
here for bags of attributes; every other name in it but the few below is refused. Not
`torch.jit.load`: it compiles what is in the file, and OpenAI's weights need no PyTorch this way.
"""

import collections
import io
import pathlib
import pickle
import zipfile
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from glscl_jax.errors import UserError

_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Module:
    """A TorchScript object: the attributes it was saved with, and nothing it could do."""

    def __init__(self, *_):
        """Of an enumeration's member or a named tuple: what is in it is no parameter."""

    def __setstate__(self, state):
        # Objects with a state of their own making are no modules.
        if isinstance(state, dict):
            vars(self).update(state)


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self.archive, self.root = archive, root

    def find_class(self, module: str, name: str):
        if module.split(".")[0] == "__torch__":
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return _STAND_INS[module, name]

    def persistent_load(self, saved):
        _, dtype, key, _, _ = saved
        return np.frombuffer(self.archive.read(f"{self.root}data/{key}"), dtype)


def is_archive(path: pathlib.Path) -> bool:
    """Whether this is a TorchScript archive; what `torch.save` writes has no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return _root(archive) is not None


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of the archived module by their names in its state dict.

    Raises:
      UserError: if the archive is broken or names anything but tensors and modules.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            module = _Unpickler(archive, _root(archive)).load()
        return dict(_named_tensors(module, ""))
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(f"{path}: not a TorchScript archive of a module ({error})") from error


def _root(archive: zipfile.ZipFile) -> str | None:
    """The archive's one folder, with its slash."""
    end = "/constants.pkl"
    found = [name for name in archive.namelist() if name.endswith(end) and name.count("/") == 1]
    return found[0].removesuffix(end) + "/" if found else None


def _tensor(storage: np.ndarray, offset: int, size, stride, *_) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2`; refuses to reach outside the storage."""
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise ValueError("a tensor of impossible size")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.empty(size, storage.dtype)
    if last >= storage.size:
        raise ValueError("a tensor larger than its storage")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _named_tensors(module: _Module, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            yield from _named_tensors(value, f"{prefix}{name}.")
        elif isinstance(value, np.ndarray):
            yield prefix + name, value


def _first(value, *_):
    return value


# Functions that a file may name, and what is called in their place. A scripted module holds lists
# of numbers and the like beside its tensors.
_STAND_INS = {
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "device"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): _first
        for kind in ("int", "double", "bool", "tensor")
    },
}
