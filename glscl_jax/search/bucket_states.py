"""What an index in a bucket is made of: states, of which the one of the highest number counts.

    states/000000000012.json

A state names all objects of the index, and objects are never changed. So whoever reads has a whole
index, and whoever is killed before the state is there has changed nothing. A state is the next one
of that before it, and is sent on the condition that its number is free: of two that write at once
one is told, at the first thing that it stores.
"""

import dataclasses
import json
from typing import Any, NamedTuple

from glscl_jax.errors import UserError
from glscl_jax.runtime.bucket import Bucket, GoneError

_FORMAT = 1
_TRIES = 5


class Segment(NamedTuple):
    """Rows of features that are an object.

    Attributes:
      first, count: which rows.
      name: of the object.
      size: its bytes.
    """

    first: int
    count: int
    name: str
    size: int

    @property
    def end(self) -> int:
        """The row behind the last one."""
        return self.first + self.count


@dataclasses.dataclass(frozen=True)
class State:
    """An index at one time.

    Attributes:
      number: 1 for the first.
      index: which index; of another one that is put in its place it is another.
      writer: who wrote it.
      files: the object of each file, by its name in the folder, and its bytes.
      segments: rows of the features of a folder, in order.
    """

    number: int
    index: str
    writer: str
    files: dict[str, tuple[str, int]]
    segments: dict[str, list[Segment]]

    @property
    def objects(self) -> set[str]:
        """Names of all that it is made of."""
        rows = {one.name for segments in self.segments.values() for one in segments}
        return rows | {name for name, _ in self.files.values()}

    def as_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}).encode()

    @classmethod
    def of(cls, content: bytes, called: str) -> "State":
        """From JSON; raises a `UserError` where it is none, or a later release's."""
        try:
            told: dict[str, Any] = json.loads(content)
            if told.pop("format") != _FORMAT:
                raise UserError(f"{called} was written by a later release: index elsewhere")
            told["files"] = {name: (x, size) for name, (x, size) in told["files"].items()}
            told["segments"] = {
                name: [Segment(*one) for one in segments]
                for name, segments in told["segments"].items()
            }
            return cls(**told)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{called} is damaged ({error}): index elsewhere") from error


class TakenError(UserError):
    """Another process has written meanwhile."""


class States:
    """The states of an index."""

    def __init__(self, address: str, name: str):
        self._called = f"{name} {address}"
        self._bucket = Bucket(f"{address}/states", name)
        # Of the newest that is known: its number, and what the service told of it.
        self._seen: tuple[int, str] | None = None

    def newest(self) -> State | None:
        """The one that counts; None where there is no index.

        Raises:
          UserError: it cannot be read.
        """
        for _ in range(_TRIES):
            self._seen = self._newest()
            if self._seen is None:
                return None
            # A writer that is fast has removed it by now.
            try:
                content = self._bucket.read(_name(self._seen[0]))
            except GoneError:
                continue
            return State.of(content, f"{self._called}/states/{_name(self._seen[0])}")
        raise UserError(f"{self._called}: its states go as fast as they are read: start again")

    def number(self) -> int:
        """Of the newest that there is now; 0 for none."""
        found = self._newest()
        return found[0] if found else 0

    def add(self, state: State) -> None:
        """Makes a state the one that counts.

        Args:
          state: the next one of the newest that was read or added here.

        Raises:
          TakenError: it is not the next one any more.
          UserError: the bucket cannot be written to; perhaps it counts all the same, and may be
            added again.
        """
        content, there = state.as_bytes(), self._newest()
        if there != self._seen and not self._is(there, state, content):
            raise self._taken()
        if there == self._seen:
            self._bucket.create(_name(state.number), content)
            there = self._newest()
            # Where a service knows no conditions, and where the number was free because the
            # states before the newest had been removed.
            if not self._is(there, state, content):
                raise self._taken()
        self._seen = there
        for name in self._bucket.objects():
            if name < _name(state.number - 1):
                self._bucket.remove(name)

    def _is(self, there: tuple[int, str] | None, state: State, content: bytes) -> bool:
        if there is None or there[0] != state.number:
            return False
        return self._bucket.read(_name(state.number)) == content

    def _newest(self) -> tuple[int, str] | None:
        found = self._bucket.objects()
        numbers = [int(name[:-5]) for name in found if name[:-5].isdigit()]
        if not numbers:
            return None
        return max(numbers), found[_name(max(numbers))].tag

    def _taken(self) -> TakenError:
        return TakenError(
            f"{self._called}: another process is indexing there: what this one had stored before"
            " stays; run the same again when the other has ended"
        )


def _name(number: int) -> str:
    return f"{number:012}.json"
