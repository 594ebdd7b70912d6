"""An index on the disk: what it is of, its windows' features, and what is known of each.

index.json        what made it; written last when it is made, so a half-made one is none
N/windows.lance   a row a window (`window_table`)
N/neighbours.lance  a vector a window (`neighbours`), where it was asked for
N/features/       numbers of each window (`feature_files`)
failed.csv        what could not be read

N is a number that goes up when windows that were taken out are left behind (`compact`). First
features are written and then the rows that name them: whoever is killed in between leaves numbers
that nobody knows of, and the next writer writes over them.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from glscl_jax.errors import UserError
from glscl_jax.files import PART, differences, read_json, write_json
from glscl_jax.search.feature_files import Arrays, FeatureFiles
from glscl_jax.search.metadata import Metadata
from glscl_jax.search.video_folder import Known, Video
from glscl_jax.search.window_table import OWN, WindowTable

INDEX, FORMAT = "index.json", 1
NOT_SHOWN = "clips of a prepared data set have no file here: they are neither shown nor played"
# What index.json says of every index, and of what it was made.
_NEEDED = {"generation": int, "made_of": dict, "checkpoint": str, "videos": str}
_MADE_OF = ("model", "reading")
# `compact` acts where at least so many rows were taken out, and this share of all.
_HOLES, _HOLE_SHARE = 1024, 0.25
_COPIED_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What an index holds at one time, whatever is added meanwhile.

    Attributes:
      table: of the windows, in the order of `rows`.
      rows: int64 [B], the number of each one's features, ascending.
      arrays: the features, mapped; as many rows as the highest number asks for, and holes in them.
    """

    table: pa.Table
    rows: np.ndarray
    arrays: Arrays

    @property
    def count(self) -> int:
        """How many rows the arrays have."""
        return int(self.rows[-1]) + 1 if len(self.rows) else 0

    def records(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """What is known of some rows, in their order."""
        places = np.searchsorted(self.rows, np.asarray(rows, np.int64))
        return self.table.take(pa.array(places)).to_pylist()


class Store:
    """An index's files. One process writes at a time (`runtime.lock`); any number read.

    Attributes:
      directory: of the index.
      about: what `index.json` says.
      folder: of the generation: its table and its features.
      features: the arrays of its windows.
    """

    def __init__(self, directory: pathlib.Path, about: dict[str, Any]):
        self.directory, self.about = directory, about
        self.folder = directory / str(about["generation"])
        self.features = FeatureFiles(self.folder / "features")
        self._table = WindowTable(self.folder)
        self._next: int | None = None

    @classmethod
    def open(cls, directory: pathlib.Path) -> "Store":
        """Opens an index.

        Raises:
          UserError: there is none, or it is damaged, or of a later release.
        """
        path = directory / INDEX
        if not path.is_file():
            what = f"no {INDEX} in it" if directory.is_dir() else "no such folder"
            what = "a file, and no folder" if directory.is_file() else what
            raise UserError(
                f"--index {directory}: {what}: make it with python -m glscl_jax.search index"
            )
        about = read_json(path)
        if about.get("format") != FORMAT:
            raise UserError(
                f"{path} is of format {about.get('format')}, this release reads {FORMAT}: index"
                " into another directory"
            )
        missing = [name for name, kind in _NEEDED.items() if not isinstance(about.get(name), kind)]
        if missing or not all(isinstance(about["made_of"].get(name), dict) for name in _MADE_OF):
            told = f"no {min(missing or ['made_of'])!r}"
            raise UserError(f"{path} is damaged ({told}): index into another directory")
        store = cls(directory, about)
        if not store._table.there:
            raise UserError(
                f"{directory / str(about['generation'])} is damaged (its table of windows is gone):"
                " index into another directory"
            )
        return store

    @classmethod
    def create(cls, directory: pathlib.Path, about: Mapping[str, Any]) -> "Store":
        """Makes an index without windows.

        Raises:
          UserError: the directory holds something else.
        """
        # What a run that was killed had begun has no index.json: it is begun anew.
        names = [one.name for one in directory.iterdir() if not one.name.startswith(".")]
        others = [name for name in names if name != "1" and not name.endswith(PART)]
        if others:
            raise UserError(
                f"--index {directory} holds something else ({min(others)}): give an empty directory"
            )
        told = {"format": FORMAT, "generation": 1, **about}
        shutil.rmtree(directory / "1", ignore_errors=True)
        store = cls(directory, told)
        store._table.replace(OWN.empty_table())
        store._write()
        return store

    @property
    def is_prepared(self) -> bool:
        """Whether it is of a prepared data set, and of no folder of videos."""
        return bool(self.about.get("data_dir"))

    def check_provenance(self, made_of: Mapping[str, Any]) -> None:
        """Raises a `UserError` unless it was made of this: a checkpoint, how videos are read."""
        if told := differences(self.about["made_of"], dict(made_of)):
            raise UserError(
                f"--index {self.directory} was made with other things ({told}): give those, or"
                " index into another directory"
            )

    def change(self, **about) -> None:
        """Changes entries of index.json, and writes it if they differ."""
        if any(self.about.get(name) != value for name, value in about.items()):
            self.about = self.about | about
            self._write()

    def known(self) -> dict[str, Known]:
        """The videos that it has windows of, by name."""
        found: dict[str, list[dict]] = {}
        for row in self._table.read().select(OWN.names).to_pylist():
            found.setdefault(row["video"], []).append(row)
        return {
            name: Known(
                *(rows[0][key] for key in ("size", "modified", "sha256", "windows")),
                frozenset(row["start"] for row in rows),
            )
            for name, rows in found.items()
        }

    def add(self, records: Sequence[Mapping[str, Any]], arrays: Arrays, metadata: Metadata) -> None:
        """Adds windows: they are there together, or none of them is.

        Args:
          records: the columns of `OWN` but "row".
          arrays: their features, [len(records),...] each.
          metadata: of the table's other columns.

        Raises:
          UserError: there is no room; what was there before is as it was.
        """
        first = self._next_row()
        self._next = first + len(records)
        videos = [record["video"] for record in records]
        columns = {
            name: pa.array([record[name] for record in records], OWN.field(name).type)
            for name in OWN.names
            if name != "row"
        }
        columns |= {"row": pa.array(range(first, first + len(records)), pa.int64())}
        table = pa.table(columns | metadata.columns(videos)).select(metadata.schema.names)
        try:
            self.features.put(first, arrays)
            self._table.add(table)
        except Exception as error:
            raise unwritten(self.directory, error) from error

    def remove(self, videos: Sequence[str]) -> None:
        """Takes all windows of videos out.

        Their numbers are not given again: who reads an older version has them mapped.
        """
        if videos:
            self.change(next_row=self._next_row())
            self._table.remove(videos)

    def update_columns(self, metadata: Metadata, touched: Sequence[Video]) -> None:
        """Updates the columns beside the features: `metadata`, and the times of files."""
        if not touched and self.about.get("metadata_sha256") == metadata.sha256:
            return
        table = self._table.read()
        times = {video.name: video.modified for video in touched}
        videos = table["video"].to_pylist()
        known = table["modified"].to_pylist()
        modified = [times.get(name, time) for name, time in zip(videos, known, strict=True)]
        own = {name: table[name] for name in OWN.names}
        own |= {"modified": pa.array(modified, pa.int64()), **metadata.columns(videos)}
        try:
            self._table.replace(pa.table(own).cast(metadata.schema))
        except Exception as error:
            raise unwritten(self.directory, error) from error
        self.change(metadata_sha256=metadata.sha256)

    def compact(self) -> bool:
        """Copies what is left into a new generation if much was taken out; whether it did."""
        snapshot = self.snapshot()
        holes = snapshot.count - len(snapshot.rows)
        if holes < _HOLES or holes < _HOLE_SHARE * snapshot.count:
            return False
        old = self.about["generation"]
        folder = self.directory / str(old + 1)
        shutil.rmtree(folder, ignore_errors=True)
        features = FeatureFiles(folder / "features")
        try:
            for start in range(0, len(snapshot.rows), _COPIED_ROWS):
                rows = snapshot.rows[start : start + _COPIED_ROWS]
                features.put(start, {name: x[rows] for name, x in snapshot.arrays.items()})
            folder.mkdir(exist_ok=True)
            numbers = pa.array(range(len(snapshot.rows)), pa.int64())
            place = snapshot.table.schema.get_field_index("row")
            WindowTable(folder).replace(snapshot.table.set_column(place, "row", numbers))
            self.change(generation=old + 1, next_row=len(snapshot.rows))
        except Exception as error:
            raise unwritten(self.directory, error) from error
        # Whoever reads the old one does so to the end: it goes with the next writer.
        self.__init__(self.directory, self.about)
        return True

    def tidy(self, *, prune: bool = False) -> None:
        """As `WindowTable.tidy`."""
        self._table.tidy(prune=prune)

    def sweep(self) -> None:
        """Removes what generations before this one left."""
        for folder in self.directory.iterdir():
            if folder.name.isdigit() and int(folder.name) != self.about["generation"]:
                shutil.rmtree(folder, ignore_errors=True)

    def version(self) -> tuple[int, int]:
        """Goes to what is newest; returns its generation and its table's version."""
        about = read_json(self.directory / INDEX)
        if about["generation"] != self.about["generation"]:
            self.__init__(self.directory, about)
        return about["generation"], self._table.latest()

    def snapshot(self) -> Snapshot:
        """What there is now.

        Raises:
          UserError: it is damaged.
        """
        table = self._table.read()
        rows = table["row"].to_numpy()
        count = int(rows[-1]) + 1 if len(rows) else 0
        return Snapshot(table, rows, self.features.maps(count) if count else {})

    def where(self, condition: str, snapshot: Snapshot) -> np.ndarray:
        """The rows of a snapshot for which a condition holds; raises as `WindowTable.where`."""
        shown = [name for name in snapshot.table.column_names if name not in ("row", "windows")]
        found = self._table.where(condition, shown)
        return np.intersect1d(found, snapshot.rows, assume_unique=True)

    def _next_row(self) -> int:
        if self._next is None:
            rows = self._table.read()["row"]
            last = rows[-1].as_py() if len(rows) else -1
            self._next = max(last + 1, self.about.get("next_row", 0))
        return self._next

    def _write(self) -> None:
        try:
            write_json(self.directory / INDEX, self.about)
        except OSError as error:
            raise unwritten(self.directory, error) from error


def unwritten(directory: pathlib.Path, error: Exception) -> UserError:
    """What is said of an index that cannot be written to."""
    told = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
    return UserError(
        f"--index {directory} cannot be written ({told[:200]}): what is in it stays; make room and"
        " run the same again"
    )
