"""`failed.csv` of an index: what the last run could not read, and why."""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence

from glscl_jax.files import unfinished
from glscl_jax.spreadsheet import escape


@dataclasses.dataclass(frozen=True)
class FailedWindow:
    """A window without features.

    Attributes:
      video: its name.
      start: in seconds; None if the whole video cannot be read.
      reason: why.
    """

    video: str
    start: float | None
    reason: str


def write(failed: Sequence[FailedWindow], path: pathlib.Path) -> None:
    """Writes the list, or takes an old one away where there is nothing to list."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    told = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with unfinished(path) as part, part.open("w", **told) as file:
        writer = csv.writer(file)
        writer.writerow(("video", "start", "reason"))
        for one in failed:
            start = "" if one.start is None else f"{one.start:g}"
            writer.writerow((escape(one.video), start, escape(one.reason)))
