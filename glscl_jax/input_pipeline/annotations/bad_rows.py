"""Rows of annotation files that cannot be taken, each with its place and the way out."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from glscl_jax.errors import UserError


class RowError(Exception):
    """What is wrong with a row and the way out."""


@dataclasses.dataclass(frozen=True)
class BadRow:
    """A row that was not taken.

    Attributes:
      path: the file.
      place: where in it, e.g. "line 3".
      reason: what is wrong with it and the way out.
    """

    path: pathlib.Path
    place: str
    reason: str

    @property
    def description(self) -> str:
        """It as a line."""
        return f"{self.path} {self.place}: {self.reason}"


class BadRows(UserError):
    """The bad rows of a file, told as one line: the first of them, and how many more.

    Attributes:
      rows: all of them.
    """

    def __init__(self, rows: Sequence[BadRow]):
        self.rows = tuple(rows)
        more = f" (and {len(rows) - 1:,} more bad rows)" if len(rows) > 1 else ""
        super().__init__(rows[0].description + more)


class Faults:
    """Takes down the bad rows of a file, so that a user hears of all at once.

    Attributes:
      rows: those so far.
    """

    def __init__(self, path: pathlib.Path, kind: type[RowError] = RowError):
        """`kind` is the errors that are taken down; others pass."""
        self.rows: list[BadRow] = []
        self._path, self._kind = path, kind

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Takes down an error of its body as being at a place, e.g. "line 3"."""
        try:
            yield
        except self._kind as error:
            self.rows.append(BadRow(self._path, place, str(error)))

    def check(self) -> None:
        """Raises `BadRows` if there were any."""
        if self.rows:
            raise BadRows(self.rows)
