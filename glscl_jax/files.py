"""Files and folders that are there whole or not at all, and the JSON that they hold.

What is written lies beside its place until it is finished; then it is flushed to the disk, renamed,
and the rename flushed. So neither a kill nor a machine that is switched off leaves half of a file
under the name of a whole one: file systems may put a rename on the disk before what was written.
"""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator

from glscl_jax.errors import UserError

PART = ".part"


@contextlib.contextmanager
def unfinished(path: pathlib.Path, *, many_writers: bool = False) -> Iterator[pathlib.Path]:
    """A path to write a file or a folder at, which becomes `path` when the body ends well.

    Otherwise it is removed. A file that was at `path` stays until then; a folder must be empty.

    Args:
      path: in a folder that exists.
      many_writers: whether others may write the same at the same time: each writes its own then,
        and one of them remains.

    Raises:
      OSError: it cannot be written, flushed or renamed.
    """
    own = f".{uuid.uuid4().hex}" if many_writers else ""
    part = path.with_name(f"{path.name}{own}{PART}")
    try:
        yield part
        place(part, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what is wrong with the disk was said already
            shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
        raise


def place(made: pathlib.Path, path: pathlib.Path) -> None:
    """Moves a finished file or folder to its name, on the same file system, and to the disk."""
    flush(made)
    move(made, path)


def move(path: pathlib.Path, target: pathlib.Path) -> None:
    """Renames what is on the disk; returns when the new name is, too."""
    path.replace(target)
    for folder in {target.parent, path.parent}:
        _flush_one(folder)


def flush(path: pathlib.Path) -> None:
    """Returns when a file, or a folder with all that is in it, is on the disk."""
    if path.is_dir():
        for inner in path.iterdir():
            if not inner.is_symlink():
                flush(inner)
    _flush_one(path)


def _flush_one(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems of a network have no way to flush a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def check_room(folder: str | os.PathLike, flag: str) -> None:
    """Raises a `UserError` where a folder is neither there nor could be made; makes nothing.

    Args:
      folder: of this machine.
      flag: which named it.
    """
    path = pathlib.Path(folder).absolute()
    there = next(one for one in (path, *path.parents) if os.path.lexists(one))
    if not there.is_dir():
        raise UserError(f"{flag} {folder}: {there} is no folder: name another place")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {folder}: {there} cannot be written to: name another place")


def write_text(path: pathlib.Path, text: str) -> None:
    """The file, UTF-8 with lines as they are given, appears whole or not at all."""
    with unfinished(path) as part:
        part.write_text(text, encoding="utf-8", newline="")


def write_json(path: pathlib.Path, content: dict) -> None:
    """The file appears whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: pathlib.Path) -> dict:
    """Raises a `UserError` that names a file which cannot be read or is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object")
    return content


def differences(old: dict | None, new: dict, prefix: str = "") -> str:
    """Tells the settings in which two nested dicts differ, "" for none (or nothing to compare)."""
    found = []
    for key in [*new, *(old.keys() - new.keys())] if old is not None else ():
        before, after = old.get(key), new.get(key)
        if isinstance(after, dict) and isinstance(before, dict):
            if inner := differences(before, after, f"{prefix}{key}."):
                found.append(inner)
        elif before != after:
            found.append(f"{prefix}{key} {_short(before)}, now {_short(after)}")
    return ", ".join(found)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:16]}..."
