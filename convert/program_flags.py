"""The flags that both programs have."""

from absl import flags

from convert.conversion import DTYPES
from convert.export import FORMATS
from glscl_jax import paths
from glscl_jax.runtime import program

# Those that say something of a conversion, but not of the way back.
_FORWARD = ("verify", "dtype", "tokenizer", "entry", "image_size", "allow_nonfinite")


def define() -> None:
    """Defines the flags."""
    flags.DEFINE_bool(
        "verify", False, "Compute with the source in PyTorch, too, and compare stage by stage."
    )
    flags.DEFINE_enum("dtype", "float32", list(DTYPES), "That parameters are written in.")
    paths.define(
        "tokenizer",
        None,
        "A merges file (OpenAI's bpe_simple_vocab_16e6.txt.gz), a Hugging Face directory, or a "
        "name on its hub; by default the source's own, else CLIP's from the hub.",
    )
    flags.DEFINE_string(
        "entry",
        None,
        "The dictionary of a training checkpoint that is converted, where several are models: "
        "model, ema, ...",
    )
    flags.DEFINE_integer(
        "image_size",
        None,
        "Side of the images in pixels, if another than the source's: its positions are "
        "interpolated.",
        lower_bound=1,
    )
    flags.DEFINE_bool("allow_nonfinite", False, "Convert NaN and infinite weights, too.")
    flags.DEFINE_enum(
        "to", None, FORMATS, "The way back: SOURCE is a checkpoint directory, OUT what this says."
    )


def way_back(*others: str) -> str | None:
    """What --to says, once the flags are parsed.

    Args:
      others: flags of the program itself that the way back has no use for.

    Raises:
      UserError: one that it has no use for is given.
    """
    to = flags.FLAGS["to"].value
    if to:
        program.refuse_beside("to", (*_FORWARD, *others))
    return to


def common_options() -> dict:
    """`conversion.Options` as far as these flags give them."""
    return {name: flags.FLAGS[name].value for name in _FORWARD}
