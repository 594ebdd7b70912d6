"""Converts a whole GLSCL checkpoint of the released code to a checkpoint directory, and back.

    python -m convert.glscl pytorch_model.bin.4 weights/msrvtt --verify
    python -m convert.glscl weights/msrvtt glscl.bin --to=pytorch
    python -m convert.glscl weights/msrvtt clip_directory --to=huggingface  # its CLIP alone

SOURCE is a state dict of GLSCL, or of CLIP4Clip (which has no LIM). Sizes, sharing and the kind
of temporal module are read off its tensors; what they do not show is given by flags. OUT is a new
directory that `glscl_jax.evaluate` and `glscl_jax.load` read and `glscl_jax.train` starts from.

In Python the same are `convert.conversion.convert_glscl` and `convert.export.convert_back`.
"""

from absl import flags

from convert import program_flags
from convert.conversion import Options, convert_glscl
from convert.export import convert_back
from glscl_jax.runtime import program

# Settings of the model, with which its tensors compute, and that they do not show.
SETTINGS = ("temperature", "lim_weight", "lim_heads", "share_queries", "share_decoder")


def _define_flags() -> None:
    program_flags.define()
    flags.adopt_module_key_flags(program_flags)
    flags.DEFINE_float("temperature", 3.0, "Of the GIM's softmax.", lower_bound=0)
    flags.DEFINE_float("lim_weight", 0.5, "Of the LIM's score beside the GIM's.")
    flags.DEFINE_integer("lim_heads", 8, "Heads of the LIM decoder.", lower_bound=1)
    flags.DEFINE_bool(
        "share_queries",
        None,
        "Whether texts and videos share them; by default told from noun_queries.",
    )
    flags.DEFINE_bool(
        "share_decoder", None, "The same of the decoder; told from transformer_decoder_spatial."
    )


def main(argv) -> None:
    """Runs the program."""
    _, source, out = argv
    if to := program_flags.way_back(*SETTINGS):
        convert_back(source, out, to, whole=True)
    else:
        given = {name: flags.FLAGS[name].value for name in SETTINGS}
        given = {name: value for name, value in given.items() if value is not None}
        convert_glscl(source, out, Options(head=given, **program_flags.common_options()))


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, positional=("SOURCE", "OUT"))


if __name__ == "__main__":
    cli()
