"""Runs a program with a small disk of its own, which the rest of the system does not see.

    python -m tests.small_disk DIRECTORY SIZE LISTED PROGRAM ARGS

mounts the disk on DIRECTORY; what lies in the folder LISTED when the program has ended is the last
line on stdout, as JSON.
"""

import ctypes
import functools
import json
import os
import pathlib
import runpy
import shutil
import subprocess
import sys

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


@functools.cache
def possible() -> bool:
    """Whether this system lets a user mount one."""
    if not (unshare := shutil.which("unshare")):
        return False
    done = subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False)
    return done.returncode == 0


def mount(directory: str, size: str) -> None:
    """As root of a user namespace and in a mount namespace of this process, which has no thread."""
    user, group = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    own = pathlib.Path("/proc/self")
    (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"0 {user} 1")
    (own / "gid_map").write_text(f"0 {group} 1")
    call("mount", b"none", os.fsencode(directory), b"tmpfs", 0, f"size={size}".encode())


def call(name: str, *args) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":
    directory, size, listed, *program = sys.argv[1:]
    mount(directory, size)
    sys.argv = program
    try:
        runpy.run_module(program[0], run_name="__main__", alter_sys=True)
    finally:
        folder = pathlib.Path(listed)
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        print(json.dumps(there), flush=True)
