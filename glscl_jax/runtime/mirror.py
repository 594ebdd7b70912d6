"""Local folders that stand for folders of a bucket: what is read there, what is written there.

Data sets are read at random places of their files and runs rename folders and append to files.
Buckets do none of it well, and the libraries in between each something else. So programs work in a
local folder, below $TMPDIR, and whole files go there and back.

A folder that counts only when it is whole (a checkpoint, a data set) is `Marked`: the file that
makes it count is sent last and removed first. So whenever a process is killed, what is in the
bucket is whole.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.files import PART
from glscl_jax.runtime import lock, progress
from glscl_jax.runtime.bucket import Bucket, Object

# Seconds between two looks at what is to be sent.
INTERVAL = 5.0
# Seconds for which a bucket that cannot be written to is tried again, beyond the client's own
# tries.
PATIENCE = 60.0
_THREADS = 8
_GIB = 1 << 30

# What is never sent nor fetched: locks, and what is not finished yet.
_OWN = re.compile(rf"(^|/)\.|{re.escape(PART)}(/|$)|orbax-checkpoint-tmp")

Stat = tuple[int, int]
# Of what was perhaps sent.
_UNKNOWN: Stat = (-1, -1)


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
                        found[name.as_posix()] = _stat(self.path / name)
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
        with futures.ThreadPoolExecutor(_THREADS) as pool:
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
            stat = _stat(part)
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


class Kept:
    """A folder that is written to: this is a local one, which is what it is."""

    def __init__(self, path: pathlib.Path, called: str):
        self.path, self.called = path, called

    def check(self) -> None:
        """Raises a `UserError` if what is written can be kept no more."""

    def finish(self) -> None:
        """Returns when all is where it belongs; raises a `UserError` if it cannot be."""

    def told(self, text: str) -> str:
        """A text with the folder named as the user did."""
        return text.replace(str(self.path), self.called)


class Mirror(Kept):
    """A local folder whose files are sent to a bucket as they come."""

    def __init__(self, copy: Copy):
        super().__init__(copy.path, copy.bucket.address)
        self._copy, self._bucket = copy, copy.bucket
        self._sent: dict[str, Stat] = {}
        self._begun, self._lost = False, ""
        self._failing: float | None = None
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def begin(self, *, fetch: bool = True, begun: str = "", watch: bool = True) -> None:
        """Fetches what is there and sees that it may be written to.

        Args:
          fetch: whether to; otherwise what is there stays, but for files of the same names.
          begun: as of `Copy.fetch`.
          watch: whether to send what comes while it comes, and not at the end alone.
        """
        self._bucket.check_writable()
        if fetch:
            self._copy.fetch(begun=begun)
            self._sent = self._copy.scan()
        self.path.mkdir(parents=True, exist_ok=True)
        self._begun = True
        if watch:
            self._thread = threading.Thread(target=self._watch, name="bucket", daemon=True)
            self._thread.start()

    def put(self) -> None:
        """Sends what is new or changed, then removes what is gone.

        Loose files go first, in the order in which they were written: a run's config is there
        before its first checkpoint.

        Raises:
          UserError: something could not be sent or removed.
        """
        now = self._copy.scan()
        loose, folders = {}, {}
        for name, stat in now.items():
            if folder := self._copy.folder_of(name):
                folders.setdefault(folder, {})[name] = stat
            else:
                loose[name] = stat
        for name in sorted(loose, key=lambda name: loose[name][1]):
            self._send({name: loose[name]})
        for (folder, marker), files in folders.items():
            if marker in files and self._sent.get(marker) != files[marker]:
                self._send_marked(folder, marker, files)
        self._remove_gone(now)

    def _send(self, files: dict[str, Stat]) -> bool:
        """Sends files side by side; returns whether all of them are still as they were."""

        def send(name: str) -> bool:
            if self._sent.get(name) == files[name]:
                return True
            # Perhaps there from now on, and no more what it was.
            self._sent[name] = _UNKNOWN
            try:
                self._bucket.put(self.path / name, name)
                if _stat(self.path / name) != files[name]:
                    return False
            except FileNotFoundError:  # removed meanwhile
                return False
            self._sent[name] = files[name]
            return True

        with futures.ThreadPoolExecutor(min(_THREADS, len(files))) as pool:
            return all(list(pool.map(send, files)))

    def _send_marked(self, folder: str, marker: str, files: dict[str, Stat]) -> None:
        # What one that was killed had sent of it was not fetched, and is not of this one.
        left = (name for name in self._bucket.objects() if name.startswith(folder))
        self._sent = dict.fromkeys(left, _UNKNOWN) | self._sent
        if marker in self._sent:
            self._remove([marker])
        self._remove([x for x in self._sent if x.startswith(folder) and x not in files])
        inner = {name: stat for name, stat in files.items() if name != marker}
        # One of which something went meanwhile is being removed, and is not whole any more.
        if self._send(inner) and all((self.path / name).exists() for name in files):
            self._send({marker: files[marker]})

    def _remove_gone(self, now: dict[str, Stat]) -> None:
        gone = {n: self._copy.folder_of(n) for n in self._sent if n not in now}
        # Of a marked folder all goes or nothing, and what makes it count goes first.
        names = [name for name, inside in gone.items() if not inside or inside[1] not in now]
        self._remove(sorted(names, key=lambda name: not gone[name] or gone[name][1] != name))

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._bucket.remove(name)
            del self._sent[name]

    def check(self) -> None:
        if self._lost:
            raise LostBucketError(self._lost)

    def finish(self) -> None:
        if not self._begun:
            return
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        while not self._round():
            time.sleep(min(1.0, PATIENCE / 10))
        self.check()
        with contextlib.suppress(UserError):  # It is all there.
            self._copy.remember()
        self._begun = False

    def stop(self) -> None:
        """Sends no more."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._lost and not self._stopped.wait(INTERVAL):
            self._round()

    def _round(self) -> bool:
        """Sends what there is; returns whether there is no more to do, or to hope for."""
        if self._lost:
            return True
        try:
            self.put()
            self._failing = None
            return True
        except UserError as error:
            now = time.monotonic()
            if self._failing is None:
                self._failing = now
                print(f"warning: {error}; trying again", file=sys.stderr, flush=True)
            if now - self._failing < PATIENCE:
                return False
            self._lost = f"{error}; {self._left()}"
            return True

    def _left(self) -> str:
        sent = [folder for name in self._sent if (folder := self._copy.folder_of(name))]
        whole = [folder for folder, marker in sent if self._sent.get(marker, _UNKNOWN) != _UNKNOWN]
        last = max(whole, key=lambda name: (len(name), name), default="")
        has = f"the last in it that is whole is {last.rstrip('/')}" if last else "nothing is whole"
        return f"{has}; what was made since lies in {self.path} until the next start"


class LostBucketError(UserError):
    """A bucket that could not be written to, with the way to what was not sent."""


@contextlib.contextmanager
def written(
    given: str | os.PathLike,
    name: str,
    marked: Sequence[Marked] = (),
    *,
    fetch: bool = True,
    begun: str = "",
    watch: bool = True,
    by_first: Callable[[Callable[[], None]], None] = lambda action: action(),
) -> Iterator[Kept]:
    """A folder to write to, wherever it is to be, for the body.

    Of a bucket it is a local one, of which one program at a time has hold. What is in it when the
    body ends, well or with a `UserError`, is sent.

    Args:
      given: a path, or an address in a bucket.
      name: of the flag or argument, for messages.
      marked: folders that count when they are whole.
      fetch, begun, watch: as of `Mirror.begin`.
      by_first: runs what one process of several is to do.

    Raises:
      UserError: the bucket is not there, not allowed or gone; or as the body does, with the folder
        named as the user did.
    """
    if not paths.is_address(given):
        path = paths.local(given, name)
        yield Kept(path, str(path))
        return
    bucket = Bucket(os.fspath(given), name)
    place = _place(bucket.address, "written" if fetch else "out")
    kept = Mirror(Copy(bucket, place, marked))
    with contextlib.ExitStack() as claims:

        def begin() -> None:
            taken = "another program writes to it"
            called = f"{name} {bucket.address}"
            claims.enter_context(lock.claimed(place.parent, f"{place.name}.lock", called, taken))
            if not fetch:
                shutil.rmtree(place, ignore_errors=True)
            kept.begin(fetch=fetch, begun=begun, watch=watch)

        by_first(begin)
        try:
            yield kept
            kept.finish()
        except LostBucketError:
            raise
        except UserError as error:
            with contextlib.suppress(UserError):  # What was wrong first is said.
                kept.finish()
            raise UserError(kept.told(str(error))) from error
        finally:
            kept.stop()


@contextlib.contextmanager
def fetched(
    given: str | os.PathLike,
    name: str,
    marked: Sequence[Marked] = (),
    fetch: Callable[[Copy], None] = Copy.fetch,
) -> Iterator[pathlib.Path]:
    """A folder to read, wherever it is; of a bucket a local copy of what is in it now.

    Args:
      given: a path, or an address in a bucket.
      name: of the flag or argument, for messages.
      marked: folders that count when they are whole.
      fetch: fetches what is needed of it.

    Raises:
      UserError: it cannot be fetched; or as the body does, with the folder named as the user did.
    """
    if not paths.is_address(given):
        yield paths.local(given, name)
        return
    bucket = Bucket(os.fspath(given), name)
    place = _place(bucket.address, "read")
    with place.with_name(f"{place.name}.lock").open("a") as file:
        # Another process of this host may be fetching the same.
        fcntl.flock(file, fcntl.LOCK_EX)
        fetch(Copy(bucket, place, marked))
    if not place.is_dir() or not any(place.iterdir()):
        raise UserError(f"{name} {bucket.address}: nothing is there")
    try:
        yield place
    except UserError as error:
        raise UserError(str(error).replace(str(place), bucket.address)) from error


def _place(address: str, role: str) -> pathlib.Path:
    """Where the local folder of an address lies, which has its name.

    What is read is apart from what is written. The folder around it exists, and is the address's
    own.
    """
    own = pathlib.Path(tempfile.gettempdir()).absolute() / f"glscl-jax-{os.getuid()}"
    around = own / f"{role}-{hashlib.sha256(address.encode()).hexdigest()[:16]}"
    try:
        own.mkdir(mode=0o700, parents=True, exist_ok=True)
        if own.stat().st_uid != os.getuid():
            raise UserError(f"{own} is another user's: set TMPDIR to a folder of your own")
        around.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{around}: {error.strerror}: set TMPDIR to a disk with room") from error
    return around / address.rpartition("/")[2]


def _stat(path: pathlib.Path) -> Stat:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
