"""A process that answers questions, for tests: JSON, a line each way."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

REPO = pathlib.Path(__file__).resolve().parents[1]


class Server:
    """Python with `arguments`, started when first asked, and again after an answer failed to come.

    A test that is ended while it waits (by its time, or by Ctrl-C) takes the process and all that
    it started along: nothing computes on beside the next test or answers in its place.
    """

    def __init__(self, *arguments: str, **options):
        self._command = [sys.executable, *arguments]
        self._options = options
        self._process = None

    def ask(self, question):
        """What it answers.

        Raises:
          RuntimeError: it ended instead.
        """
        if self._process is None:
            self._process = self._start()
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            if not answer:
                raise RuntimeError(f"{' '.join(self._command)} ended with {self._process.wait()}")
            return json.loads(answer)
        except BaseException:
            self._kill()
            raise

    def stop(self) -> None:
        """Ends it when it has answered."""
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self._command,
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A group of its own, which can be ended as one.
            start_new_session=True,
            **self._options,
        )

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
