"""Tests that die or hang are failures by name, and the others run: real suites of real workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import pytest

from tests.server import REPO, Server

# Of the second and the fourth file two tests end their worker, one after the other.
DYING = """
import os, signal, pytest

@pytest.mark.parametrize("number", range(5))
def test_it(number):
    if number in {numbers}:
        os.kill(os.getpid(), signal.SIGSEGV)
"""
HANGING = """
import ctypes, time

def test_python():
    time.sleep(300)

def test_native():
    # Locked twice: no signal comes through, and no other thread of Python runs.
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)

def test_after():
    pass
"""


def suite(folder, **files) -> str:
    """What pytest prints for these files, by the project's settings but for shorter times."""
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    settings = ("--override-ini=timeout=2", "--override-ini=faulthandler_timeout=4")
    plugins = ("-pxdist.plugin", "-ppytest_timeout", "-ptests.workers")
    options = ("-n2", *plugins, "-c", REPO / "pyproject.toml", "--rootdir", folder)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *settings, folder],
        cwd=folder,
        # Those of installed packages take seconds, in each worker and each that takes its place.
        env=os.environ | {"PYTHONPATH": str(REPO), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def failures(printed) -> set[str]:
    lines = [line for line in printed.splitlines() if line.startswith("FAILED ")]
    return {line.split()[1].removeprefix("test_") for line in lines}


# These two are of the tests' own machinery.
@pytest.mark.slow
def test_a_worker_that_dies_is_one_failure_and_the_rest_is_run(tmp_path):
    numbers = {"a": (), "b": (0, 1), "c": (), "d": (3, 4)}
    printed = suite(tmp_path, **{x: DYING.format(numbers=numbers[x]) for x in numbers})
    assert failures(printed) == {f"{x}.py::test_it[{n}]" for x in numbers for n in numbers[x]}
    assert "4 failed, 16 passed" in printed
    assert "crashed while running" in printed


@pytest.mark.slow
def test_a_test_that_hangs_is_ended_by_name(tmp_path):
    printed = suite(tmp_path, a=HANGING, b="def test_it(): pass")
    assert failures(printed) == {"a.py::test_python", "a.py::test_native"}
    assert "2 failed, 2 passed" in printed
    assert "Timeout" in printed


def test_every_test_has_an_end(pytestconfig):
    ends = [float(pytestconfig.getini(x)) for x in ("timeout", "faulthandler_timeout")]
    assert 0 < ends[0] < ends[1] <= 900
    assert pytestconfig.getini("faulthandler_exit_on_timeout")


@pytest.fixture
def interruptible():
    """Ctrl-C raises, though a shell that starts a suite in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_server_answers_the_question_that_was_asked(tmp_path):
    """Not the one before it, whose asker was ended while it waited."""
    program = (
        "import sys, time\nfor x in sys.stdin: time.sleep(int(x)); print(x.strip(), flush=True)"
    )
    (tmp_path / "slow.py").write_text(program, encoding="utf-8")
    server = Server(str(tmp_path / "slow.py"))
    assert server.ask(0) == 0
    first = server._process
    interrupt = threading.Timer(
        0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
    )
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        server.ask(60)
    assert first.poll() is not None
    assert server.ask(0) == 0
    server.stop()


def test_what_workers_share_is_made_once_and_whole(made_once):
    """A worker is a thread here: each opens the lock's file itself, and that is what counts."""
    made = []

    def fails(folder):
        (folder / "half").touch()
        raise OSError("no space")

    def make(folder):
        made.append(folder)
        time.sleep(0.2)
        (folder / "whole").touch()

    with pytest.raises(OSError, match="no space"):
        made_once("shared_by_workers", fails)
    with futures.ThreadPoolExecutor(2) as workers:
        found = list(workers.map(lambda _: made_once("shared_by_workers", make), range(2)))
    assert found == made * 2
    assert [path.name for path in found[0].iterdir()] == ["whole"]
