"""The flags that both programs have. Imported by programs alone: importing it defines them."""

from absl import flags

from convert.conversion import DTYPES
from convert.export import FORMATS
from glscl_jax import paths
from glscl_jax.errors import UserError

VERIFY = flags.DEFINE_bool(
    "verify", False, "Compute with the source in PyTorch, too, and compare stage by stage."
)
DTYPE = flags.DEFINE_enum("dtype", "float32", list(DTYPES), "That parameters are written in.")
TOKENIZER = paths.define(
    "tokenizer",
    None,
    "A merges file (OpenAI's bpe_simple_vocab_16e6.txt.gz), a Hugging Face directory, or a name on "
    "its hub; by default the source's own, else CLIP's from the hub.",
)
ENTRY = flags.DEFINE_string(
    "entry",
    None,
    "The dictionary of a training checkpoint that is converted, where several are models: "
    "model, ema, ...",
)
IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Side of the images in pixels, if another than the source's: its positions are interpolated.",
    lower_bound=1,
)
ALLOW_NONFINITE = flags.DEFINE_bool(
    "allow_nonfinite", False, "Convert NaN and infinite weights, too."
)
TO = flags.DEFINE_enum(
    "to", None, FORMATS, "The way back: SOURCE is a checkpoint directory, OUT what this says."
)


def refuse_beside_to(*others: flags.FlagHolder) -> None:
    """Raises a `UserError` for a flag that the way back has no use for."""
    for flag in (VERIFY, DTYPE, TOKENIZER, ENTRY, IMAGE_SIZE, ALLOW_NONFINITE, *others):
        if flag.present:
            raise UserError(f"--{flag.name} says nothing beside --to: leave it out")


def common_options() -> dict:
    """`conversion.Options` as far as these flags give them."""
    return {
        "verify": VERIFY.value,
        "dtype": DTYPE.value,
        "tokenizer": TOKENIZER.value,
        "entry": ENTRY.value,
        "image_size": IMAGE_SIZE.value,
        "allow_nonfinite": ALLOW_NONFINITE.value,
    }
