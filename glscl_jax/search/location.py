"""Where an index lies: a folder of this machine, or one that stands for a bucket's."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Protocol

from glscl_jax import paths
from glscl_jax.runtime import lock
from glscl_jax.search.bucket_folder import BucketFolder
from glscl_jax.search.store import Store

_LOCK = ".lock"


class Location(Protocol):
    """A place of an index.

    Attributes:
      path: the folder here.
    """

    path: pathlib.Path

    def refresh(self) -> None:
        """Brings here what another process has added."""

    def written(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other writers out for the body; raises a `UserError` where there is one."""

    def commit(self, store: Store) -> None:
        """Returns when what was written is where it belongs; raises a `UserError`."""

    def send_failed(self) -> None:
        """The same of the list of what could not be read."""

    def named(self) -> contextlib.AbstractContextManager[None]:
        """What a `UserError` of the body says of the folder is said as the user named it."""


class LocalFolder:
    """A folder that is what it is; see `Location`."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def refresh(self) -> None:
        """See there."""

    def commit(self, store: Store) -> None:
        """See there."""

    def send_failed(self) -> None:
        """See there."""

    def named(self) -> contextlib.AbstractContextManager[None]:
        """See there."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """See there; a folder that was made for nothing is taken away."""
        there = self.path.exists()
        taken = "another process is indexing there"
        try:
            with lock.claimed(self.path, _LOCK, f"--index {self.path}", taken):
                yield
        finally:
            if not there:
                with contextlib.suppress(OSError):  # it is not empty
                    self.path.rmdir()


def of(given: str | os.PathLike) -> Location:
    """The place of an index, of which nothing was fetched yet.

    Raises:
      UserError: it is no path and no address of a bucket, or what that needs is not installed.
    """
    if paths.is_address(given):
        return BucketFolder(os.fspath(given))
    return LocalFolder(paths.local(given, "--index").absolute())


def to_read(given: str | os.PathLike) -> Location:
    """The place of an index, with what there is now.

    Raises:
      UserError: as of `of`; nothing is in the bucket, or it cannot be fetched.
    """
    place = of(given)
    if isinstance(place, BucketFolder):
        place.read()
    return place
