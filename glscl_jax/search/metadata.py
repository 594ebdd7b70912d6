"""`metadata.csv`: what else is known of each video, by which one may filter.

A column `video`, paths relative to the folder, and any others. A column of whole numbers, numbers,
or dates (2024-05-31) is one of those; every other is text.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Sequence

import pyarrow as pa

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations.bad_rows import RowError
from glscl_jax.input_pipeline.annotations.csv_file import csv_records
from glscl_jax.input_pipeline.annotations.empty_cells import EmptyCells
from glscl_jax.search.window_table import OWN

NAME = "metadata.csv"
_COLUMN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", text, re.ASCII | re.IGNORECASE):
        raise ValueError
    return float(text)


# The first that takes all cells of a column is its type.
_TYPES: tuple[tuple[Callable, pa.DataType], ...] = (
    (_whole, pa.int64()),
    (_number, pa.float64()),
    (datetime.date.fromisoformat, pa.date32()),
    (str, pa.string()),
)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of videos.

    Attributes:
      fields: of the columns beside `OWN`.
      of: a video's name -> its values, by column; empty cells are missing.
    """

    fields: tuple[pa.Field, ...] = ()
    of: dict[str, dict] = dataclasses.field(default_factory=dict)

    @property
    def schema(self) -> pa.Schema:
        """Of the whole table of windows."""
        return pa.schema([*OWN, *self.fields])

    @property
    def sha256(self) -> str:
        """Tells these values and types from others."""
        told = [[str(field) for field in self.fields], self.of]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    def columns(self, videos: Sequence[str]) -> dict[str, pa.Array]:
        """The columns of a table whose rows are of these videos."""
        return {
            field.name: pa.array(
                [self.of.get(video, {}).get(field.name) for video in videos], field.type
            )
            for field in self.fields
        }


def read_for(
    names: Collection[str], folder: pathlib.Path, given: str | os.PathLike | None
) -> Metadata:
    """Reads what is known of a folder's videos, if anything; prints which rows are of none of them.

    Args:
      names: of the videos.
      folder: whose `NAME` is read if no other file is given.
      given: the file.

    Raises:
      UserError: it is not there, or as `read` raises it.
    """
    path = folder / NAME if given is None else paths.local(given, "--metadata")
    if not path.is_file():
        if given is None:
            return Metadata()
        what = "a folder" if path.is_dir() else "no such file"
        raise UserError(f"--metadata {path}: {what}: name a CSV file with a column video")
    found = read(path)
    if lost := sorted(found.of.keys() - set(names)):
        print(
            f"{path}: {len(lost):,} of {len(found.of):,} rows are of no video there, the first"
            f" {lost[0]!r}",
            flush=True,
        )
    return found


def read(path: pathlib.Path) -> Metadata:
    """Reads the file.

    Raises:
      UserError: naming the row or the column that is wrong.
    """
    cells, values = EmptyCells(), {}
    names: list[str] = []
    for line, record in csv_records(path, ("video",)):
        if isinstance(record, RowError):
            raise UserError(f"{path} line {line}: {record}")
        names = [name for name in record if name and name != "video"]
        given = cells.given(record)
        if "video" not in given:
            raise UserError(f"{path} line {line}: no video: name one or delete the row")
        video = pathlib.PurePosixPath(given["video"].strip()).as_posix()
        if video in values:
            raise UserError(f"{path} line {line}: {video!r} is there twice: keep one row")
        values[video] = {name: given[name].strip() for name in names if name in given}
    _check_names(path, names)
    fields = []
    for name in names:
        told = {video: row[name] for video, row in values.items() if name in row}
        typed, kind = _typed(told)
        fields.append(pa.field(name, kind))
        for video, value in typed.items():
            values[video][name] = value
    return Metadata(tuple(fields), values)


def _check_names(path: pathlib.Path, names: Sequence[str]) -> None:
    for name in names:
        if name in OWN.names or name.startswith("_"):
            raise UserError(f"{path}: column {name!r} is the index's own: call it something else")
        if not _COLUMN.fullmatch(name):
            raise UserError(
                f"{path}: column {name!r} could not be named in a filter: call it by letters,"
                " digits and _"
            )


def _typed(cells: dict[str, str]) -> tuple[dict, pa.DataType]:
    for convert, kind in _TYPES:
        try:
            return {video: convert(cell) for video, cell in cells.items()}, kind
        except ValueError:
            continue
    raise AssertionError("text takes everything")
