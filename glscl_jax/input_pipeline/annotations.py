"""Each data set's own annotation files -> `Clip` records.

A reader takes the folder that `--source` names and returns its clips, or raises one `UserError`.
To add a benchmark, write its reader and enter it in `READERS`; its key is what `--dataset` takes.
"""

import csv
import dataclasses
import functools
import io
import json
import math
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Iterator

from glscl_jax.errors import UserError

CAPTION_FILES = ("captions.csv", "captions.jsonl")
REQUIRED_COLUMNS = ("video", "caption")
COLUMNS = (*REQUIRED_COLUMNS, "start", "end", "split")
DEFAULT_SPLIT = "train"
# TFDS keeps `all` for every split together and puts the others into file names.
_SPLIT_NAME = re.compile(r"(?!all$)[A-Za-z]\w*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Clip:
    """A piece of video and what is said of it.

    Attributes:
      clip_id: unique in the data set.
      video: the file; it need not exist yet.
      captions: one or more, in the order of the annotations.
      start: seconds from the video's first frame; None means its beginning.
      end: seconds from the video's first frame; None means its end.
      split: train, val, test or any other name.
    """

    clip_id: str
    video: pathlib.Path
    captions: tuple[str, ...]
    start: float | None
    end: float | None
    split: str


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
        if self.start is None and self.end is None:
            return self.video
        start = "" if self.start is None else str(self.start).removesuffix(".0")
        end = "" if self.end is None else "," + str(self.end).removesuffix(".0")
        return f"{self.video}#t={start}{end}"


class _RowError(Exception):
    """What is wrong with a row and the way out."""


def read_folder(source: pathlib.Path) -> list[Clip]:
    """Reads a folder of videos with a `captions.csv` or a `captions.jsonl`.

    Columns, or keys of each line's object: video and caption; start, end (seconds) and split may
    be left out or empty. Rows of the same video, start and end are one clip with several captions.

    Args:
      source: the folder. Video paths are relative to it and stay inside, links followed.

    Raises:
      UserError: naming the file, the first bad line, and how many more there are.
    """
    source = pathlib.Path(source)
    root = os.path.realpath(source)
    path = _caption_file(source)
    read = _csv_records if path.suffix == ".csv" else _json_records
    rows: dict[tuple[str, str], _Row] = {}
    splits: dict[str, _Row] = {}
    problems = []
    for line, record in read(path):
        try:
            row = _check_row(line, record, root)
            first = splits.setdefault(row.clip_id, row)
            if first.split != row.split:
                raise _RowError(
                    f"{row.clip_id!r} is in split {row.split!r} here and in {first.split!r} in line"
                    f" {first.line}: give it one split"
                )
            same = rows.setdefault((row.clip_id, row.caption), row)
            if same is not row:
                raise _RowError(f"says the same as line {same.line}: delete one of them")
        except _RowError as error:
            problems.append(f"{path} line {line}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more bad lines)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more)
    if not rows:
        raise UserError(f"{path}: no captions in it: write one a line")
    return _clips(rows.values(), source)


READERS: dict[str, Callable[[pathlib.Path], list[Clip]]] = {"folder": read_folder}


def _clips(rows, source: pathlib.Path) -> list[Clip]:
    clips: dict[str, Clip] = {}
    for row in rows:
        before = clips.get(row.clip_id)
        captions = (*before.captions, row.caption) if before else (row.caption,)
        video = source / row.video
        clips[row.clip_id] = Clip(row.clip_id, video, captions, row.start, row.end, row.split)
    return list(clips.values())


def _caption_file(source: pathlib.Path) -> pathlib.Path:
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    names = " or ".join(CAPTION_FILES)
    found = [source / name for name in CAPTION_FILES if (source / name).is_file()]
    if not found:
        raise UserError(f"{source}: no {names} in it: write one (columns {', '.join(COLUMNS)})")
    if len(found) > 1:
        raise UserError(f"{source}: both {' and '.join(CAPTION_FILES)} in it: keep one")
    return found[0]


def _text(path: pathlib.Path) -> str:
    try:
        data = path.read_bytes()
        # Spreadsheets put a byte order mark in front.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path} line {line}: not UTF-8: save the file as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: mend that first") from error


def _csv_records(path: pathlib.Path) -> Iterator[tuple[int, dict | _RowError]]:
    """Yields (line, record) of each row; a record that is no row is an error."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    line = 1
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        # A row can span lines, where a cell holds a line break: name the one it starts in.
        line = reader.line_num + 1
        for cells in reader:
            record = dict(zip(header, cells, strict=False))
            if len(cells) != len(header) and any(cell.strip() for cell in cells):
                record = _RowError(
                    f"{len(cells)} cells where the header has {len(header)}: put captions that"
                    ' hold a comma between double quotes (")'
                )
            yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path} line {line}: not CSV ({error}): mend its quotes") from error


def _check_header(path: pathlib.Path, header: list[str]) -> None:
    if not any(header):
        raise UserError(f"{path}: no header in line 1: start with {','.join(COLUMNS)}")
    for name in REQUIRED_COLUMNS:
        if name not in header:
            raise UserError(f"{path}: no column {name!r} in line 1, only {header}")
    for number, name in enumerate(header):
        if name not in COLUMNS:
            raise UserError(f"{path}: unknown column {name!r}: rename it or take it out")
        if name in header[:number]:
            raise UserError(f"{path}: column {name!r} is there twice: take one out")


def _json_records(path: pathlib.Path) -> Iterator[tuple[int, dict | _RowError]]:
    # Not splitlines: a caption may hold one of the rarer line separators.
    for line, text in enumerate(_text(path).removesuffix("\n").split("\n"), 1):
        if not text.strip():
            yield line, {}
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            yield line, _RowError(f"not JSON ({reason}): write one object a line")
            continue
        if not isinstance(record, dict):
            yield line, _RowError('not an object: write {"video": ..., "caption": ...}')
        else:
            yield line, record


def _check_row(line: int, record: dict | _RowError, root: str) -> _Row:
    if isinstance(record, _RowError):
        raise record
    given = {name: value for name, value in record.items() if not _is_empty(value)}
    if not given:
        raise _RowError("empty: delete the line")
    for name in given:
        if name not in COLUMNS:
            raise _RowError(f"unknown key {name!r}: rename it or take it out")
    for name in REQUIRED_COLUMNS:
        if name not in given:
            raise _RowError(f"no {name}: write one or delete the line")
    caption = _string(given, "caption")
    if not any(character.isalnum() for character in caption):
        raise _RowError(f"caption {caption!r} has no letters: write one or delete the line")
    split = _string(given, "split") if "split" in given else DEFAULT_SPLIT
    if not _SPLIT_NAME.fullmatch(split):
        raise _RowError(f"split {split!r}: use letters, digits and _, a letter first, not 'all'")
    start, end = _seconds(given, "start"), _seconds(given, "end")
    if end is not None and (start or 0.0) >= end:
        raise _RowError(f"start {start or 0:g} is not before end {end:g}: mend one of them")
    return _Row(line, _video(given, root), caption, start, end, split)


def _is_empty(value) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _string(given: dict, name: str) -> str:
    if not isinstance(given[name], str):
        raise _RowError(f"{name} {given[name]!r} is not a text: put it between double quotes")
    try:
        given[name].encode()
    except UnicodeEncodeError:
        raise _RowError(f"{name} {given[name]!r} holds half a character: mend it") from None
    return given[name].strip()


def _seconds(given: dict, name: str) -> float | None:
    if name not in given:
        return None
    value = given[name]
    try:
        if isinstance(value, bool):
            raise ValueError
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise _RowError(f"{name} {value!r} is not a number: give seconds") from None
    if not math.isfinite(seconds) or seconds < 0:
        raise _RowError(f"{name} {value!r}: give seconds, 0 or more")
    return abs(seconds)  # -0 is 0


def _video(given: dict, root: str) -> str:
    """The video's path relative to the folder, so that one file has one name."""
    video = posixpath.normpath(_string(given, "video"))
    if any(character < " " for character in video):
        raise _RowError(f"video {video!r} holds a control character: no file is named so")
    if posixpath.isabs(video) or not _inside(root, video):
        raise _RowError(f"video {video!r} leads outside of the folder: give a path relative to it")
    return video


@functools.cache
def _inside(root: str, video: str) -> bool:
    target = os.path.realpath(f"{root}{os.sep}{video}")
    return target.startswith(f"{root}{os.sep}")
