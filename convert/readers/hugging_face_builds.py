"""How transformers' kinds of models are built, which their code says and their config does not."""

import pathlib

from convert.naming.sizes import CONTEXT_LENGTH
from glscl_jax.errors import UserError

_CLIP = {
    "patch_bias": False,
    "class_token": True,
    "pre_norm": True,
    "vision_pooling": "class",
    "vision_projection": "matrix",
    "causal": True,
    "text_pooling": "highest",
    "text_projection": "matrix",
    "logit_bias": False,
}
# `model_type` -> settings of a `CLIPConfig`.
BUILDS = {
    "clip": _CLIP | {"tokenizer": "clip"},
    # MetaCLIP 2 looks for the end token's id itself.
    "metaclip_2": _CLIP | {"text_pooling": "end", "tokenizer": "xlm_v"},
    "siglip": {
        "patch_bias": True,
        "class_token": False,
        "pre_norm": False,
        "vision_pooling": "probe",
        "probe_mlp_width": None,
        "vision_projection": "none",
        "causal": False,
        "text_pooling": "last",
        "text_projection": "biased",
        "logit_bias": True,
        "tokenizer": "siglip",
    },
    "videoprism": {
        "patch_bias": True,
        "class_token": False,
        "pre_norm": False,
        "vision_pooling": "query",
        "vision_projection": "none",
        "text_projection": "none",
        "logit_bias": False,
        "causal": True,
        "text_pooling": "class",
        "norm_offset": True,
        "tokenizer": "videoprism",
    },
}


def check_videoprism(path: pathlib.Path, config) -> None:
    """Raises a `UserError` for what transformers' VideoPrism can be and the model here cannot."""
    vision, text = config.vision_config, config.text_config
    if vision.attn_logit_softcapping != text.attn_logit_softcapping:
        raise UserError(f"{path}: its towers have different attn_logit_softcapping; here one")
    for name, tower in (("text", text), ("vision", vision)):
        if tower.qkv_bias is not True:
            raise UserError(
                f"{path}: {name}_config.qkv_bias is {tower.qkv_bias!r}; here VideoPrism's queries, "
                "keys and values have one, as its authors' have"
            )
    tubelet = vision.tubelet_size
    is_list = isinstance(tubelet, list | tuple) and len(tubelet) == 3
    if not is_list or list(tubelet) != [1, tubelet[2], tubelet[2]]:
        raise UserError(
            f"{path}: vision_config.tubelet_size {tubelet!r} is no square patch of one frame"
        )
    if text.max_position_embeddings != CONTEXT_LENGTH:
        raise UserError(
            f"{path}: text_config.max_position_embeddings is {text.max_position_embeddings}; "
            f"VideoPrism's texts have {CONTEXT_LENGTH} places"
        )
