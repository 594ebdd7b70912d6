"""A program imported once and run many times: `python -m tests.forking glscl_jax.train`.

Reads a JSON list of arguments a line, runs the program's main in a fork of this process, and
prints what came of it as JSON. Importing TensorFlow and JAX takes most of the time that a
program needs to refuse a wrong argument.
"""

import importlib
import io
import json
import os
import sys
import tempfile

from glscl_jax import program


def run_forked(main, arguments: list[str]) -> dict:
    """Exit status, standard output and standard error of one run."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            sys.argv = [sys.argv[1], *arguments]
            program.run(main)
            os._exit(0)  # app.run has left already, unless main returned.
        _, status = os.waitpid(child, 0)
        texts = []
        for stream in (out, err):
            stream.seek(0, io.SEEK_SET)
            texts.append(stream.read())
    return {"returncode": os.waitstatus_to_exitcode(status), "stdout": texts[0], "stderr": texts[1]}


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(run_forked(module.main, json.loads(line))), flush=True)
