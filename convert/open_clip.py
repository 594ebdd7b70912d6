"""open_clip's model directories: what `open_clip_config.json` says beside the tensors."""

import pathlib

from convert.foreign import refuse_statistics
from glscl_jax.errors import UserError
from glscl_jax.models.clip import HEAD_WIDTH
from glscl_jax.workdir import read_json

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Settings that the tensors' shapes show, too, or that change nothing.
_SHOWN = {"image_size", "layers", "width", "patch_size", "context_length", "vocab_size"}
# Settings at which the model is the CLIP it is here; absent, they have these values.
_PLAIN = {"head_width": HEAD_WIDTH, "mlp_ratio": 4.0, "ls_init_value": None, "patch_dropout": 0.0}
_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale"}


def find_weights(directory: pathlib.Path) -> pathlib.Path | None:
    """The file of a directory that its weights are read from; None without one."""
    return next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)


def read_activation(directory: pathlib.Path) -> str:
    """The activation: "quick_gelu" or "gelu".

    Raises:
      UserError: the directory's model is built in another way than OpenAI's, or its images are
        normalised by other statistics.
    """
    path = directory / CONFIG
    content = read_json(path)
    model, images = _section(content, "model_cfg"), _section(content, "preprocess_cfg")
    _check_towers(path, model)
    refuse_statistics(images.get("mean"), images.get("std"), str(path))
    return "quick_gelu" if model.get("quick_gelu") else "gelu"


def _check_towers(path: pathlib.Path, model: dict) -> None:
    vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
    if not isinstance(vision.get("layers"), int):
        raise UserError(f"{path}: its vision tower is no ViT; only ViT CLIPs can be converted")
    heads = text.get("heads", 8)
    odd = [f"text_cfg.heads {heads}"] if heads * HEAD_WIDTH != text.get("width", 512) else []
    for name, tower in (("vision_cfg", vision), ("text_cfg", text)):
        known = _SHOWN | ({"heads"} if tower is text else set())
        odd += [
            f"{name}.{key} {value!r}"
            for key, value in tower.items()
            if key not in known and (key not in _PLAIN or value != _PLAIN[key])
        ]
    odd += [f"{key} {value!r}" for key, value in model.items() if key not in _MODEL and value]
    if odd:
        raise UserError(
            f"{path} asks for what the model here does not have: {', '.join(odd)} (heads are "
            f"{HEAD_WIDTH} wide)"
        )


def _section(content: dict, name: str) -> dict:
    section = content.get(name)
    return section if isinstance(section, dict) else {}
