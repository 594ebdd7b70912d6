"""What all tests share: the golden files, programs as processes, a small prepared data set."""

import fcntl
import functools
import gc
import itertools
import os
import pathlib
import shutil
import subprocess
import sys

import hypothesis
import jax
import pytest

from tests import QUICK_COMPILE
from tests.server import REPO, Server
from tests.workers import pytest_collection_modifyitems, pytest_xdist_make_scheduler  # noqa: F401

SHARED = REPO.parent / "shared"


def pytest_collection_finish():
    """What was imported is never garbage, and most of what tracing leaves is none for long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 10)


jax.config.update("jax_default_matmul_precision", "highest")
# How long an example takes says nothing of what is tested, and on a busy machine it can be long.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def golden() -> pathlib.Path:
    """The folder of the reference's numbers."""
    path = SHARED / "golden"
    if not path.is_dir():
        pytest.skip("the reference's golden values (../shared/golden) are not here")
    return path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A session's folders that its workers share: `made_once(NAME, MAKE)` is one, by its name.

    The first who asks fills it, with MAKE(FOLDER); others wait. To be read only.
    """
    base = tmp_path_factory.getbasetemp()
    # Those of all workers lie in one.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make=lambda folder: None) -> pathlib.Path:
        path = base / name
        with (base / f"{name}.lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            if not lock.read():
                # What one left that failed.
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                make(path)
                lock.write("made")
        return path

    return folder


@pytest.fixture(scope="session")
def run_program(made_once):
    """Runs `python -m NAME ARGS` from the repository's root; returns the finished process.

    Programs of a session share what they compile.
    """
    cache = made_once("compiled")

    def run(name: str, *args, devices: int = 1, check: bool = True, **options):
        process = subprocess.run(
            [sys.executable, "-m", name, *map(str, args)],
            cwd=REPO,
            env=program_environment(cache, devices),
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )
        assert not check or process.returncode == 0, process.stdout + process.stderr
        return process

    run.cache = cache
    return run


def program_environment(cache: pathlib.Path, devices: int = 1) -> dict[str, str]:
    """The environment of a program under test."""
    return {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILE}",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


class UnderWay:
    """A program that runs on beside its test, which reads `stdout` and may signal it."""

    def __init__(self, server: Server, run: list, fifo: pathlib.Path):
        os.mkfifo(fifo)
        self._server = server
        self._pid = server.ask({"start": run, "stdout": str(fifo)})
        self.stdout = fifo.open()

    def send_signal(self, number: int) -> None:
        os.kill(self._pid, number)

    def wait(self) -> int:
        """Its exit status, that of `subprocess.Popen`, once it has ended."""
        return self.finished.returncode

    @functools.cached_property
    def finished(self) -> subprocess.CompletedProcess:
        """What came of it, once it has ended; its output went to `stdout`."""
        return subprocess.CompletedProcess([], **self._server.ask({"result": self._pid}))


@pytest.fixture(scope="session")
def forks(run_program, tmp_path_factory):
    """Runs programs as `run_program` does, in forks of one process: without seconds of imports.

    `together` runs several side by side, each (NAME, ARGS ...), and each with variables of its own
    where `environments` has them. `start` does not wait: it returns the run `UnderWay`.
    """
    server = Server("-m", "tests.forking", env=program_environment(run_program.cache))

    def flags(devices: int) -> dict[str, str]:
        # Said with every run: the server has those of the tests themselves, for eight devices.
        return {"XLA_FLAGS": program_environment(run_program.cache, devices)["XLA_FLAGS"]}

    def together(*runs, devices: int = 1, check: bool = True, environments=None):
        added = [flags(devices) | own for own in environments or [{}] * len(runs)]
        asked = [[own, *map(str, run)] for own, run in zip(added, runs, strict=True)]
        answers = server.ask({"together": asked})
        finished = [
            subprocess.CompletedProcess(run, **answer)
            for run, answer in zip(runs, answers, strict=True)
        ]
        for done in finished:
            assert not check or done.returncode == 0, done.stdout + done.stderr
        return finished

    def one(name: str, *args, **options) -> subprocess.CompletedProcess:
        return together((name, *args), **options)[0]

    def start(name: str, *args, environment=None) -> UnderWay:
        fifo = tmp_path_factory.mktemp("under_way") / "stdout"
        own = flags(devices=1) | (environment or {})
        return UnderWay(server, [own, name, *map(str, args)], fifo)

    one.together = together
    one.start = start
    yield one
    server.stop()


@pytest.fixture(scope="session")
def refusal(forks):
    """Runs a program that is to refuse its arguments; returns the one line of its error."""

    def run(name: str, *args) -> str:
        return one_line_error(forks(name, *args, devices=8, check=False))

    return run


@pytest.fixture(scope="session")
def shapes(made_once, forks) -> pathlib.Path:
    """A small rendered and prepared data set: 32 training, 8 validation and 8 test clips."""

    def make(folder):
        videos, data = folder / "videos", folder / "data"
        forks("glscl_jax.input_pipeline.rendered", f"--out={videos}", "--clips=32", "--held_out=8")
        forks(
            "glscl_jax.input_pipeline.prepare",
            "--dataset=folder",
            f"--source={videos}",
            f"--data_dir={data}",
            "--frame_rate=2",
            "--image_size=32",
        )

    return made_once("shapes", make)


def one_line_error(process: subprocess.CompletedProcess) -> str:
    """What a program ended with after a user's mistake: a line, or one a mistake below a first.

    Fails if it said more or less.
    """
    assert process.returncode == 2, (process.returncode, process.stderr)
    assert "Traceback" not in process.stderr, process.stderr
    lines = process.stderr.splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    more = itertools.takewhile(lambda line: line.startswith("  "), lines[first + 1 :])
    return "\n".join([lines[first], *more])
