"""A user's own videos: a folder with a `captions.csv` (or .tsv) or a `captions.jsonl`."""

import collections
import dataclasses
import difflib
import functools
import pathlib
import posixpath
import re
from collections.abc import Iterable, Sequence

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import caption_file, clock, tables
from glscl_jax.input_pipeline.annotations import source as source_files
from glscl_jax.input_pipeline.annotations.bad_rows import BadRows, Faults, RowError
from glscl_jax.input_pipeline.annotations.caption_file import COLUMNS, REQUIRED_COLUMNS
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.empty_cells import EmptyCells
from glscl_jax.input_pipeline.annotations.reading import Reading
from glscl_jax.input_pipeline.annotations.split_names import SplitNames

DEFAULT_SPLIT = "train"
# TFDS keeps `all` for every split together and puts the others into file names.
_SPLIT_NAME = re.compile(r"(?!all$)[A-Za-z]\w*", re.ASCII | re.IGNORECASE)
# What begins a media fragment, be it percent-encoded, once or again.
_FRAGMENT = re.compile(r"(#|%(25)*23)t=")


class _LeftOut(RowError):
    """Why a row that is no mistake says nothing."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """One checked row of a folder's caption file; `line` counts from 1."""

    line: int
    video: str
    caption: str
    start: float | None
    end: float | None
    split: str

    @property
    def clip_id(self) -> str:
        """The video and, as a media fragment, its segment in seconds: `a.mp4#t=1.5,3`."""
        video = _without_fragment(self.video)
        if self.start is None and self.end is None:
            return video
        start = "" if self.start is None else str(self.start).removesuffix(".0")
        end = "" if self.end is None else "," + str(self.end).removesuffix(".0")
        return f"{video}#t={start}{end}"


def _without_fragment(name: str) -> str:
    """A file's name as it stands in ids: one that holds `#t=` itself is percent-encoded.

    So that `a.mp4#t=1,2`, a file, is not the segment of `a.mp4`. Of all other names nothing is
    changed; what would look like an encoded one is encoded, too.
    """
    if not _FRAGMENT.search(name):
        return name
    return name.replace("%", "%25").replace("#", "%23")


def read_folder(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """The clips of `read`.

    Raises:
      BadRows: there are bad rows.
      UserError: as `read` does.
    """
    reading = read(source, videos)
    if reading.bad:
        raise BadRows(reading.bad)
    return reading.clips


def read(source: pathlib.Path, videos: pathlib.Path | None = None) -> Reading:
    """Reads a folder of videos with a `captions.csv` (or .tsv) or a `captions.jsonl`.

    Columns, or keys of each line's object: video and caption; start, end (seconds, or a clock's
    hh:mm:ss) and split may be left out or empty. Rows of the same video, start and end are one
    clip with several captions.

    Args:
      source: the folder.
      videos: another folder, where the videos are. Their paths are relative to it and stay
        inside, links followed (but see `source.links_followed`).

    Raises:
      UserError: it is no such file, or has no captions.
    """
    source = pathlib.Path(source)
    videos = pathlib.Path(videos or source)
    path = caption_file.find(source)
    records = list(caption_file.records(path))
    cells, faults, left_out = EmptyCells(), Faults(path), Faults(path, _LeftOut)
    given = [(line, _given(record, cells)) for line, record in records]
    splits = SplitNames(_splits(cells for _, cells in given))
    rows, check = [], _Check(videos, splits)
    for line, told in given:
        with faults.at(f"line {line}"), left_out.at(f"line {line}"):
            if row := check(line, told):
                rows.append(row)
    if not rows and (unused := faults.rows + left_out.rows):
        raise BadRows(unused)
    if not rows:
        raise UserError(f"{path}: no captions in it: write one a line")
    clips = _clips(rows, videos)
    notes = [*_unread(record for _, record in records), *cells.describe(), *splits.describe()]
    if silent := sorted(check.silent - {clip.clip_id for clip in clips}):
        of_all = f"{len(silent):,} of {len(silent) + len(clips):,} clips"
        notes.append(f"{of_all} left out, with no caption that has letters: {_first(silent)}")
    notes = [f"{path}: {note}" for note in notes]
    return Reading(clips, tuple(faults.rows), tuple(left_out.rows), tuple(notes))


class _Check:
    """Checks rows, each by itself and against those before it.

    Attributes:
      silent: ids of clips that have a caption without letters.
    """

    def __init__(self, videos: pathlib.Path, splits: SplitNames):
        self.silent: set[str] = set()
        self._outside = functools.cache(lambda video: source_files.outside(videos, videos / video))
        self._splits = splits
        self._first_of_clip: dict[str, _Row] = {}
        self._first_to_say: dict[tuple[str, str], _Row] = {}

    def __call__(self, line: int, given: dict | RowError) -> _Row | None:
        """The row; None if it is blank.

        Raises:
          RowError: it is a mistake, or to be left out.
        """
        if isinstance(given, RowError):
            raise given
        if not given.keys() & set(COLUMNS):
            return None
        row = _row(line, given, self._splits)
        if told := self._outside(_file(row)):
            raise RowError(f"video {row.video!r}: {told}")
        first = self._first_of_clip.setdefault(row.clip_id, row)
        if first.split != row.split:
            raise RowError(
                f"{row.clip_id!r} is in split {row.split!r} here and in {first.split!r} in line"
                f" {first.line}: give it one split"
            )
        if not tables.has_letters(row.caption):
            self.silent.add(row.clip_id)
            raise _LeftOut(f"caption {row.caption!r} has no letters: left out")
        same = self._first_to_say.setdefault((row.clip_id, row.caption), row)
        if same is not row:
            raise _LeftOut(f"says the same as line {same.line}: left out")
        return row


def _given(record: dict | RowError, cells: EmptyCells) -> dict | RowError:
    """The cells that hold something, of the columns that are read."""
    if isinstance(record, RowError):
        return record
    return cells.given({name: value for name, value in record.items() if name in COLUMNS})


def _splits(given: Iterable[dict | RowError]) -> Iterable[str]:
    """The splits that are named, however they are written."""
    for cells in given:
        if isinstance(cells, dict) and isinstance(cells.get("split"), str):
            yield cells["split"].strip()


def _unread(records: Iterable[dict | RowError]) -> list[str]:
    """A line on columns that are not read, if there are any."""
    names = dict.fromkeys(name for record in records if isinstance(record, dict) for name in record)
    told = []
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name.casefold(), set(COLUMNS) - names.keys(), n=1)
            told.append((name or "one without a name") + "".join(f" ({x}?)" for x in near))
    return [f"columns not read: {', '.join(told)}"] if told else []


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _clips(rows: Iterable[_Row], videos: pathlib.Path) -> list[Clip]:
    members = collections.defaultdict(list)
    for row in rows:
        members[row.clip_id].append(row)
    return [
        Clip(clip_id, videos / _file(r), tuple(x.caption for x in same), r.start, r.end, r.split)
        for clip_id, same in members.items()
        for r in same[:1]
    ]


def _file(row: _Row) -> str:
    """The path of a row's video below their folder: as it is written, or a table has it."""
    return source_files.file_of(row.video, with_ending=True) or row.video


def _row(line: int, given: dict, splits: SplitNames) -> _Row:
    for name in REQUIRED_COLUMNS:
        if name not in given:
            raise RowError(f"no {name}: write one or delete the line")
    caption = tables.string(given["caption"], "caption")
    split = splits[tables.string(given.get("split", DEFAULT_SPLIT), "split")]
    if not _SPLIT_NAME.fullmatch(split):
        raise RowError(f"split {split!r}: use letters, digits and _, a letter first, not 'all'")
    start, end = (
        clock.seconds(given[name], name) if name in given else None for name in ("start", "end")
    )
    if end is not None and (start or 0.0) >= end:
        raise RowError(f"start {start or 0:g} is not before end {end:g}: mend one of them")
    return _Row(line, _video(given["video"]), caption, start, end, split)


def _video(value) -> str:
    """The video's path relative to the folder, so that one file has one name."""
    video = posixpath.normpath(tables.string(value, "video"))
    if any(character < " " for character in video):
        raise RowError(f"video {video!r} holds a control character: no file is named so")
    if posixpath.isabs(video) or video.split("/")[0] in (".", ".."):
        raise RowError(f"video {video!r} leads outside of the folder: give a path relative to it")
    return video
