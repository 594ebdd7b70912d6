"""The lists that lie beside a data set, of what is not in it: clips, and rows of annotations."""

import csv
import os
import pathlib
from collections.abc import Iterable, Sequence

from glscl_jax.errors import UserError
from glscl_jax.files import unfinished
from glscl_jax.input_pipeline.annotations.bad_rows import BadRow
from glscl_jax.input_pipeline.preparing.checkup import Failure
from glscl_jax.spreadsheet import escape, unescape

FAILED_FILE = "failed.csv"
DAMAGED_FILE = "damaged.csv"
BAD_ROWS_FILE = "bad_rows.csv"


def write_clips(failures: Sequence[Failure], path: pathlib.Path) -> None:
    """Writes a list of clips, each with the reason; takes an old one away where there are none."""
    rows = ((f.clip.clip_id, f.clip.split, str(f.clip.video), f.reason) for f in failures)
    _write(("clip", "split", "video", "reason"), list(rows), path)


def write_rows(rows: Sequence[BadRow], path: pathlib.Path) -> None:
    """Writes a list of rows, as `write_clips` does."""
    told = [(str(row.path), row.place, row.reason) for row in rows]
    _write(("file", "row", "reason"), told, path)


def _write(header: Sequence[str], rows: Sequence[Iterable[str]], path: pathlib.Path) -> None:
    if not rows:
        if path.exists():
            path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names that are not UTF-8 are written escaped.
    told = {"newline": "", "encoding": "utf-8", "errors": "backslashreplace"}
    with unfinished(path) as part, part.open("w", **told) as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(map(escape, row) for row in rows)


def failed_clips(data_dir: str | os.PathLike, split: str) -> frozenset[str]:
    """Ids of the clips of a split that a data directory's failed.csv lists.

    The last `prepare` there wrote it, which may have ended without a data set of its own: what
    counts is which of them the split lacks.

    Raises:
      UserError: the file is damaged.
    """
    path = pathlib.Path(data_dir) / FAILED_FILE
    if not path.exists():
        return frozenset()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
            return frozenset(
                unescape(row["clip"]) for row in rows if unescape(row["split"]) == split
            )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): prepare again, or remove it") from error
