"""Fetches what a folder lacks of a state of an index in a bucket."""

import contextlib
import os
import pathlib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

from glscl_jax.errors import UserError
from glscl_jax.files import PART, read_json, unfinished, write_json
from glscl_jax.runtime import progress
from glscl_jax.runtime.bucket import Bucket
from glscl_jax.runtime.bucket_copy import THREADS, stat_of
from glscl_jax.search.bucket_states import Segment, State
from glscl_jax.search.feature_files import LAYOUT, FeatureFiles
from glscl_jax.search.store import INDEX

_RECORD = "here.json"
_GIB = 1 << 30


def read_record(own: pathlib.Path) -> dict[str, Any]:
    """What is known of a folder's files and rows.

    Args:
      own: the folder around it.

    Returns:
      files: name -> object, bytes and when it changed. rows: of the features of a folder, first
        and end of what is here.
    """
    try:
        return read_json(own / _RECORD)
    except (OSError, UserError):
        # None yet, or what a machine that was switched off left.
        return {"files": {}, "rows": {}}


def write_record(own: pathlib.Path, files: dict[str, list], state: State) -> None:
    """Notes that all of a state is here."""
    rows = {name: joined([(one.first, one.end) for one in x]) for name, x in state.segments.items()}
    write_json(own / _RECORD, {"files": files, "rows": rows})


def joined(spans: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Spans of rows, first and end, those that touch as one."""
    found: list[list[int]] = []
    for first, end in sorted(spans):
        if found and first <= found[-1][1]:
            found[-1][1] = max(end, found[-1][1])
        else:
            found.append([first, end])
    return found


def together(work: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Does several things side by side; yields as they end, raises what the first raises."""
    with futures.ThreadPoolExecutor(THREADS) as pool:
        under_way = [pool.submit(one) for one in work]
        try:
            for one in futures.as_completed(under_way):
                yield one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class Fetch:
    """Makes a folder what a state says.

    Args:
      bucket: of the index.
      path: the folder, in one of its own.
      state: what it is to be.
    """

    def __init__(self, bucket: Bucket, path: pathlib.Path, state: State):
        self._bucket, self._path, self._state = bucket, path, state
        self._record = read_record(path.parent)

    def run(self, *, sweep: bool, shown: bool) -> None:
        """Does it.

        Args:
          sweep: whether what the state has not is taken away; nobody else reads it then.
          shown: whether to say so, and how far it is.

        Raises:
          UserError: the disk has no room, or something cannot be fetched.
          GoneError: an object is gone, as there is a newer state.
        """
        state = self._state
        missing = [name for name in state.files if not self._is_here(name)]
        rows = [(x, one) for x, some in state.segments.items() for one in self._lacking(x, some)]
        size = sum(state.files[name][1] for name in missing) + sum(one.size for _, one in rows)
        self._check_room(size)
        try:
            # How long rows are stands in the layouts; and what tells of other files comes last.
            self._all(name for name in missing if _order(name) == 0)
            work = [lambda x=each: self._fetch_rows(*x) for each in rows]
            work += [lambda x=name: self._fetch_file(x) for name in missing if _order(name) == 1]
            done = together(work)
            if shown and work:
                label = f"fetching {self._bucket.address} ({size / _GIB:,.2f} GiB)"
                done = progress.track(done, label, len(work), "objects")
            for _ in done:
                pass
            self._all(name for name in missing if _order(name) == 2)
            self._all(name for name in missing if _order(name) == 3)
        finally:
            write_json(self._path.parent / _RECORD, self._record)
        if sweep:
            self._sweep()

    def _all(self, names: Iterator[str]) -> None:
        for _ in together([lambda x=name: self._fetch_file(x) for name in names]):
            pass

    def _is_here(self, name: str) -> bool:
        with contextlib.suppress(OSError):
            here = [self._state.files[name][0], *stat_of(self._path / name)]
            return self._record["files"].get(name) == here
        return False

    def _lacking(self, folder: str, segments: Sequence[Segment]) -> list[Segment]:
        here = self._record["rows"].get(folder, [])
        if here and not (self._path / folder / LAYOUT).is_file():
            here = self._record["rows"][folder] = []
        return [
            one for one in segments if not any(a <= one.first and one.end <= b for a, b in here)
        ]

    def _check_room(self, size: int) -> None:
        if size > (free := shutil.disk_usage(self._path).free):
            raise UserError(
                f"{self._bucket.address}: {size / _GIB:,.1f} GiB are to be fetched, and"
                f" {self._path.parent} has {free / _GIB:,.1f}: set TMPDIR to a larger disk"
            )

    def _fetch_file(self, name: str) -> None:
        path, (there, size) = self._path / name, self._state.files[name]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished(path, many_writers=True) as part:
                self._bucket.get(there, part)
                self._check_size(there, size, part)
            self._record["files"][name] = [there, *stat_of(path)]
        except OSError as error:
            raise UserError(f"{self._bucket.address}: {path}: {error.strerror}") from error

    def _fetch_rows(self, folder: str, one: Segment) -> None:
        part = self._path.parent / f"{uuid.uuid4().hex}{PART}"
        try:
            self._bucket.get(one.name, part)
            self._check_size(one.name, one.size, part)
            FeatureFiles(self._path / folder).paste_rows(one.first, one.count, part)
            spans = [*self._record["rows"].get(folder, []), [one.first, one.end]]
            self._record["rows"][folder] = joined(spans)
        except OSError as error:
            raise UserError(f"{self._bucket.address}: {part}: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    def _check_size(self, name: str, size: int, part: pathlib.Path) -> None:
        if (here := part.stat().st_size) != size:
            raise UserError(f"{self._bucket.address}/{name} is damaged: {here} bytes of {size}")

    def _sweep(self) -> None:
        """Takes away what the state has not: files, and rows behind the last one."""
        for folder, _, names in os.walk(self._path):
            for path in (pathlib.Path(folder) / name for name in names):
                name = path.relative_to(self._path)
                features = name.parent.as_posix()
                if path.suffix == ".bin" and features in self._state.segments:
                    end = self._state.segments[features][-1].end
                    FeatureFiles(path.parent).cut(path.stem, end)
                elif name.as_posix() not in self._state.files:
                    path.unlink()


def _order(name: str) -> int:
    if name.endswith(f"/{LAYOUT}"):
        return 0
    return 3 if name == INDEX else 2 if "/_versions/" in name else 1
