"""Converts a CLIP's weights to a checkpoint directory, and back.

    python -m convert.clip ViT-B-32.pt weights/vit_b_32 --verify
    python -m convert.clip clip-vit-large-patch14/ weights/vit_l_14
    python -m convert.clip open_clip_pytorch_model.bin weights/laion --activation=gelu
    python -m convert.clip weights/vit_b_32 clip.pt --to=pytorch
    python -m convert.clip weights/vit_b_32 clip_directory --to=huggingface

SOURCE is OpenAI's TorchScript archive or a state dict with its names, a Hugging Face CLIPModel
directory, or an open_clip state dict or directory, told apart by looking into it. OUT is a new
directory that `glscl_jax.train` starts from (--config.init_from=OUT).

In Python the same are `convert.conversion.convert_clip` and `convert.export.convert_back`.
"""

from absl import flags

from convert import program_flags
from convert.conversion import Options, convert_clip
from convert.export import convert_back
from glscl_jax.runtime import program


def _define_flags() -> None:
    program_flags.define()
    flags.adopt_module_key_flags(program_flags)
    flags.DEFINE_enum(
        "activation",
        None,
        ["quick_gelu", "gelu", "gelu_tanh"],
        "Of the MLPs; needed where the source does not say it, as tensors do not show it.",
    )


def main(argv) -> None:
    """Runs the program."""
    _, source, out = argv
    if to := program_flags.way_back("activation"):
        convert_back(source, out, to, whole=False)
    else:
        activation = flags.FLAGS["activation"].value
        options = Options(activation=activation, **program_flags.common_options())
        convert_clip(source, out, options)


def cli() -> None:
    """Runs the program."""
    _define_flags()
    program.run(main, positional=("SOURCE", "OUT"))


if __name__ == "__main__":
    cli()
