"""Converts PyTorch weights: which of the programs, then its arguments.

    glscl-convert clip ViT-B-32.pt weights/b32 --verify
    glscl-convert glscl pytorch_model.bin.4 weights/glscl --verify
    glscl-convert glscl weights/glscl back.bin --to=pytorch

The first is `python -m convert.clip`, for CLIP alone, the second `python -m convert.glscl`, for
GLSCL and CLIP4Clip; with --to each goes the way back. `glscl-convert clip --help` has the flags.
"""

import importlib
import sys

PROGRAMS = ("clip", "glscl")


def cli() -> None:
    """Runs the program that the first argument names, as if it had been started itself."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in PROGRAMS:
        del sys.argv[1]
        importlib.import_module(f"convert.{name}").cli()
    elif name.startswith("-") and name.lstrip("-") in ("h", "help", "helpshort", "helpfull", "?"):
        print(__doc__.strip())
    else:
        told = f"{name!r} is none" if name else "none is named"
        print(f"error: give clip or glscl first, {told} (--help says more)", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    cli()
