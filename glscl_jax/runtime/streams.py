"""Standard output and error that do not mind when nobody reads them any more."""

import errno
import io
import os
import sys

# The reader of a pipe or socket has gone, or the terminal has.
_UNREAD = {errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET, errno.EIO}


def outlive_readers() -> None:
    """Lets the program go on, in silence, when nobody reads what it prints.

    Its work is in files; and `program --help | head -1` is no mistake.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
            stream.flush()
        except (AttributeError, io.UnsupportedOperation):
            continue  # None, or a buffer in memory: nobody can leave.
        except OSError as error:
            if error.errno not in _UNREAD:
                raise
        raw = _Outliving(descriptor, "w", closefd=False)
        raw.replaced = stream  # It would close the descriptor when nobody knows it any more.
        setattr(
            sys,
            name,
            io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            ),
        )


class _Outliving(io.FileIO):
    def write(self, content):
        try:
            return super().write(content)
        except OSError as error:
            if error.errno not in _UNREAD:
                raise
            # For all that write there, libraries included.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(content)
