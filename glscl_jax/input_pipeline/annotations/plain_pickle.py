"""Pickles of plain values, read without running anything."""

import io
import pathlib
import pickle

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables

_PLAIN = {"dict": dict, "int": int, "list": list, "str": str, "tuple": tuple}


# In Python: the C unpickler sets aside as much memory as a few bytes of the file tell it to.
class _PlainUnpickler(pickle._Unpickler):
    """Knows five types of values, and the call that old protocols write bytes as."""

    def find_class(self, module: str, name: str):
        if module in ("builtins", "__builtin__") and name in _PLAIN:
            return _PLAIN[name]
        if (module, name) == ("_codecs", "encode"):
            return _latin_1
        raise UserError(f"it names {module}.{name}, which could run code")

    def persistent_load(self, pid):
        raise UserError("it refers to what is not in it")

    def get_extension(self, code):
        raise UserError("it names a registered class, which could run code")


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding.replace("-", "").replace("_", "") != "latin1":
        raise UserError(f"it asks for the codec {encoding!r}, which plain bytes do not need")
    return text.encode("latin-1")


def load(path: pathlib.Path) -> dict:
    """Reads a pickled dict of plain values; bytes in it become text.

    Raises:
      UserError: it is none, is cut off, or could run code.
    """
    data = tables.content(path)
    try:
        # Python 2's strings have no encoding of their own.
        value = _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
        if not isinstance(value, dict):
            raise UserError(f"it is a pickle of {type(value).__name__}, not of dict")
        return _as_text(value)
    except UserError as error:
        raise UserError(f"{path}: {error}: not opened; fetch the file anew") from error
    # What damaged bytes make the unpickler do is anything at all.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a pickle ({reason}): fetch the file anew") from error


def _as_text(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return [_as_text(one) for one in value]
    if isinstance(value, dict):
        return {_as_text(key): _as_text(one) for key, one in value.items()}
    return value
