"""Hugging Face's CLIP directories: what `config.json` says beside the tensors, and writing one."""

import pathlib
import re

import numpy as np

from convert.readers import preprocessing
from convert.readers.said import Said
from glscl_jax.errors import UserError
from glscl_jax.files import read_json, write_json
from glscl_jax.input_pipeline.tokenizer import Tokenizer
from glscl_jax.models.encoders.clip_config import CLIPConfig
from glscl_jax.models.encoders.images import Preprocessing
from glscl_jax.models.encoders.transformer import LAYER_NORM_EPS

CONFIG = "config.json"
# The first that is there. Older ones are PyTorch's, and transformers up to 4 wrote Flax, too.
WEIGHTS = tuple(
    file
    for name in ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack")
    for file in (name, f"{name}.index.json")
)
# Those that transformers 5 opens without being told more.
READ_BY_TRANSFORMERS = tuple(file for file in WEIGHTS if "flax" not in file)
# The same in another precision: `model.fp16.safetensors`, `model.safetensors.index.fp16.json`.
_VARIANT = re.compile(
    r"(model|pytorch_model|flax_model)\."
    r"(?!.*-\d{5}-of-\d{5})([\w-]+\.(safetensors|bin|msgpack)|\w+\.index\.[\w-]+\.json)"
)
TOKENIZERS = ("tokenizer.json", "vocab.json")

# As `eos_token_id`: a 2 stood there by mistake, when the sentence was at the highest id.
HIGHEST_ID = 2

_ACTIVATIONS = ("quick_gelu", "gelu")
_NAMES = {
    "siglip": "a SigLIP model",
    "siglip2": "a SigLIP 2 model",
    "clip_text_model": "a text model without a vision tower",
    "clip_vision_model": "a vision model without a text tower",
}


def find_weights(directory: pathlib.Path) -> pathlib.Path | None:
    """The file of a directory that its weights are read from, or their index; None without one.

    Raises:
      UserError: they are there in several precisions, and none is the one without a name.
    """
    names = sorted(path.name for path in directory.iterdir() if path.is_file())
    if usual := next((name for name in WEIGHTS if name in names), None):
        return directory / usual
    variants = [name for name in names if _VARIANT.fullmatch(name)]
    if len(variants) > 1:
        raise UserError(
            f"{directory} has its weights as {' and '.join(variants)}: leave one of them there"
        )
    return directory / variants[0] if variants else None


def read_config(directory: pathlib.Path) -> Said:
    """What `config.json` says that tensors do not.

    Raises:
      UserError: naming the kind of model, if it is no CLIP, or the setting that the model here
        does not have.
    """
    path = directory / CONFIG
    settings = read_json(path)
    kind = settings.get("model_type")
    if kind != "clip":
        name = _NAMES.get(kind, f"of the kind {kind!r}")
        raise UserError(f"{directory} is {name} (model_type in {CONFIG}); only CLIPModel is read")
    _check_code(path, settings)
    # A second to import. Absent settings have defaults, and old files two places for the same.
    import transformers

    try:
        config = transformers.CLIPConfig.from_dict(settings)
    except Exception as error:
        # A validator's name is a line of its own, before what it found.
        said = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise UserError(f"{path}: no valid CLIPConfig ({said})") from error
    for name, tower in (("text", config.text_config), ("vision", config.vision_config)):
        _check_tower(f"{path}: {name}_config", tower)
    if np.ndim(size := config.vision_config.image_size) and len(set(size)) > 1:
        raise UserError(f"{path}: vision_config.image_size {list(size)} is not square")
    if config.text_config.hidden_act != config.vision_config.hidden_act:
        raise UserError(f"{path}: its towers have different activations; here they have one")
    preprocessing.check_hugging_face(directory, config.vision_config.image_size)
    end = config.text_config.eos_token_id
    if type(end) is not int:
        raise UserError(f"{path}: text_config.eos_token_id is {end!r}, not one token")
    towers = {"vision": config.vision_config, "text": config.text_config}
    widths = {
        f"{name}_head_width": tower.hidden_size // tower.num_attention_heads
        for name, tower in towers.items()
    }
    return Said(config.text_config.hidden_act, widths, None if end == HIGHEST_ID else end)


def _check_code(path: pathlib.Path, settings: dict) -> None:
    """Raises a `UserError` if it is not transformers' CLIPModel that computes with the tensors."""
    if settings.get("auto_map"):
        raise UserError(f"{path}: the model has code of its own (auto_map); only CLIPModel is read")
    names = settings.get("architectures") or ["CLIPModel"]
    if "CLIPModel" not in names:
        raise UserError(f"{path} is of a {' or '.join(map(str, names))}; only CLIPModel is read")
    if settings.get("quantization_config"):
        raise UserError(f"{path}: the weights are quantized (quantization_config): save them whole")


def _check_tower(where: str, tower) -> None:
    if tower.hidden_act not in _ACTIVATIONS:
        known = " or ".join(_ACTIVATIONS)
        raise UserError(f"{where}.hidden_act is {tower.hidden_act!r}, not {known}")
    if tower.layer_norm_eps != LAYER_NORM_EPS:
        raise UserError(f"{where}.layer_norm_eps {tower.layer_norm_eps} is not {LAYER_NORM_EPS}")


def write_directory(
    directory: pathlib.Path,
    tensors: dict[str, np.ndarray],
    config: CLIPConfig,
    tokenizer: Tokenizer | None,
) -> None:
    """Writes a directory that `transformers.CLIPModel.from_pretrained` reads.

    Args:
      directory: made here.
      tensors: by Hugging Face's names.
      config: of the model.
      tokenizer: written beside it, with what CLIPProcessor needs.
    """
    from safetensors import numpy as safetensors

    directory.mkdir()
    safetensors.save_file(tensors, directory / WEIGHTS[0], metadata={"format": "pt"})
    transformers_config(config, tokenizer).save_pretrained(directory)
    write_json(directory / preprocessing.FILE, _preprocessor(config.preprocessing))
    if tokenizer is not None:
        tokenizer.save(directory, config.context_length)


def transformers_config(config: CLIPConfig, tokenizer: Tokenizer | None = None):
    """The same sizes as a `transformers.CLIPConfig`, with the tokenizer's start and end token."""
    import transformers

    if tokenizer is None:
        start, end = None, HIGHEST_ID
    else:
        start, end = tokenizer.start_id, tokenizer.end_id

    def tower(width: int, layers: int, head: int) -> dict:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": width // head,
            "hidden_act": config.activation,
            "layer_norm_eps": LAYER_NORM_EPS,
            "projection_dim": config.embed_dim,
        }

    return transformers.CLIPConfig(
        text_config={
            **tower(config.text_width, config.text_layers, config.text_head_width),
            "vocab_size": config.vocab_size,
            "max_position_embeddings": config.context_length,
            # Not the last rows of the embedding, of which there may be more than of ids.
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": end,
        },
        vision_config={
            **tower(config.vision_width, config.vision_layers, config.vision_head_width),
            "image_size": config.image_size,
            "patch_size": config.patch_size,
        },
        projection_dim=config.embed_dim,
        architectures=["CLIPModel"],
    )


def _preprocessor(images: Preprocessing) -> dict:
    """What CLIPImageProcessor reads: resize, crop, scale, normalise."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": images.size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": images.size, "width": images.size},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
    }
