"""open_clip's model directories: what `open_clip_config.json` says beside the tensors."""

import pathlib
import re

from convert.readers import preprocessing
from convert.readers.hugging_face import TOKENIZERS
from convert.readers.said import Said
from glscl_jax.errors import UserError
from glscl_jax.files import read_json

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Settings that the tensors' shapes show, too, or that change nothing once a model is trained.
_SHOWN = {"image_size", "layers", "width", "patch_size", "context_length", "vocab_size"}
_SHOWN |= {"patch_dropout", "output_tokens", "pad_id", "hf_model_pretrained"}
# Of parts that the settings below leave out.
_OF_OTHERS = re.compile(
    r"attn_pooler_.*|timm_(?!model_name).*|hf_(?!model_name|tokenizer).*|eos_id"
)
# Settings at which the model is the CLIP it is here; absent, they have these values.
_PLAIN = {
    "mlp_ratio": 4.0,
    "pos_embed_type": "learnable",
    "proj_type": "linear",
}
# And parts that it does not have, whose settings are off.
_OFF = {"attentional_pool", "no_ln_pre", "final_ln_after_pool", "embed_cls", "no_causal_mask"}
_OFF |= {"proj_bias", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner"}
_OFF |= {"scale_attn", "scale_fc", "ls_init_value", "act_kwargs", "norm_kwargs"}
_OFF |= {"timm_model_name", "hf_model_name", "init_logit_bias", "multimodal_cfg"}
_TOKENIZER = {"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
# What a tower makes of its tokens: the class token, the highest id.
_POOLS = {"vision_cfg": "tok", "text_cfg": "argmax"}
_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale"}
_MODEL |= {"nonscalar_logit_scale", "output_dict", "cast_dtype"}


def find_weights(directory: pathlib.Path) -> pathlib.Path | None:
    """The file of a directory that its weights are read from; None without one."""
    return next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)


def read_config(directory: pathlib.Path) -> Said:
    """What `open_clip_config.json` says that tensors do not.

    Raises:
      UserError: the directory's model is built in another way than OpenAI's, its tokenizer is not
        there, or its images are made in another way.
    """
    path = directory / CONFIG
    content = read_json(path)
    model, images = _section(content, "model_cfg"), _section(content, "preprocess_cfg")
    _check_towers(path, model)
    _check_tokenizer(path, _section(model, "text_cfg"))
    size = _section(model, "vision_cfg").get("image_size", 224)
    preprocessing.check_open_clip(path, images, size)
    return Said("quick_gelu" if model.get("quick_gelu") else "gelu", _head_widths(model))


def model_settings(directory: pathlib.Path) -> dict:
    """`model_cfg`, as open_clip's own classes take it."""
    return _section(read_json(directory / CONFIG), "model_cfg")


def _check_towers(path: pathlib.Path, model: dict) -> None:
    vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
    if not isinstance(vision.get("layers"), int):
        raise UserError(f"{path}: its vision tower is no ViT; only ViT CLIPs can be converted")
    if isinstance(size := vision.get("image_size"), list) and len(set(size)) > 1:
        raise UserError(f"{path}: vision_cfg.image_size {size} is not square")
    odd = []
    if vision.get("width", 768) % vision.get("head_width", 64):
        odd.append(f"vision_cfg.head_width {vision.get('head_width', 64)}")
    if text.get("width", 512) % text.get("heads", 8):
        odd.append(f"text_cfg.heads {text['heads']}")
    for name, tower in (("vision_cfg", vision), ("text_cfg", text)):
        known = _SHOWN | ({"heads", *_TOKENIZER} if tower is text else {"head_width"})
        odd += [
            f"{name}.{key} {value!r}"
            for key, value in tower.items()
            if key not in known
            and not _OF_OTHERS.fullmatch(key)
            and not _is_plain(name, key, value)
        ]
    odd += [
        f"{key} {value!r}"
        for key, value in model.items()
        if key not in _MODEL and not _is_plain("", key, value)
    ]
    if odd:
        raise UserError(f"{path} asks for what the model here does not have: {', '.join(odd)}")


def _head_widths(model: dict) -> dict[str, int]:
    """Of both towers; what is not said is open_clip's default."""
    vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
    return {
        "vision_head_width": vision.get("head_width", 64),
        "text_head_width": text.get("width", 512) // text.get("heads", 8),
    }


def _is_plain(tower: str, key: str, value) -> bool:
    """Whether a setting is known, and at the value that leaves the tower OpenAI's."""
    if key == "pool_type":
        return value == _POOLS.get(tower)
    if key == "block_type":
        return value in (None, "default")
    if key in _PLAIN:
        return value == _PLAIN[key]
    return key in _OFF and not value


def _check_tokenizer(path: pathlib.Path, text: dict) -> None:
    """Raises a `UserError` for a tokenizer that is neither CLIP's nor in the directory."""
    name = text.get("hf_tokenizer_name")
    if name and not any((path.parent / file).is_file() for file in TOKENIZERS):
        raise UserError(f"{path}: its tokenizer, {name}, is not beside it: put its files there")
    if odd := {key: text[key] for key in ("tokenizer_mode", "tokenizer_kwargs") if text.get(key)}:
        raise UserError(f"{path}: its tokenizer is not CLIP's, it has text_cfg.{odd}")


def _section(content: dict, name: str) -> dict:
    section = content.get(name)
    return section if isinstance(section, dict) else {}
