"""Several programs under one name: the first argument says which."""

import importlib
import sys
from collections.abc import Mapping

from glscl_jax.runtime import streams

_HELP = ("h", "help", "helpshort", "helpfull", "?")


def run(programs: Mapping[str, str], told: str) -> None:
    """Runs the program that the first argument names, as if it had been started itself.

    Args:
      programs: names, and the modules whose `cli` they are. No other is imported.
      told: what --help prints.
    """
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in programs:
        del sys.argv[1]
        try:
            program = importlib.import_module(programs[name])
            # It comes with JAX, which the help of all of them does without.
            importlib.import_module("glscl_jax.runtime.jax_internals").forget_absent_tpu()
        except KeyboardInterrupt:
            # As `program.run` has it once it runs.
            print("stopped by Ctrl-C", file=sys.stderr)
            sys.exit(130)
        program.cli()
        return
    streams.outlive_readers()
    if name.startswith("-") and name.lstrip("-") in _HELP:
        print(told.strip())
    else:
        *names, last = programs
        choice = f"{', '.join(names)} or {last}"
        given = f"{name!r} is none" if name else "none is named"
        print(f"error: give {choice} first, {given} (--help says more)", file=sys.stderr)
        sys.exit(2)
