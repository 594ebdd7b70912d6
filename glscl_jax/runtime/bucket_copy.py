"""A local copy of a bucket's folder: what of it is fetched, and what counts there.

A folder that counts only when it is whole (a checkpoint, a data set) is `Marked`: without the file
that makes it count nothing of it is fetched.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

from glscl_jax.errors import UserError
from glscl_jax.files import PART
from glscl_jax.runtime import progress
from glscl_jax.runtime.bucket import Bucket, Object

THREADS = 8
_GIB = 1 << 30

# What is never sent nor fetched: locks, and what is not finished yet.
_OWN = re.compile(rf"(^|/)\.|{re.escape(PART)}(/|$)|orbax-checkpoint-tmp")

Stat = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Marked:
    """Folders that count only where a file is in them.

    Attributes:
      folders: a pattern of their names, with the slash at the end.
      marker: the file's name.
    """

    folders: str
    marker: str

    def folder_of(self, name: str) -> str | None:
        """The marked folder, with its slash, in which a file lies; None for none."""
        match = re.match(self.folders, name)
        return match[0] if match else None


class Copy:
    """A local copy of a bucket's folder, and a record of what of it is as it is there."""

    def __init__(self, bucket: Bucket, path: pathlib.Path, marked: Sequence[Marked] = ()):
        self.bucket, self.path = bucket, path
        self._marked = marked
        self._record = path.with_name(f"{path.name}.jsonl")

    def folder_of(self, name: str) -> tuple[str, str] | None:
        """The marked folder in which a file lies, and its marker; both names, None for none."""
        for marked in self._marked:
            if folder := marked.folder_of(name):
                return folder, folder + marked.marker
        return None

    def fetch(self, wanted: Callable[[str], bool] = lambda name: True, begun: str = "") -> None:
        """Makes the copy what the bucket has, as far as it is wanted; fetches what is not here.

        Args:
          wanted: whether a file is; those that are not stay away, or as they are.
          begun: a file without which what is in no marked folder does not count.

        Raises:
          UserError: it cannot be fetched, or the disk has no room for it.
        """
        there = self._whole(self.bucket.objects(), begun)
        local, record = self.scan(), self._known()
        self._drop(name for name in local if name not in there)
        missing = {
            name: found
            for name, found in there.items()
            if wanted(name) and record.get(name) != (found.tag, local.get(name))
        }
        if missing:
            self._check_room(missing)
            self._fetch(missing)

    def remember(self) -> None:
        """Records that what is here is what the bucket has, where sizes agree: it was sent."""
        local = self.scan()
        there = self.bucket.objects()
        self._note(
            {n: (x.tag, local[n]) for n, x in there.items() if n in local and x.size == local[n][0]}
        )

    def scan(self) -> dict[str, Stat]:
        """The files of the copy, by name: bytes, and when they changed in nanoseconds."""
        found = {}
        for folder, folders, names in os.walk(self.path):
            place = pathlib.Path(folder).relative_to(self.path)
            folders[:] = [x for x in folders if not _OWN.search((place / x).as_posix())]
            for name in (place / x for x in names):
                if not _OWN.search(name.as_posix()):
                    # It may have gone since.
                    with contextlib.suppress(FileNotFoundError):
                        found[name.as_posix()] = stat_of(self.path / name)
        return found

    def _whole(self, there: dict[str, Object], begun: str) -> dict[str, Object]:
        """Without what does not count."""
        found, loose = {}, not begun or begun in there
        for name, told in there.items():
            folder = self.folder_of(name)
            if not _OWN.search(name) and (loose if folder is None else folder[1] in there):
                found[name] = told
        return found

    def _drop(self, names: Iterator[str]) -> None:
        for name in names:
            path = self.path / name
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # as long as they are empty
                while path.parent != self.path:
                    path = path.parent
                    path.rmdir()

    def _check_room(self, missing: dict[str, Object]) -> None:
        size = sum(x.size for x in missing.values())
        self.path.mkdir(parents=True, exist_ok=True)
        if size > (free := shutil.disk_usage(self.path).free):
            raise UserError(
                f"{self.bucket.address}: {size / _GIB:,.1f} GiB are to be fetched, and "
                f"{self.path.parent} has {free / _GIB:,.1f}: set TMPDIR to a larger disk, or mount "
                "the bucket and name the folder"
            )

    def _fetch(self, missing: dict[str, Object]) -> None:
        size = sum(x.size for x in missing.values())
        label = f"fetching {self.bucket.address} ({size / _GIB:,.2f} GiB)"
        with futures.ThreadPoolExecutor(THREADS) as pool:
            under_way = [pool.submit(self._fetch_one, *each) for each in missing.items()]
            try:
                done = futures.as_completed(under_way)
                for one in progress.track(done, label, len(missing), "files"):
                    one.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch_one(self, name: str, told: Object) -> None:
        path = self.path / name
        part = path.with_name(path.name + PART)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.bucket.get(name, part)
            stat = stat_of(part)
            if stat[0] != told.size:
                raise UserError(
                    f"{self.bucket.address}: {name} has {stat[0]} bytes, not {told.size}: "
                    "something else writes there: start again"
                )
            part.replace(path)
        except OSError as error:
            raise UserError(f"{self.bucket.address}: {path}: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)
        self._note({name: (told.tag, stat)})

    def _known(self) -> dict[str, tuple[str, Stat]]:
        """Of each file, what the bucket and the disk said when it was fetched."""
        found = {}
        for line in self._record.read_text().splitlines() if self._record.exists() else ():
            # A killed process may have left half of one.
            with contextlib.suppress(ValueError):
                name, tag, size, changed = json.loads(line)
                found[name] = tag, (size, changed)
        return found

    def _note(self, fetched: dict[str, tuple[str, Stat]]) -> None:
        lines = [json.dumps([name, tag, *stat]) for name, (tag, stat) in fetched.items() if tag]
        with self._record.open("a") as file:
            file.write("".join(f"\n{line}\n" for line in lines))


def stat_of(path: pathlib.Path) -> Stat:
    """Bytes, and when it changed in nanoseconds; raises a `FileNotFoundError`."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns
