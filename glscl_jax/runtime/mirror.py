"""Local folders that stand for folders of a bucket: what is read there, what is written there.

Data sets are read at random places of their files and runs rename folders and append to files.
Buckets do none of it well, and the libraries in between each something else. So programs work in a
local folder, below $TMPDIR, and whole files go there and back.

A folder that counts only when it is whole (a checkpoint, a data set) is `Marked`: the file that
makes it count is sent last and removed first. So whenever a process is killed, what is in the
bucket is whole.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

from glscl_jax import paths
from glscl_jax.errors import UserError
from glscl_jax.runtime import lock
from glscl_jax.runtime.bucket import Bucket
from glscl_jax.runtime.bucket_copy import THREADS, Copy, Marked, Stat, stat_of

# Seconds between two looks at what is to be sent.
INTERVAL = 5.0
# Seconds for which a bucket that cannot be written to is tried again, beyond the client's own
# tries.
PATIENCE = 60.0
# Of what was perhaps sent.
_UNKNOWN: Stat = (-1, -1)


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
                if stat_of(self.path / name) != files[name]:
                    return False
            except FileNotFoundError:  # removed meanwhile
                return False
            self._sent[name] = files[name]
            return True

        with futures.ThreadPoolExecutor(min(THREADS, len(files))) as pool:
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
    place = place_of(bucket.address, "written" if fetch else "out")
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
    place = place_of(bucket.address, "read")
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


def place_of(address: str, role: str) -> pathlib.Path:
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
