"""A user's own videos: a folder with a `captions.csv` or a `captions.jsonl`."""

import dataclasses
import functools
import json
import os
import pathlib
import posixpath
import re
from collections.abc import Iterator

from glscl_jax.errors import UserError
from glscl_jax.input_pipeline.annotations import source as source_files
from glscl_jax.input_pipeline.annotations import tables
from glscl_jax.input_pipeline.annotations.clip import Clip
from glscl_jax.input_pipeline.annotations.tables import Faults, RowError

CAPTION_FILES = ("captions.csv", "captions.jsonl")
REQUIRED_COLUMNS = ("video", "caption")
COLUMNS = (*REQUIRED_COLUMNS, "start", "end", "split")
DEFAULT_SPLIT = "train"
# TFDS keeps `all` for every split together and puts the others into file names.
_SPLIT_NAME = re.compile(r"(?!all$)[A-Za-z]\w*", re.ASCII)


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


def read_folder(source: pathlib.Path, videos: pathlib.Path | None = None) -> list[Clip]:
    """Reads a folder of videos with a `captions.csv` or a `captions.jsonl`.

    Columns, or keys of each line's object: video and caption; start, end (seconds) and split may
    be left out or empty. Rows of the same video, start and end are one clip with several captions.

    Args:
      source: the folder.
      videos: another folder, where the videos are. Their paths are relative to it and stay
        inside, links followed.

    Raises:
      UserError: naming the file, the first bad line, and how many more there are.
    """
    source = pathlib.Path(source)
    videos = pathlib.Path(videos or source)
    root = os.path.realpath(videos)
    path = _caption_file(source)
    records = (
        tables.csv_records(path, REQUIRED_COLUMNS, COLUMNS)
        if path.suffix == ".csv"
        else _json_records(path)
    )
    rows: dict[tuple[str, str], _Row] = {}
    splits: dict[str, _Row] = {}
    faults = Faults(path)
    for line, record in records:
        with faults.at(f"line {line}"):
            row = _check_row(line, record, root)
            first = splits.setdefault(row.clip_id, row)
            if first.split != row.split:
                raise RowError(
                    f"{row.clip_id!r} is in split {row.split!r} here and in {first.split!r} in line"
                    f" {first.line}: give it one split"
                )
            same = rows.setdefault((row.clip_id, row.caption), row)
            if same is not row:
                raise RowError(f"says the same as line {same.line}: delete one of them")
    faults.check()
    if not rows:
        raise UserError(f"{path}: no captions in it: write one a line")
    return _clips(rows.values(), videos)


def _clips(rows, videos: pathlib.Path) -> list[Clip]:
    clips: dict[str, Clip] = {}
    for row in rows:
        before = clips.get(row.clip_id)
        captions = (*before.captions, row.caption) if before else (row.caption,)
        video = videos / row.video
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


def _json_records(path: pathlib.Path) -> Iterator[tuple[int, dict | RowError]]:
    for line, text in tables.lines(path):
        if not text.strip():
            yield line, {}
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0]
            yield line, RowError(f"not JSON ({reason}): write one object a line")
            continue
        if not isinstance(record, dict):
            yield line, RowError('not an object: write {"video": ..., "caption": ...}')
        else:
            yield line, record


def _check_row(line: int, record: dict | RowError, root: str) -> _Row:
    if isinstance(record, RowError):
        raise record
    given = {name: value for name, value in record.items() if not _is_empty(value)}
    if not given:
        raise RowError("empty: delete the line")
    for name in given:
        if name not in COLUMNS:
            raise RowError(f"unknown key {name!r}: rename it or take it out")
    for name in REQUIRED_COLUMNS:
        if name not in given:
            raise RowError(f"no {name}: write one or delete the line")
    caption = tables.caption(given["caption"])
    split = tables.string(given["split"], "split") if "split" in given else DEFAULT_SPLIT
    if not _SPLIT_NAME.fullmatch(split):
        raise RowError(f"split {split!r}: use letters, digits and _, a letter first, not 'all'")
    start, end = (
        tables.seconds(given[name], name) if name in given else None for name in ("start", "end")
    )
    if end is not None and (start or 0.0) >= end:
        raise RowError(f"start {start or 0:g} is not before end {end:g}: mend one of them")
    return _Row(line, _video(given["video"], root), caption, start, end, split)


def _is_empty(value) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _video(value, root: str) -> str:
    """The video's path relative to the folder, so that one file has one name."""
    video = posixpath.normpath(tables.string(value, "video"))
    if any(character < " " for character in video):
        raise RowError(f"video {video!r} holds a control character: no file is named so")
    if posixpath.isabs(video) or not _inside(root, video):
        raise RowError(f"video {video!r} leads outside of the folder: give a path relative to it")
    return video


@functools.cache
def _inside(root: str, video: str) -> bool:
    return not source_files.leads_out(root, f"{root}{os.sep}{video}")
