"""Which file each id is, told by a table: for files whose names say nothing of what they are.

A table is a CSV file with the columns `id`, as the annotations name a video, and `file`, a file's
name, found however deep it lies, or its path below the folder of the videos. Whose ids they are
`source.named_by` says.
"""

import pathlib
import posixpath

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.bad_rows import Faults, RowError
from glscl_jax.input_pipeline.annotations.csv_file import csv_records
from glscl_jax.input_pipeline.annotations.source import stem

COLUMNS = ("id", "file")


class FileNames:
    """A table as it was read; it remembers which of its ids were asked for.

    Attributes:
      path: the table.
      used: ids of it that were asked for.
    """

    def __init__(self, path: pathlib.Path, files: dict[str, str]):
        self.path, self._files = path, files
        self.used: set[str] = set()
        self._by_stem: dict[str, str] = {}
        for name in files:
            # Of two that only their endings tell apart neither is meant by what has none.
            self._by_stem[stem(name)] = "" if stem(name) in self._by_stem else name

    def __call__(self, video_id: str, *, with_ending: bool) -> str:
        """The file of an id, "" where the table has none.

        Args:
          video_id: as the annotations have it.
          with_ending: whether its ending is part of it, or may be another one or missing here.
        """
        name = video_id
        if name not in self._files and not with_ending:
            name = self._by_stem.get(stem(video_id), "")
        if name not in self._files:
            return ""
        self.used.add(name)
        return self._files[name]

    def check_used(self) -> None:
        """Raises a `UserError` where no id of the table is one of the data set."""
        if not self.used:
            first = next(iter(self._files))
            raise UserError(
                f"{self.path}: none of its {len(self._files):,} ids is one of the annotations "
                f"(the first is {first!r}): write ids as they do"
            )

    def describe(self) -> str:
        """A line on how much of it was taken."""
        return f"{self.path}: {len(self.used):,} of its {len(self._files):,} ids name a video"


def read_names(path: pathlib.Path) -> FileNames:
    """Reads a table.

    Raises:
      BadRows: with every row that cannot be taken.
      UserError: it is no such file, or has no rows.
    """
    files, lines, faults = {}, {}, Faults(path)
    for line, record in csv_records(path, COLUMNS):
        with faults.at(f"line {line}"):
            if isinstance(record, RowError):
                raise record
            name, file = tables.string(record["id"], "id"), _file(record["file"])
            if not name:
                raise RowError("no id: write one or delete the line")
            if files.setdefault(name, file) != file:
                raise RowError(f"{name!r} is {files[name]!r} in line {lines[name]}: keep one")
            lines.setdefault(name, line)
    faults.check()
    if not files:
        raise UserError(f"{path}: no rows in it: write an id and its file a line")
    return FileNames(path, files)


def _file(value) -> str:
    """A file's name or path below the folder of the videos, so that one file has one name."""
    told = tables.string(value, "file")
    if not told:
        raise RowError("no file: write one or delete the line")
    if any(character < " " for character in told):
        raise RowError(f"file {told!r} holds a control character: no file is named so")
    file = posixpath.normpath(told)
    if posixpath.isabs(file) or file.split("/")[0] in (".", ".."):
        raise RowError(f"file {told!r} leads outside of the folder: give a path relative to it")
    return file
