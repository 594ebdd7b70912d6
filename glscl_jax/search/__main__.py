"""Searches in one's own videos: which of the programs, then its arguments.

    python -m glscl_jax.search index --checkpoint runs/mine --videos videos --index my_index
    python -m glscl_jax.search query --index my_index "a dog runs on the beach"
    python -m glscl_jax.search serve --index my_index

The first makes an index of a folder, or brings one up to date; the second ranks its windows by a
sentence, a video or a picture; the third shows a page for it. `... index --help` has the flags.
"""

import importlib
import sys

PROGRAMS = {"index": "index_program", "query": "query_program", "serve": "serve_program"}


def cli() -> None:
    """Runs the program that the first argument names, as if it had been started itself."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in PROGRAMS:
        del sys.argv[1]
        importlib.import_module(f"glscl_jax.search.{PROGRAMS[name]}").cli()
    elif name.startswith("-") and name.lstrip("-") in ("h", "help", "helpshort", "helpfull", "?"):
        print(__doc__.strip())
    else:
        told = f"{name!r} is none" if name else "none is named"
        choice = "index, query or serve"
        print(f"error: give {choice} first, {told} (--help says more)", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    cli()
