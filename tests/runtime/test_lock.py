"""One writer at a time in a directory, also where there are no locks, or the file is replaced."""

import errno
import os
import subprocess
import sys

import pytest

from glscl_jax.errors import UserError
from glscl_jax.runtime import lock

NAME = ".lock"


def claimed(directory):
    return lock.claimed(directory, NAME, f"--workdir {directory}", "another run is in it")


def test_the_second_is_told(tmp_path):
    one, other = claimed(tmp_path / "run"), claimed(tmp_path / "run")
    with one, pytest.raises(UserError, match="another run is in it: wait"), other:
        pass
    with claimed(tmp_path / "run"):
        pass


def test_a_killed_process_s_claim_is_none(tmp_path):
    killed = (
        f"import os, pathlib; from glscl_jax.runtime import lock\n"
        f"with lock.claimed(pathlib.Path({str(tmp_path)!r}), {NAME!r}, '', ''): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == 9
    assert (tmp_path / NAME).exists()
    with claimed(tmp_path):
        pass


@pytest.mark.parametrize("replaced", [True, False])
def test_a_lock_on_a_file_that_was_taken_away_is_none(tmp_path, monkeypatch, replaced):
    """The one before leaves between our opening the file and our locking it."""
    path, locked = tmp_path / NAME, []

    def flock(file, how):
        if not locked:
            path.unlink()
            if replaced:
                path.touch()
        locked.append(os.fstat(file.fileno()).st_ino)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with claimed(tmp_path):
        # The first lock was on what nobody else will find: a second was taken, on what is there.
        assert len(locked) == 2
        assert locked[1] == path.stat().st_ino


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_it_warns_and_goes_on(tmp_path, monkeypatch, capsys, number):
    def flock(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    done = []
    with claimed(tmp_path):
        done.append(True)
    assert done
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert f"warning: --workdir {tmp_path}: the file system has no locks" in told[0]


def test_any_other_fault_is_told(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(UserError, match="Input/output error"), claimed(tmp_path):
        pass
