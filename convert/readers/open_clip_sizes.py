"""The sizes that an `open_clip_config.json` says, and that its settings are of the kinds they are.

What a file leaves out has open_clip's default, as its own model has.
"""

import math
import re
from collections.abc import Callable, Mapping

from glscl_jax.errors import UserError

# Of a `CLIPConfig` -> where in `model_cfg` it is said, and open_clip's default. Of timm's towers
# the name says the patch, and nothing the rest.
_OF_ANY = {
    "text_width": ("text_cfg.width", 512),
    "text_layers": ("text_cfg.layers", 12),
    "embed_dim": ("embed_dim", None),
    "context_length": ("text_cfg.context_length", 77),
    "vocab_size": ("text_cfg.vocab_size", 49_408),
}
_OF_ITS_OWN = {
    "vision_width": ("vision_cfg.width", 768),
    "vision_layers": ("vision_cfg.layers", 12),
    "patch_size": ("vision_cfg.patch_size", 16),
}
_TIMM_PATCH = re.compile(r".*_patch(\d+)_.*")
KEYS = {name: key for name, (key, _) in (_OF_ANY | _OF_ITS_OWN).items()}
KEYS |= {"image_size": "vision_cfg.image_size", "vision_mlp_width": "vision_cfg.mlp_ratio"}
KEYS |= {"text_mlp_width": "text_cfg.mlp_ratio", "logit_bias": "init_logit_bias"}


def image_size(model: Mapping) -> int:
    """In pixels, as `model_cfg` has it: 384, of which patches of 14 cover 378."""
    size = (model.get("vision_cfg") or {}).get("image_size", 224)
    return size[0] if isinstance(size, list) else size


def read(model: Mapping) -> dict[str, int]:
    """Sizes of a `CLIPConfig`, as far as a `model_cfg` that `check` has passed says them."""
    name = (model.get("vision_cfg") or {}).get("timm_model_name")
    found = {}
    for setting, (key, usual) in (_OF_ANY | ({} if name else _OF_ITS_OWN)).items():
        *section, last = key.split(".")
        found[setting] = (model.get(section[0]) or {} if section else model).get(last, usual)
    if patch := name and _TIMM_PATCH.fullmatch(name):
        found["patch_size"] = int(patch[1])
    size = image_size(model)
    found["image_size"] = size - size % found.get("patch_size", size)
    return {setting: value for setting, value in found.items() if value is not None}


def _is_whole(value) -> bool:
    return type(value) is int and value > 0


def _is_number(value) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def _is_square(value) -> bool:
    return _is_whole(value) or (
        isinstance(value, list) and len(value) == 2 and all(map(_is_whole, value))
    )


# What a value must be -> which settings are; those that may be null are nothing then.
_KINDS: dict[str, tuple[Callable, bool, tuple[str, ...]]] = {
    "a whole number above 0": (
        _is_whole,
        False,
        (
            *("embed_dim", "vision_cfg.width", "vision_cfg.head_width", "vision_cfg.patch_size"),
            *("text_cfg.width", "text_cfg.heads", "text_cfg.layers"),
            *("text_cfg.context_length", "text_cfg.vocab_size"),
        ),
    ),
    "a number above 0": (_is_number, False, ("vision_cfg.mlp_ratio", "text_cfg.mlp_ratio")),
    "a size in pixels, or two": (_is_square, False, ("vision_cfg.image_size",)),
    "a number of layers, or of a ResNet's stages": (
        lambda value: _is_whole(value) or (isinstance(value, list) and all(map(_is_whole, value))),
        True,
        ("vision_cfg.layers",),
    ),
    "true or false": (
        lambda value: isinstance(value, bool),
        True,
        (
            *("quick_gelu", "custom_text", "nonscalar_logit_scale", "vision_cfg.no_ln_pre"),
            *("vision_cfg.final_ln_after_pool", "text_cfg.no_causal_mask", "text_cfg.proj_bias"),
        ),
    ),
    "a number": (
        lambda value: isinstance(value, int | float) and not isinstance(value, bool),
        True,
        ("init_logit_bias",),
    ),
    "a token's id": (
        lambda value: type(value) is int and value >= 0,
        True,
        ("text_cfg.eos_id", "text_cfg.pad_id"),
    ),
    "a name": (
        lambda value: isinstance(value, str),
        True,
        (
            *("vision_cfg.pool_type", "vision_cfg.timm_model_name", "vision_cfg.timm_pool"),
            *("vision_cfg.timm_proj", "text_cfg.pool_type", "text_cfg.proj_type"),
            *("text_cfg.hf_model_name", "text_cfg.hf_tokenizer_name"),
        ),
    ),
    "a section": (
        lambda value: isinstance(value, dict),
        True,
        ("text_cfg.norm_kwargs", "text_cfg.act_kwargs", "text_cfg.tokenizer_kwargs"),
    ),
}


def check_sections(content: Mapping, names: tuple[str, ...], source: str) -> None:
    """Raises a `UserError` that names a section which is there and is none."""
    for name in names:
        if not isinstance(value := content.get(name), dict | None):
            raise UserError(f"{source}: {name} is {_short(value)}, not a section: mend the file")


def check(model: Mapping, source: str) -> None:
    """Raises a `UserError` that names a setting of `model_cfg` of another kind than it must be."""
    for what, (is_one, may_be_null, keys) in _KINDS.items():
        for key in keys:
            *section, last = key.split(".")
            settings = model.get(section[0]) or {} if section else model
            value = settings.get(last)
            if last in settings and not (value is None and may_be_null) and not is_one(value):
                raise UserError(f"{source}: {key} is {_short(value)}, not {what}: mend the file")
    norm = (model.get("text_cfg") or {}).get("norm_kwargs") or {}
    if "eps" in norm and not _is_number(norm["eps"]):
        raise UserError(
            f"{source}: text_cfg.norm_kwargs.eps is {_short(norm['eps'])}, not a number above 0: "
            "mend the file"
        )


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."
