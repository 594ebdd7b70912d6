"""Programs run by a process that has imported what takes most of their time.

    python -m tests.forking

It reads questions and prints answers, each a line of JSON. A run is a list of the environment that
it adds, the program and its arguments, as `python -m` runs them; each is a fork of this process. In
its environment PWD is the folder that it runs in.

    {"together": [RUN ...]}         runs them side by side: what came of each
    {"start": RUN, "stdout": FIFO}  does not wait for its end: its process id
    {"result": ID}                  waits for the end of one that was started: what came of it
"""

import gc
import importlib
import io
import json
import os
import runpy
import sys
import tempfile
import traceback
from collections.abc import Callable

# Without flags, which a program defines when it starts.
LIBRARIES = (
    "glscl_jax.evaluation.task",
    "glscl_jax.training.logbook",
    "glscl_jax.evaluation.report",
    "glscl_jax.training.optim",
    "glscl_jax.search.index",
)


class Forked:
    """A run under way in a fork of this process, which prints to `fifo` where one is given."""

    def __init__(self, run: Callable[[], None], arguments: list[str], fifo: str | None = None):
        self._streams = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self.pid = os.fork()
        if not self.pid:
            for number, stream in enumerate(self._streams, 1):
                os.dup2(stream.fileno(), number)
            if fifo:
                # Opened here, for it waits until somebody reads.
                os.dup2(os.open(fifo, os.O_WRONLY), 1)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            sys.argv = arguments
            self._leave(run)

    @staticmethod
    def _leave(run: Callable[[], None]):
        """Ends the fork with `run`'s status, without the seconds of taking TensorFlow down."""
        try:
            run()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def result(self) -> dict:
        """Exit status, standard output and standard error, once it has ended."""
        _, status = os.waitpid(self.pid, 0)
        texts = []
        for stream in self._streams:
            stream.seek(0, io.SEEK_SET)
            texts.append(stream.read())
            stream.close()
        code = os.waitstatus_to_exitcode(status)
        return {"returncode": code, "stdout": texts[0], "stderr": texts[1]}


def started(run: list, fifo: str | None = None) -> Forked:
    """A run of any program, [environment, program, arguments ...]."""
    environment, name, *arguments = run

    def main():
        os.environ.update(environment)
        tempfile.tempdir = None  # Asked for once, and kept: this run's may be another.
        os.chdir(environment.get("PWD", os.curdir))
        # As the interpreter would; the arguments stay.
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    return Forked(main, [name, *arguments], fifo)


def answer(question: dict, under_way: dict[int, Forked]):
    """What the module's docstring says; `under_way` has those that were started."""
    match question:
        case {"together": runs}:
            return [forked.result() for forked in [started(run) for run in runs]]
        case {"start": run, "stdout": fifo}:
            forked = started(run, fifo)
            under_way[forked.pid] = forked
            return forked.pid
        case {"result": pid}:
            return under_way.pop(pid).result()


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    # What is imported stays: no fork looks through it for garbage, an eighth of a short run's time.
    gc.collect()
    gc.freeze()
    # Most of what tracing leaves is none for long, either.
    gc.set_threshold(20_000, 20, 10)
    under_way = {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), under_way)), flush=True)
