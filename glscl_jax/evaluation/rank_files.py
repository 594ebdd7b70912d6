"""ranks.csv and top.csv: what became of every single query.

ranks.csv  direction, query, clip_id, caption, optimistic, pessimistic
top.csv    direction, query, place, clip_id, caption, score

A text-to-video query (t2v) is a caption: its number, its video's clip id, its words. A
video-to-text query (v2t) is a video: its number and clip id. Ranks count from 1; where items tie
with the right one, they are its first and its last possible place. Captions and clip ids are
escaped (see `spreadsheet`).
"""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from glscl_jax.errors import UserError
from glscl_jax.figures import DIRECTIONS
from glscl_jax.files import unfinished
from glscl_jax.retrieval import metrics
from glscl_jax.retrieval.encoded_split import EncodedSplit
from glscl_jax.retrieval.ranking import TopK
from glscl_jax.spreadsheet import escape, unescape

RANKS, TOP = "ranks.csv", "top.csv"
RANK_COLUMNS = ("direction", "query", "clip_id", "caption", "optimistic", "pessimistic")
TOP_COLUMNS = ("direction", "query", "place", "clip_id", "caption", "score")


@dataclasses.dataclass(frozen=True)
class QueryRanks:
    """The ranks of a direction's queries, as ranks.csv has them.

    Attributes:
      clip_ids: of each query, its own or its video's.
      captions: "" for a video.
      ranks: float64 [queries].
    """

    clip_ids: list[str]
    captions: list[str]
    ranks: metrics.Ranks


def write_ranks(out: pathlib.Path, result: metrics.Retrieval, encoded: EncodedSplit) -> None:
    """Writes ranks.csv into `out`."""
    rows = []
    for name, queries in zip(DIRECTIONS, _names(encoded), strict=True):
        places = getattr(result, name)
        low, high = (x.astype(int).tolist() for x in (places.optimistic, places.pessimistic))
        rows += [(name, i, *query, low[i], high[i]) for i, query in enumerate(queries)]
    _write(out / RANKS, RANK_COLUMNS, rows)


def write_top(out: pathlib.Path, top: dict[str, TopK], encoded: EncodedSplit) -> None:
    """Writes top.csv into `out`: every query's best items, best first.

    `clip_id` and `caption` are the item's: a video has no caption, a caption its video's clip id.
    """
    captions, videos = _names(encoded)
    rows = (
        (name, query, place, *items[item], f"{score:.7g}")
        for name, items in zip(DIRECTIONS, (videos, captions), strict=True)
        for query, (found, scores) in enumerate(zip(top[name].items, top[name].scores, strict=True))
        for place, (item, score) in enumerate(zip(found, scores, strict=True), 1)
    )
    _write(out / TOP, TOP_COLUMNS, rows)


def read_ranks(directory: str | os.PathLike) -> dict[str, QueryRanks]:
    """Reads the ranks.csv of a directory, by direction.

    Raises:
      UserError: it is not there, or damaged.
    """
    path = pathlib.Path(directory) / RANKS
    try:
        with path.open(newline="", encoding="utf-8") as file:
            columns, *rows = csv.reader(file)
        if tuple(columns) != RANK_COLUMNS:
            raise ValueError(f"its columns are {', '.join(columns)}")
        found = {name: _read([row for row in rows if row[0] == name]) for name in DIRECTIONS}
        if sum(len(part.clip_ids) for part in found.values()) != len(rows):
            raise ValueError("a direction that is neither t2v nor v2t")
        if lost := set(found["t2v"].clip_ids) - set(found["v2t"].clip_ids):
            raise ValueError(f"the video of a caption, {min(lost)!r}, is not among the videos")
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is not there: give a directory that glscl_jax.evaluate wrote results into"
        ) from error
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({error}): evaluate again") from error
    return found


def _read(rows: list[list[str]]) -> QueryRanks:
    if not rows:
        raise ValueError("a direction without queries")
    for number, row in enumerate(rows):
        if row[1] != str(number) or len(row) != len(RANK_COLUMNS):
            raise ValueError(f"{row[0]} query {number} is not whole")
    low, high = (np.array([float(row[column]) for row in rows]) for column in (4, 5))
    if not np.all((low >= 1) & (high >= low) & np.isfinite(high)):
        raise ValueError("a rank below 1, or a last place before the first")
    clip_ids, captions = ([unescape(row[column]) for row in rows] for column in (2, 3))
    return QueryRanks(clip_ids, captions, metrics.Ranks(low, high))


def _names(encoded: EncodedSplit) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(clip id, words) of the captions, and (clip id, "") of the videos, as cells."""
    clip_ids = list(map(escape, encoded.clip_ids))
    owners = [clip_ids[b] for b in encoded.owner]
    captions = list(zip(owners, map(escape, encoded.captions), strict=True))
    return captions, [(clip_id, "") for clip_id in clip_ids]


def _write(path: pathlib.Path, columns: Iterable[str], rows: Iterable) -> None:
    """The file appears whole or not at all."""
    try:
        with unfinished(path) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
