"""One writer at a time in a data directory."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from glscl_jax.errors import UserError

LOCK_FILE = ".preparing.lock"


@contextlib.contextmanager
def claimed(data_dir: pathlib.Path) -> Iterator[None]:
    """Makes a directory if it is not there, and keeps other writers out of it for the body.

    The claim ends with the process, however that ends: the file that may stay is no claim.

    Raises:
      UserError: another process is writing there, or the directory cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = _locked(data_dir / LOCK_FILE)
    except BlockingIOError as error:
        raise UserError(
            f"--data_dir {data_dir}: another prepare is writing there: wait for it, or name another"
        ) from error
    except OSError as error:
        raise UserError(f"--data_dir {data_dir}: {error.strerror}") from error
    with file:
        try:
            yield
        finally:
            (data_dir / LOCK_FILE).unlink(missing_ok=True)


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
