"""One writer at a time in a directory.

Not `filelock`: around one call of `flock`, which is all it would take over, stands what it leaves
to its caller: which errors mean no locks and are warned of, the message, and the file's removal.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import sys
from collections.abc import Iterator

from glscl_jax.errors import UserError

# What a file system says that has no locks, or whose server has none.
_LOCKLESS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextlib.contextmanager
def claimed(directory: pathlib.Path, name: str, flag: str, taken: str) -> Iterator[None]:
    """Makes a directory if it is not there, and keeps other writers out of it for the body.

    The claim ends with the process, however that ends: the file that may stay is no claim. On a
    file system without locks a line warns that nobody is kept out.

    Args:
      directory: what to claim.
      name: of the file in it that is locked.
      flag: how the user named the directory.
      taken: what is wrong when another has it.

    Raises:
      UserError: another process has it, or the directory cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = _locked(directory / name)
    except BlockingIOError as error:
        raise UserError(f"{flag}: {taken}: wait for it, or name another") from error
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise UserError(f"{flag}: {error.strerror}") from error
        print(
            f"warning: {flag}: the file system has no locks ({error.strerror}): see that nothing "
            "else writes there",
            file=sys.stderr,
            flush=True,
        )
        yield
        return
    with file:
        try:
            yield
        finally:
            (directory / name).unlink(missing_ok=True)


def _locked(path: pathlib.Path):
    """The file, open and locked; raises BlockingIOError if another holds it."""
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it may have taken the file away in between: then this is no lock.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()
