"""Writes a model's text side as files that run without this library.

    python -m convert queries runs/mine text_side
    python text_side/query.py "a dog runs on the beach"

CHECKPOINT is a work directory of `train` (its best step) or what `convert` wrote. OUT is a new
folder: the tokenizer, the text tower and the head's text part as StableHLO (`jax.export`) for CPUs,
GPUs and TPUs, its parameters, `card.json`, which names what goes in and what comes out, and
`query.py`, which uses them with jax, numpy and the tokenizer's library alone.
--onnx adds `text.onnx`, of one sentence at a time, which onnxruntime runs.

In Python the same is `convert.query_side.export_queries`.
"""

from absl import flags

from convert.query_side import export_queries
from glscl_jax.runtime import program


def _define_flags() -> None:
    flags.DEFINE_integer("step", None, "A step of the work directory, instead of the best.")
    flags.DEFINE_boolean("onnx", False, "Write text.onnx, too, of one sentence at a time.")


def main(argv) -> None:
    """Runs the program."""
    _, checkpoint, out = argv
    export_queries(checkpoint, out, flags.FLAGS["step"].value, onnx=flags.FLAGS["onnx"].value)


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, positional=("CHECKPOINT", "OUT"))


if __name__ == "__main__":
    cli()
