"""Programs run by a process that has imported what takes most of their time.

    python -m tests.forking

It reads a JSON list of runs a line, each a list of the environment that it adds, the program and
its arguments; those of a line run side by side, as `python -m` runs them. Each is a fork of this
process; what came of it is printed as JSON. In its environment PWD is the folder that it runs in.
"""

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
)


class Forked:
    """A run under way in a fork of this process."""

    def __init__(self, run: Callable[[], None], arguments: list[str]):
        self._streams = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self._child = os.fork()
        if not self._child:
            for number, stream in enumerate(self._streams, 1):
                os.dup2(stream.fileno(), number)
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
        _, status = os.waitpid(self._child, 0)
        texts = []
        for stream in self._streams:
            stream.seek(0, io.SEEK_SET)
            texts.append(stream.read())
            stream.close()
        code = os.waitstatus_to_exitcode(status)
        return {"returncode": code, "stdout": texts[0], "stderr": texts[1]}


def run_together(runs: list[list]) -> list[dict]:
    """Runs of any programs, each [environment, program, arguments ...], side by side."""

    def main(environment, name):
        os.environ.update(environment)
        os.chdir(environment.get("PWD", os.curdir))
        # As the interpreter would; the arguments stay.
        runpy.run_module(name, run_name="__main__", alter_sys=True)

    under_way = [
        Forked(lambda env=env, name=name: main(env, name), [name, *arguments])
        for env, name, *arguments in runs
    ]
    return [forked.result() for forked in under_way]


if __name__ == "__main__":
    for name in LIBRARIES:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(run_together(json.loads(line))), flush=True)
