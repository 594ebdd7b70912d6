"""The one exception that speaks to the user."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

Result = TypeVar("Result")


class UserError(Exception):
    """Something the user can mend: a file, a row, a flag.

    Its message is one line that names the thing and the way out. Programs print it and exit
    with status 2 (see `program.run`); no traceback is shown.
    """


class UserErrors(UserError):
    """Several of them, each on a line of its own.

    Attributes:
      lines: what each says.
    """

    def __init__(self, lines: list[str]):
        self.lines = lines
        listed = "".join(f"\n  {line}" for line in lines)
        super().__init__(f"{len(lines)} things do not fit:{listed}")


class Problems:
    """Several checks of which each may fail, so that a user hears of all at once."""

    def __init__(self):
        self._found: list[str] = []

    def add(self, line: str) -> None:
        """Notes what is wrong."""
        self._found.append(line)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Keeps the `UserError` of its body for later."""
        try:
            yield
        except UserErrors as errors:
            self._found += errors.lines
        except UserError as error:
            self._found.append(str(error))

    def attempt(self, action: Callable[..., Result], *args, **kwargs) -> Result | None:
        """What `action` returns; None where it raises a `UserError`, which is kept for later."""
        with self.noted():
            return action(*args, **kwargs)
        return None

    def raise_all(self) -> None:
        """Raises a `UserError` with all that was found, if anything was."""
        if len(self._found) == 1:
            raise UserError(self._found[0])
        if self._found:
            raise UserErrors(self._found)
