"""Queries that come together are answered together: one encoding and one scan for all of them."""

import dataclasses
import queue
import threading
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Any

from glscl_jax.errors import UserError
from glscl_jax.search.hit import Answer
from glscl_jax.search.index import Index

# Queries that are scored together, and those that may wait.
_TOGETHER, _WAITING = 32, 256


class Busy(UserError):
    """Too many queries wait already."""


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A query: a sentence, or the number of a window."""

    what: str | int
    how: dict[str, Any]
    answer: Future

    @property
    def key(self) -> Hashable:
        """Queries with the same key are answered together."""
        alone = self.what if isinstance(self.what, int) else None
        return alone, *sorted(self.how.items())


class Batcher:
    """A thread that asks an index, for any number of threads that wait for its answers."""

    def __init__(self, index: Index):
        self._index = index
        self._queue: queue.Queue[_Asked | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="queries", daemon=True)
        self._thread.start()

    def ask(self, what: str | int, **how) -> "Future[Answer]":
        """Asks by a sentence, or for windows like that of a number; `how` as of `Index.search`.

        Raises:
          Busy: too many queries wait already.
        """
        asked = _Asked(what, how, Future())
        try:
            self._queue.put_nowait(asked)
        except queue.Full as error:
            raise Busy(f"{_WAITING} queries wait already: ask again in a moment") from error
        return asked.answer

    def close(self) -> None:
        """Ends the thread once the queries that wait are answered."""
        self._queue.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            taken: list[_Asked | None] = [first]
            while len(taken) < _TOGETHER and not self._queue.empty():
                taken.append(self._queue.get())
            groups: dict[Hashable, list[_Asked]] = {}
            for asked in taken:
                if asked is not None and asked.answer.set_running_or_notify_cancel():
                    groups.setdefault(asked.key, []).append(asked)
            for group in groups.values():
                self._answer(group)
            if None in taken:
                return

    def _answer(self, group: list[_Asked]) -> None:
        first = group[0]
        try:
            if isinstance(first.what, int):
                answers = [self._index.query_row(first.what, **first.how)] * len(group)
            else:
                answers = self._index.queries([str(one.what) for one in group], **first.how)
        except Exception as error:
            for asked in group:
                asked.answer.set_exception(error)
            return
        for asked, answer in zip(group, answers, strict=True):
            asked.answer.set_result(answer)
