"""What is known of each window that is searched, in a table of LanceDB.

A row of the table names its row of the features (`feature_files`) by number, so that the two
cannot come apart whatever is added or taken out. Versions are LanceDB's: who reads sees one of
them, whole, while another process adds.
"""

import datetime
import pathlib
import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from glscl_jax.errors import UserError
from glscl_jax.search import engine

_NAME = "windows"
# Columns of every index; those of `metadata.csv` come behind them.
OWN = pa.schema(
    [
        ("row", pa.int64()),
        ("video", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("windows", pa.int32()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("sha256", pa.string()),
    ]
)


class WindowTable:
    """The table of a folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._database = engine.module("lancedb").connect(str(folder))
        try:
            self._table = self._database.open_table(_NAME)
        except (ValueError, FileNotFoundError):
            self._table = None
        except Exception as error:
            raise damaged(folder, error) from error

    @property
    def there(self) -> bool:
        """Whether the table was made."""
        return self._table is not None

    def replace(self, table: pa.Table) -> None:
        """Puts a table in the place of what is there, whole or not at all."""
        self._table = self._database.create_table(_NAME, table, mode="overwrite")

    def add(self, table: pa.Table) -> None:
        """Adds rows, all or none."""
        self._table.add(table)

    def remove(self, videos: Iterable[str]) -> None:
        """Takes the rows of videos out."""
        listed = sorted(videos)
        for start in range(0, len(listed), 256):
            self._table.delete(f"video in ({', '.join(map(_quoted, listed[start : start + 256]))})")

    def latest(self) -> int:
        """Goes to the newest version; returns its number."""
        try:
            self._table.checkout_latest()
            return self._table.version
        except Exception as error:
            raise damaged(self.folder, error) from error

    def read(self) -> pa.Table:
        """All rows, in the order of their numbers."""
        try:
            return self._table.to_arrow().sort_by("row")
        except Exception as error:
            raise damaged(self.folder, error) from error

    def where(self, condition: str, columns: Sequence[str]) -> np.ndarray:
        """The numbers of the rows, int64, for which a condition of SQL holds.

        Raises:
          UserError: it does not parse, or names a column that is not there.
        """
        try:
            found = self._table.search().where(condition).select(["row"]).to_arrow()
        except Exception as error:
            told = re.split(r", /|\n|\. Valid fields", str(error).removeprefix("Invalid input, "))
            raise UserError(
                f"--where {condition!r} is no filter ({told[0]}): columns are {', '.join(columns)};"
                " for example year >= 2024 and place = 'Bern'"
            ) from error
        return np.sort(found["row"].to_numpy())

    def tidy(self, *, prune: bool = False) -> None:
        """Merges the many small files that batches leave.

        Args:
          prune: whether old versions go at once; else they stay for who reads them.
        """
        if prune:
            with warnings.catch_warnings():
                # Of who else reads them: nobody does.
                warnings.simplefilter("ignore", UserWarning)
                self._table.optimize(
                    cleanup_older_than=datetime.timedelta(0), delete_unverified=True
                )
        else:
            self._table.optimize()


def damaged(folder: pathlib.Path, error: Exception) -> UserError:
    """What is said of a table that cannot be read."""
    told = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return UserError(f"{folder} is damaged ({told}): index into another directory")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
