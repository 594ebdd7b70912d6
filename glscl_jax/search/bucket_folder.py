"""A folder of this machine that stands for an index in a bucket.

Objects can neither be mapped nor appended to. So an index lies here as any other does, and what is
missing of it is fetched: files as they are, and rows of features, each once. What is written here
is sent by `commit`, whole or not at all (`bucket_states`).
"""

import contextlib
import fcntl
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from typing import IO

from glscl_jax.errors import UserError
from glscl_jax.files import PART
from glscl_jax.input_pipeline.preparing.failures import FAILED_FILE
from glscl_jax.runtime import lock, mirror
from glscl_jax.runtime.bucket import Bucket, GoneError
from glscl_jax.runtime.bucket_copy import Stat, stat_of
from glscl_jax.search.bucket_fetch import Fetch, read_record, together, write_record
from glscl_jax.search.bucket_states import Segment, State, States, TakenError
from glscl_jax.search.feature_files import FeatureFiles
from glscl_jax.search.store import INDEX, Store

_NAME = "--index"
# Seconds between two looks at what another process has added.
FRESH = 5.0
# After so many commits small files and objects are put together; no object becomes larger.
MERGED, _LARGEST = 64, 64 << 20
_TRIES = 5


class BucketFolder:
    """The folder, of one process that writes or of any number that read.

    Attributes:
      path: where it is, once it was fetched.
      called: the address.
    """

    def __init__(self, address: str):
        self._bucket = Bucket(address, _NAME)
        self.called = self._bucket.address
        self._states = States(self.called, _NAME)
        self._state: State | None = None
        self._around = mirror.place_of(self.called, "index").parent
        self.path = self._around
        self._held, self._looked, self._commits = contextlib.ExitStack(), 0.0, 0
        self._dropped: set[str] = set()

    # What reads.

    def read(self) -> None:
        """Fetches what there is; `refresh` does so again.

        Raises:
          UserError: nothing is there, it cannot be fetched, or the disk has no room for it.
        """
        with contextlib.ExitStack() as stack:
            held = stack.enter_context((self._around / "read.lock").open("a"))
            alone = _flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not alone:
                fcntl.flock(held, fcntl.LOCK_SH)
            self._fetch("read", sweep=alone, shown=True)
            # From now on nobody takes away what is no more in the bucket.
            fcntl.flock(held, fcntl.LOCK_SH)
            self._held = stack.pop_all()

    def refresh(self) -> None:
        """Fetches what was added; looks every `FRESH` seconds at the most."""
        if time.monotonic() - self._looked > FRESH:
            self._fetch("read", sweep=False, shown=False)

    # What writes.

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Fetches what there is, to write to it in the body; one process of this host at a time.

        Raises:
          UserError: it cannot be written to; or as the body does, with the address for the folder.
        """
        taken = "another process is indexing there"
        with lock.claimed(self._around, "written.lock", f"{_NAME} {self.called}", taken):
            self._bucket.check_writable()
            self._fetch("written", sweep=True, shown=True)
            now = self._state.objects if self._state else set()
            found = Bucket(f"{self.called}/objects", _NAME).objects()
            self._dropped = {f"objects/{name}" for name in found} - now
            with self.named():
                yield

    def commit(self, store: Store) -> None:
        """Sends what was written: all of it counts from now on, or nothing does.

        Args:
          store: of the folder.

        Raises:
          TakenError: another process has written meanwhile.
          UserError: the bucket cannot be written to.
        """
        self._commits += 1
        merged = self._commits % MERGED == 0
        if merged:
            store.tidy(prune=True)
        old, now = self._state, _files(self.path, store.folder)
        same = self._unchanged(now)
        number = old.number + 1 if old else 1
        prefix = f"objects/{number:012}-{uuid.uuid4().hex[:8]}"
        segments, new = self._segments(store, prefix, merged)
        if old and same.keys() == now.keys() == old.files.keys() and not new:
            return
        files = {name: (same.get(name, f"{prefix}/{name}"), now[name][0]) for name in now}
        work = [lambda x=name: self._send_file(x, files[x][0]) for name in now if name not in same]
        work += [lambda x=one: self._send_rows(store.features, x) for one in new]
        _patiently(lambda: list(together(work)))
        state = State(number, self._own.name, uuid.uuid4().hex, files, segments)
        _patiently(lambda: self._states.add(state))
        write_record(self._own, {name: [files[name][0], *now[name]] for name in now}, state)
        # What the state before had, readers may be fetching: it goes with the next one.
        for name in self._dropped:
            self._bucket.remove(name)
        self._dropped = (old.objects if old else set()) - state.objects
        self._state = state

    def _unchanged(self, now: dict[str, Stat]) -> dict[str, str]:
        """The objects of files that are as they were sent or fetched."""
        known = read_record(self._own)["files"]
        return {
            name: known[name][0]
            for name, stat in now.items()
            if name in known and known[name][1:] == [*stat]
        }

    def send_failed(self) -> None:
        """Sends `failed.csv`, to be read where the index lies, or takes it out."""
        if (self.path / FAILED_FILE).exists():
            self._bucket.put(self.path / FAILED_FILE, FAILED_FILE)
        else:
            self._bucket.remove(FAILED_FILE)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """What a `UserError` says of the folder is said of the address."""
        try:
            yield
        except UserError as error:
            told = str(error)
            if str(self.path) in told:
                raise UserError(told.replace(str(self.path), self.called)) from error
            raise

    @property
    def _own(self) -> pathlib.Path:
        return self.path.parent

    def _segments(
        self, store: Store, prefix: str, merged: bool
    ) -> tuple[dict[str, list[Segment]], list[Segment]]:
        """All rows of features, and those of them that are to be sent."""
        features = store.features
        folder = features.folder.relative_to(self.path).as_posix()
        before = list(self._state.segments.get(folder, [])) if self._state else []
        first, end = before[-1].end if before else 0, features.rows_there()
        row = sum(features.row_bytes().values())
        most = max(1, _LARGEST // row) if row else 1
        if merged:
            while before and before[-1].count <= most // 2:
                first = before.pop().first
        each = most if merged else max(1, end - first)
        new = [
            Segment(x, min(each, end - x), f"{prefix}/{folder}/{x:012}", min(each, end - x) * row)
            for x in range(first, end, each)
        ]
        return {folder: before + new} if before or new else {}, new

    def _send_file(self, name: str, there: str) -> None:
        try:
            self._bucket.put(self.path / name, there)
        except OSError as error:
            raise UserError(f"{self.path / name}: {error.strerror}") from error

    def _send_rows(self, features: FeatureFiles, one: Segment) -> None:
        part = self._own / f"{uuid.uuid4().hex}{PART}"
        try:
            features.copy_rows(one.first, one.count, part)
            self._bucket.put(part, one.name)
        except OSError as error:
            raise UserError(f"{self.called}: {part}: {error.strerror}") from error
        finally:
            part.unlink(missing_ok=True)

    # What both do.

    def _fetch(self, role: str, *, sweep: bool, shown: bool) -> None:
        with (self._around / "fetched.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for tries in range(_TRIES):
                try:
                    self._fetch_newest(role, sweep, shown)
                    break
                except GoneError:
                    # A newer state has other objects.
                    if tries == _TRIES - 1:
                        raise
        self._looked = time.monotonic()

    def _fetch_newest(self, role: str, sweep: bool, shown: bool) -> None:
        if self._state and self._states.number() == self._state.number:
            return
        state = self._states.newest()
        if state is None and role == "read":
            told = "nothing is there" if self._state is None else "it was removed"
            raise UserError(
                f"{_NAME} {self.called}: {told}: make it with python -m glscl_jax.search index"
            )
        if state and self._state and state.index != self._state.index:
            raise UserError(f"{_NAME} {self.called}: another index is there now: start again")
        self.path = self._around / role / (state.index if state else uuid.uuid4().hex) / "index"
        if sweep:
            _remove_others(self._own)
        self.path.mkdir(parents=True, exist_ok=True)
        if state:
            Fetch(self._bucket, self.path, state).run(sweep=sweep, shown=shown)
        self._state = state


def _files(path: pathlib.Path, generation: pathlib.Path) -> dict[str, Stat]:
    """The files of an index but for rows of features, by name."""
    found = [path / INDEX, *(x for x in generation.rglob("*") if x.is_file())]
    return {
        one.relative_to(path).as_posix(): stat_of(one)
        for one in found
        if one.suffix not in (".bin", PART) and not one.name.startswith(".")
    }


def _flock(file: IO, how: int) -> bool:
    try:
        fcntl.flock(file, how)
        return True
    except BlockingIOError:
        return False


def _remove_others(own: pathlib.Path) -> None:
    """Takes away copies of indexes that were at the address before."""
    for folder in own.parent.iterdir() if own.parent.is_dir() else ():
        if folder != own:
            shutil.rmtree(folder, ignore_errors=True)


def _patiently(act: Callable[[], object]) -> None:
    """Does something again while a bucket cannot be reached, for `mirror.PATIENCE`."""
    end = time.monotonic() + mirror.PATIENCE
    while True:
        try:
            act()
            return
        except TakenError:
            raise
        except UserError as error:
            if time.monotonic() > end:
                raise UserError(f"{error}; what is in it stays: run the same again") from error
            time.sleep(min(1.0, mirror.PATIENCE / 10))
