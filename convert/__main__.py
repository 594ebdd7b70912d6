"""Converts PyTorch weights: which of the programs, then its arguments.

    glscl-convert clip ViT-B-32.pt weights/b32 --verify
    glscl-convert glscl pytorch_model.bin.4 weights/glscl --verify
    glscl-convert glscl weights/glscl back.bin --to=pytorch

The first is `python -m convert.clip`, for CLIP alone, the second `python -m convert.glscl`, for
GLSCL and CLIP4Clip; with --to each goes the way back. `glscl-convert clip --help` has the flags.
"""

from glscl_jax.runtime import named_programs

PROGRAMS = {"clip": "convert.clip", "glscl": "convert.glscl"}


def cli() -> None:
    """Runs the program that the first argument names."""
    named_programs.run(PROGRAMS, __doc__ or "")


if __name__ == "__main__":
    cli()
