"""Weights in and out: which of the programs, then its arguments.

    glscl-convert clip ViT-B-32.pt weights/b32 --verify
    glscl-convert glscl pytorch_model.bin.4 weights/glscl --verify
    glscl-convert glscl weights/glscl back.bin --to=pytorch
    glscl-convert queries weights/glscl text_side
    glscl-convert push weights/glscl user/glscl
    glscl-convert pull user/glscl weights/glscl

The first is `python -m convert.clip`, for CLIP alone, the second `python -m convert.glscl`, for
GLSCL and CLIP4Clip; with --to each goes the way back. `queries` writes a model's text side as files
that run without this library; `push` and `pull` bring a model to the hub of Hugging Face and back.
`glscl-convert clip --help` has the flags.
"""

from glscl_jax.runtime import named_programs

_NAMES = ("clip", "glscl", "queries", "push", "pull")
PROGRAMS = {name: f"convert.{name}" for name in _NAMES}


def cli() -> None:
    """Runs the program that the first argument names."""
    named_programs.run(PROGRAMS, __doc__ or "")


if __name__ == "__main__":
    cli()
