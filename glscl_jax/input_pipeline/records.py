"""A split's records by their places, and the files that they are in."""

import bisect
import contextlib
import itertools
import threading
from collections.abc import Sequence

from array_record.python.array_record_data_source import ArrayRecordDataSource

from glscl_jax.errors import UserError


class Records:
    """The records, serialized, by random access; closed, their files are, and stay so.

    TensorFlow keeps the functions that it calls for ever, and with them all that they hold.

    Attributes:
      fault: what `read` raised, for those who hear of it only by way of TensorFlow.
    """

    def __init__(self, instructions: Sequence):
        """Takes `file_instructions` of a TFDS split; raises a `UserError` as `read` does."""
        self._paths = [instruction.filename for instruction in instructions]
        self._ends = list(itertools.accumulate(instruction.take for instruction in instructions))
        self._lock = threading.Lock()
        self._source = ArrayRecordDataSource(instructions)
        self.fault: UserError | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, places: Sequence[int]) -> Sequence[bytes]:
        """The records at some places; from one thread at a time.

        Raises:
          UserError: a file is damaged or gone; it is named.
        """
        with self._lock:
            if self._source is None:
                raise ValueError("closed")  # to a thread that still reads ahead: nobody hears
            try:
                return self._read(places)
            # What reads a damaged file raises now one of these, now another.
            except Exception as error:
                self.fault = self._told(places, error)
                raise self.fault from error

    def close(self) -> None:
        """Waits for a read that is under way."""
        with self._lock:
            source, self._source = self._source, None
            # Closing a damaged file says once more that it is damaged.
            with contextlib.suppress(RuntimeError):
                if source is not None:
                    source.__exit__(None, None, None)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _read(self, places: Sequence[int]) -> Sequence[bytes]:
        found = self._source.__getitems__(places)
        # Of a file that is cut at a block's end they are empty, without a word. None of ours is.
        if not all(found):
            raise ValueError("it ends before its records do")
        return found

    def _told(self, places: Sequence[int], error: Exception) -> UserError:
        """Which file it was: that of the first record that cannot be read by itself."""
        at_fault = places[0]
        for place in places:
            try:
                self._read([place])
            except Exception as alone:
                at_fault, error = place, alone
                break
        path = self._paths[bisect.bisect_right(self._ends, at_fault)]
        reason = " ".join(str(error).split()) or type(error).__name__
        return UserError(
            f"{path} is damaged ({reason}): copy it anew, or prepare again with --overwrite"
        )
