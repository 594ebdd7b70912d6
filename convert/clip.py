"""Converts a CLIP's weights to a checkpoint directory, and back.

    python -m convert.clip ViT-B-32.pt weights/vit_b_32 --verify
    python -m convert.clip clip-vit-large-patch14/ weights/vit_l_14
    python -m convert.clip open_clip_pytorch_model.bin weights/laion --activation=gelu
    python -m convert.clip weights/vit_b_32 clip.pt --to=pytorch
    python -m convert.clip weights/vit_b_32 clip_directory --to=huggingface

SOURCE is OpenAI's TorchScript archive or a state dict with its names, a Hugging Face CLIPModel
directory, or an open_clip state dict or directory, told apart by looking into it. OUT is a new
directory that `glscl_jax.train` starts from (--config.init_from=OUT).
"""

from absl import flags

from convert import program_flags
from convert.conversion import Options, convert_clip
from convert.export import convert_back
from glscl_jax.runtime import program

flags.adopt_module_key_flags(program_flags)
ACTIVATION = flags.DEFINE_enum(
    "activation",
    None,
    ["quick_gelu", "gelu"],
    "Of the MLPs; needed where the source does not say it, as tensors do not show it.",
)


def main(argv):
    _, source, out = argv
    if program_flags.TO.value:
        program_flags.refuse_beside_to(ACTIVATION)
        convert_back(source, out, program_flags.TO.value, whole=False)
    else:
        options = Options(activation=ACTIVATION.value, **program_flags.common_options())
        convert_clip(source, out, options)


def cli() -> None:
    """Runs the program."""
    program.run(main, positional=("SOURCE", "OUT"))


if __name__ == "__main__":
    cli()
