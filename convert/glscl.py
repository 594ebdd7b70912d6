"""Converts a whole GLSCL checkpoint of the released code to a checkpoint directory, and back.

    python -m convert.glscl pytorch_model.bin.4 weights/msrvtt --verify
    python -m convert.glscl weights/msrvtt glscl.bin --to=pytorch
    python -m convert.glscl weights/msrvtt clip_directory --to=huggingface  # its CLIP alone

SOURCE is a state dict of GLSCL, or of CLIP4Clip (which has no LIM). Sizes, sharing and the kind
of temporal module are read off its tensors; what they do not show is given by flags. OUT is a new
directory that `glscl_jax.evaluate` and `glscl_jax.load` read and `glscl_jax.train` starts from.
"""

from absl import flags

from convert import program_flags
from convert.conversion import Options, convert_glscl
from convert.export import convert_back
from glscl_jax.runtime import program

flags.adopt_module_key_flags(program_flags)
SETTINGS = {
    "temperature": flags.DEFINE_float("temperature", 3.0, "Of the GIM's softmax.", lower_bound=0),
    "lim_weight": flags.DEFINE_float("lim_weight", 0.5, "Of the LIM's score beside the GIM's."),
    "lim_heads": flags.DEFINE_integer("lim_heads", 8, "Heads of the LIM decoder.", lower_bound=1),
    "share_queries": flags.DEFINE_bool(
        "share_queries",
        None,
        "Whether texts and videos share them; by default told from noun_queries.",
    ),
    "share_decoder": flags.DEFINE_bool(
        "share_decoder", None, "The same of the decoder; told from transformer_decoder_spatial."
    ),
}


def main(argv):
    _, source, out = argv
    if program_flags.TO.value:
        program_flags.refuse_beside_to(*SETTINGS.values())
        convert_back(source, out, program_flags.TO.value, whole=True)
    else:
        given = {name: flag.value for name, flag in SETTINGS.items() if flag.value is not None}
        convert_glscl(source, out, Options(model=given, **program_flags.common_options()))


def cli() -> None:
    """Runs the program."""
    program.run(main, positional=("SOURCE", "OUT"))


if __name__ == "__main__":
    cli()
