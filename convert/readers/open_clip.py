"""open_clip's model directories: what `open_clip_config.json` says beside the tensors."""

import pathlib
import re

from convert.readers import open_clip_sizes, preprocessing
from convert.readers.hugging_face import has_tokenizer
from convert.readers.said import Said
from glscl_jax.errors import UserError
from glscl_jax.files import read_json

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Settings of a tower that tensors show or that its `CLIPConfig` has (below), that change nothing
# once a model is trained, or that belong to the tokenizer.
_VISION = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "no_ln_pre"}
_VISION |= {"pool_type", "final_ln_after_pool", "patch_dropout", "output_tokens"}
_VISION |= {"timm_model_name", "timm_pool", "timm_proj", "timm_proj_bias"}
_TEXT = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "no_causal_mask"}
_TEXT |= {"pool_type", "eos_id", "pad_id", "proj_type", "proj_bias", "norm_kwargs", "act_kwargs"}
_TEXT |= {"output_tokens", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text", "init_logit_scale"}
_MODEL |= {"init_logit_bias", "nonscalar_logit_scale", "output_dict", "cast_dtype"}
# Of parts that the settings leave out.
_OF_OTHERS = re.compile(r"attn_pooler_.*|timm_.*|hf_(?!model_name|tokenizer).*")
# Settings at which the model is what it is here; absent, they have these values.
_PLAIN = {"pos_embed_type": "learnable"}
# And parts that it does not have, whose settings are off.
_OFF = {"attentional_pool", "embed_cls", "use_pad_mask", "correct_cls_mask", "qk_norm"}
_OFF |= {"scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
_OFF |= {"ls_init_value", "act_kwargs", "norm_kwargs", "hf_model_name", "multimodal_cfg"}

# timm's towers that are built as ours, by the pattern of their names, and what they are called that
# are not.
_HEADS = {"so400m": 72, "giantopt": 96, "gigantic": 96}
_TIMM_SIGLIP = re.compile(r"vit_(?P<size>[a-z0-9]+)_patch\d+_siglip_\d+")
_TIMM_PERCEPTION = re.compile(r"vit_pe_core_(?P<size>[a-z]+)_patch\d+_\d+")
_TIMM_CLIP = re.compile(r"vit_(?P<size>[a-z]+)_patch\d+_clip_\d+")
_TIMM_OTHERS = {
    "convnext": "a ConvNeXt CLIP",
    "eva": "an EVA CLIP",
    "fastvit": "a MobileCLIP, whose vision tower has convolutions",
    "vit_base_mci": "a MobileCLIP, whose vision tower has convolutions",
    "vitamin": "a ViTamin, whose vision tower has convolutions",
    "naflexvit": "a model of NaFlex",
}
# Whose tokenizer it is, by a part of its name on the hub.
_KINDS = {"xlm-v": "xlm_v", "siglip2": "siglip2", "siglip": "siglip"}
# What its settings may change: how captions are cleaned, and CLIPA's texts without a separator.
_KWARGS = {"clean", "strip_sep_token"}
_ONLY = "what can be converted is a CLIP of two transformers, as docs/encoders.md lists them"


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
    open_clip_sizes.check_sections(content, ("model_cfg", "preprocess_cfg"), str(path))
    model, images = _section(content, "model_cfg"), _section(content, "preprocess_cfg")
    settings = tower_settings(model, str(path)) | open_clip_sizes.read(model)
    text = _section(model, "text_cfg")
    _check_tokenizer(path, text)
    images = preprocessing.of_open_clip(path, images, open_clip_sizes.image_size(model))
    keys = open_clip_sizes.KEYS
    if not (name := text.get("hf_tokenizer_name")):
        return Said({**settings, **images, "tokenizer": "clip"}, keys=keys)
    kind = next((kind for part, kind in _KINDS.items() if part in name.lower()), "json")
    options = {"clean": "whitespace", **(text.get("tokenizer_kwargs") or {})}
    said = {**settings, **images, "tokenizer": kind}
    return Said(said, tokenizer_options=options, keys=keys)


def model_settings(directory: pathlib.Path) -> dict:
    """`model_cfg`, as open_clip's own classes take it."""
    return _section(read_json(directory / CONFIG), "model_cfg")


def tower_settings(model: dict, source: str) -> dict[str, object]:
    """Settings of a `CLIPConfig` that open_clip's `model_cfg` says, all hidden ones among them.

    Args:
      model: as open_clip's own classes take it.
      source: what to call it in a message.

    Raises:
      UserError: naming the family, if none is here, or the settings that no tower here has.
    """
    open_clip_sizes.check_sections(model, ("vision_cfg", "text_cfg"), source)
    vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
    refuse_by_name(model, source)
    open_clip_sizes.check(model, source)
    if isinstance(size := vision.get("image_size"), list) and len(set(size)) > 1:
        raise UserError(f"{source}: vision_cfg.image_size {size} is not square")
    odd = _unknown("vision_cfg.", vision, _VISION) + _unknown("text_cfg.", text, _TEXT)
    odd += _unknown("", model, _MODEL)
    timm = vision.get("timm_model_name")
    images = _timm_settings(vision, odd) if timm else _vision_settings(vision, model, odd)
    texts = _text_settings(text, model, odd)
    if images.pop("layer_norm_epsilon") != texts["layer_norm_epsilon"]:
        odd.append(f"text_cfg.norm_kwargs {text.get('norm_kwargs')!r} of one tower alone")
    if odd:
        raise UserError(f"{source} asks for what the model here does not have: {', '.join(odd)}")
    if texts["text_activation"] == images["activation"]:
        texts["text_activation"] = None
    return {**images, **texts, "logit_bias": model.get("init_logit_bias") is not None}


def refuse_by_name(model: dict, source: str) -> None:
    """Raises a `UserError` that calls the family by its name, if none of it is here."""
    vision, text = _section(model, "vision_cfg"), _section(model, "text_cfg")
    name = vision.get("timm_model_name")
    kind = next((kind for start, kind in _TIMM_OTHERS.items() if str(name).startswith(start)), None)
    if model.get("multimodal_cfg"):
        kind = "a CoCa, a CLIP with a text decoder"
    elif text.get("hf_model_name"):
        kind = f"a CLIP with another text tower (text_cfg.hf_model_name {text['hf_model_name']!r})"
    elif isinstance(vision.get("layers"), list):
        kind = "a ResNet CLIP: its vision tower is no ViT"
    elif (
        name
        and not kind
        and not any(
            pattern.fullmatch(str(name)) for pattern in (_TIMM_SIGLIP, _TIMM_PERCEPTION, _TIMM_CLIP)
        )
    ):
        kind = f"a CLIP with another vision tower, timm's {name}"
    elif not name and not isinstance(vision.get("layers"), int):
        kind = "no ViT: its vision tower is of a kind that is not known"
    if kind:
        raise UserError(f"{source} is {kind}; {_ONLY}")


def _vision_settings(vision: dict, model: dict, odd: list[str]) -> dict[str, object]:
    """Of open_clip's own vision tower."""
    width, head = vision.get("width", 768), vision.get("head_width", 64)
    if width % head:
        odd.append(f"vision_cfg.head_width {head}")
    pool, after = vision.get("pool_type", "tok"), bool(vision.get("final_ln_after_pool"))
    # The class token's norm is the same before and after; a mean's is not.
    if pool not in ("tok", "avg") or (pool == "avg" and not after):
        odd.append(f"vision_cfg.pool_type {pool!r}")
    return {
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "layer_norm_epsilon": 1e-5,
        "vision_head_width": head,
        "vision_mlp_width": _mlp_width(width, vision),
        "patch_bias": False,
        "class_token": True,
        "pre_norm": not vision.get("no_ln_pre"),
        "vision_projection": "matrix",
        "vision_pooling": "mean" if pool == "avg" else "class",
        "rotary": False,
    }


def _timm_settings(vision: dict, odd: list[str]) -> dict[str, object]:
    """Of a timm tower, which its name says."""
    name, pool = vision["timm_model_name"], vision.get("timm_pool", "avg")
    found = next(
        match
        for pattern in (_TIMM_SIGLIP, _TIMM_PERCEPTION, _TIMM_CLIP)
        if (match := pattern.fullmatch(name))
    )
    if pool != ("token" if found.re is _TIMM_CLIP else "map"):
        odd.append(f"vision_cfg.timm_pool {pool!r}")
    if vision.get("timm_proj", "linear") not in (None, "none"):
        odd.append(f"vision_cfg.timm_proj {vision.get('timm_proj', 'linear')!r}")
    settings = {
        "activation": "gelu_tanh" if found["size"] == "giantopt" else "gelu",
        "layer_norm_epsilon": 1e-6 if found.re is _TIMM_SIGLIP else 1e-5,
        "vision_head_width": _HEADS.get(found["size"], 64),
        "rotary": found.re is _TIMM_PERCEPTION,
        "vision_pooling": "class" if found.re is _TIMM_CLIP else "probe",
        "patch_bias": found.re is _TIMM_SIGLIP,
        "pre_norm": found.re is not _TIMM_SIGLIP,
    }
    if found.re is _TIMM_PERCEPTION:
        settings["probe_heads"] = 8  # Whatever the width.
    return settings


def _text_settings(text: dict, model: dict, odd: list[str]) -> dict[str, object]:
    """Of open_clip's text tower, the only one that there is."""
    width, heads = text.get("width", 512), text.get("heads", 8)
    if width % heads:
        odd.append(f"text_cfg.heads {heads}")
    pools = {"argmax": "highest", "eos": "end", "last": "last"}
    pool = text.get("pool_type", "argmax")
    norm, activation = text.get("norm_kwargs") or {}, text.get("act_kwargs") or {}
    if pool not in pools:
        odd.append(f"text_cfg.pool_type {pool!r}")
    if norm.keys() - {"eps"}:
        odd.append(f"text_cfg.norm_kwargs {norm!r}")
    if activation not in ({}, {"approximate": "tanh"}) or (activation and model.get("quick_gelu")):
        odd.append(f"text_cfg.act_kwargs {activation!r}")
    exact = "gelu_tanh" if activation else "gelu"
    projection = "biased" if text.get("proj_bias") else "matrix"
    if (kind := text.get("proj_type", "linear")) != "linear":
        projection = "none"
        odd += [] if kind == "none" else [f"text_cfg.proj_type {kind!r}"]
    return {
        "text_activation": "quick_gelu" if model.get("quick_gelu") else exact,
        "layer_norm_epsilon": norm.get("eps", 1e-5),
        "text_head_width": width // heads,
        "text_mlp_width": _mlp_width(width, text),
        "text_projection": projection,
        "causal": not text.get("no_causal_mask"),
        "text_pooling": pools.get(pool),
        "end_id": text.get("eos_id", 2) if pool == "eos" else None,
    }


def _mlp_width(width: int, tower: dict) -> int | None:
    """Hidden units, None for the usual number of them."""
    hidden = int(width * tower.get("mlp_ratio", 4.0))
    return None if hidden == 4 * width else hidden


def _unknown(where: str, settings: dict, known: set[str]) -> list[str]:
    """Settings that no tower here has, unless they say that the part is not there."""
    return [
        f"{where}{key} {value!r}"
        for key, value in settings.items()
        if key not in known and not _OF_OTHERS.fullmatch(key) and not _is_plain(key, value)
    ]


def _is_plain(key: str, value) -> bool:
    """Whether a setting is known, and at the value that leaves the tower as it is."""
    if key == "block_type":
        return value in (None, "default")
    return value == _PLAIN[key] if key in _PLAIN else key in _OFF and not value


def _check_tokenizer(path: pathlib.Path, text: dict) -> None:
    """Raises a `UserError` for a tokenizer that is not there, or not used as any here."""
    name = text.get("hf_tokenizer_name")
    if name and not has_tokenizer(path.parent):
        raise UserError(f"{path}: its tokenizer, {name}, is not beside it: put its files there")
    odd = {"tokenizer_mode": text["tokenizer_mode"]} if text.get("tokenizer_mode") else {}
    given = text.get("tokenizer_kwargs") or {}
    if given and (not name or given.keys() - _KWARGS):
        odd["tokenizer_kwargs"] = given
    if odd:
        raise UserError(f"{path}: its tokenizer is used as none here, it has text_cfg.{odd}")


def _section(content: dict, name: str) -> dict:
    section = content.get(name)
    return section if isinstance(section, dict) else {}
